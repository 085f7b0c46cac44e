"""`mixlab evaluate` prepares images as the recipe of the weights says: resize, crop, mean and deviation.

The references are written here anew: the frame with Pillow from the rules of torchvision's Resize and CenterCrop, the
numbers from the definitions of mean and deviation, the logits from a program that is given the prepared images.
"""

import argparse
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

import backends
from backends.arrays import Array, State
from backends.errors import MixlabError
from experiments import data
from experiments.data import framing
from experiments.spec.config import INTERPOLATION, DataConfig
from experiments.weights import recipes, weight_files
from experiments.weights.recipes import Options, Recipe
from mixlab import evaluate
from tests.conftest import Ended
from tests.test_cli import assert_mistake
from tests.test_weights import FILES, FIXTURES, bare, logits

Run = Callable[..., Ended]
SIZES = ((40, 50), (61, 33), (32, 32), (37, 36), (200, 70), (33, 64), (36, 36))  # width, height
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LOSS_TOLERANCE = 2e-6  # it is printed to six decimals
# float32 beside float64. Seen: 3e-7; a mean off by 1/255 moves the loss by more than 1e-4.
FLOAT32_TOLERANCE = 1e-5


def picture(index: int) -> Image.Image:
    width, height = SIZES[index % len(SIZES)]
    pixels = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of 7 classes of images of many sizes, with the weights of the timm fixture beside it."""
    for split, offset in (("train", 0), ("test", 100)):
        for index in range(21):
            path = tmp_path / "set" / split / f"c{index % 7}" / f"{index // 7}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(offset + index).save(path)
    shutil.copy(FIXTURES / FILES["timm"], tmp_path / "w.npz")
    return tmp_path


def examples() -> Iterator[tuple[int, Image.Image]]:
    for index in range(21):
        yield index % 7, picture(100 + index)


def framed(image: Image.Image, shorter: int | None, size: int, filter_name: str) -> Array:
    """As torchvision does it: the longer side is cut to a whole number, the middle is rounded to even."""
    filter_ = getattr(Image.Resampling, filter_name.upper())
    if shorter is None:
        return np.asarray(image.resize((size, size), filter_))
    width, height = image.size
    if width <= height:
        width, height = shorter, int(shorter * height / width)
    else:
        width, height = int(shorter * width / height), shorter
    pixels = np.asarray(image.resize((width, height), filter_))
    top, left = round((height - size) / 2.0), round((width - size) / 2.0)
    return pixels[top : top + size, left : left + size]


def printed(ended: Ended) -> dict[str, str]:
    assert ended.code == 0, ended.err
    return {line.split(maxsplit=1)[0]: line.split(maxsplit=1)[1] for line in ended.out.splitlines()}


def expected(images: Array, labels: Array) -> tuple[float, float]:
    """Accuracy in percent, and the mean softmax loss."""
    found = weight_files.read(FIXTURES / FILES["timm"])
    made = logits("torch", found.model, found.params, images)
    logs = made - np.log(np.exp(made).sum(1, keepdims=True))
    return 100 * float(np.mean(made.argmax(1) == labels)), float(-logs[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("backend", backends.names())
@pytest.mark.parametrize(
    ("options", "shorter", "filter_name", "mean", "std"),
    [
        ((), None, "bilinear", (0.5,), (0.5,)),
        (("--recipe", "inception"), 36, "bicubic", (0.5,), (0.5,)),
        (("--recipe", "imagenet"), 36, "bilinear", *IMAGENET),
        (("--recipe", "imagenet", "--resize", "squash"), None, "bilinear", *IMAGENET),
        (("--mean", "0,0,0", "--std", "1,1,1"), None, "bilinear", (0.0,), (1.0,)),
        (("--mean", "0.1", "--std", "0.3", "--crop", "0.9"), 35, "bilinear", (0.1,), (0.3,)),
        (("--resize", "48", "--crop", "32", "--interpolation", "lanczos"), 48, "lanczos", (0.5,), (0.5,)),
        (("--recipe", "inception", "--crop", "1", "--std", "0.25"), 32, "bicubic", (0.5,), (0.25,)),
        (("data.shorter_side=40", "data.interpolation=box"), 40, "box", (0.5,), (0.5,)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) and value and isinstance(value[0], str) else "",
)
def test_images_are_prepared_as_the_recipe_says(
    run: Run,
    source: Path,
    backend: str,
    options: tuple[str, ...],
    shorter: int | None,
    filter_name: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> None:
    images = np.stack([framed(image, shorter, 32, filter_name) for _, image in examples()])
    labels = np.array([label for label, _ in examples()])
    order = np.argsort(labels, kind="stable")  # the reader lists class by class; the mean does not depend on it
    accuracy, loss = expected((images[order] / 255 - np.array(mean)) / np.array(std), labels[order])
    for precision, tolerance in (("float64", LOSS_TOLERANCE), ("float32", FLOAT32_TOLERANCE)):
        arguments = ("--weights", "w.npz", "set", "--backend", backend, "--precision", precision)
        lines = printed(run("evaluate", *arguments, *options))
        assert lines["accuracy"] == f"{accuracy:.2f} %" and lines["test"] == "21 examples of set"
        assert float(lines["loss"].split()[0]) == pytest.approx(loss, abs=tolerance)
    middle = f"shorter side to {shorter}, the middle 32 x 32 cut out, {filter_name}; "
    squashed = f"squashed to 32 x 32 where they are of another size, {filter_name}; "
    assert lines["images"].startswith(middle if shorter else squashed)


def test_without_a_recipe_the_output_says_that_it_is_that_of_trials(run: Run, source: Path) -> None:
    lines = printed(run("evaluate", "--weights", "w.npz", "set"))
    assert lines["images"].endswith("bilinear; scaled to [-1, 1] (as in trials)")


@pytest.mark.parametrize("shorter", [7, 8, 11, 20])
@pytest.mark.parametrize("filter_name", INTERPOLATION)
def test_the_frame_is_that_of_torchvision(shorter: int, filter_name: str) -> None:
    config = DataConfig(image_size=7, shorter_side=shorter, interpolation=filter_name)
    for index in range(3 * len(SIZES)):
        image = picture(index)
        np.testing.assert_array_equal(
            np.asarray(framing.frame(image, 7, config)), framed(image, shorter, 7, filter_name)
        )


def test_a_shorter_side_needs_a_square_that_fits_in_it(source: Path) -> None:
    for fields in ({"shorter_side": 30}, {"shorter_side": 30, "image_size": 31}):
        config = DataConfig(source=str(source / "set"), **fields)  # type: ignore[arg-type]
        with pytest.raises(MixlabError, match=r"^x: data\.shorter_side: 30 needs a data\.image_size"):
            data.describe(config, source / "cache", "x")


def test_images_of_another_frame_are_other_content(source: Path) -> None:
    """So that no trial is taken for one that was trained on other pixels."""
    found = {}
    for fields in ({}, {"shorter_side": 32}, {"shorter_side": 36}, {"interpolation": "bicubic"}):
        config = DataConfig(source=str(source / "set"), image_size=32, **fields)  # type: ignore[arg-type]
        found[str(fields)] = data.describe(config, source / "cache", "x").content
    assert len(set(found.values())) == 4


# --- Options --------------------------------------------------------------------------------------------------------


def find(path: Path = FIXTURES / FILES["timm"], **options: str) -> Recipe:
    return recipes.find(Options(**options), weight_files.read(path), path)


@pytest.mark.parametrize(
    ("size", "share", "shorter"), [(224, 0.875, 256), (224, 0.9, 248), (32, 0.95, 33), (224, 1.0, 224), (14, 0.6, 23)]
)
def test_a_share_is_that_of_timm(size: int, share: float, shorter: int) -> None:
    assert math.floor(size / share) == shorter
    assert recipes._shorter_side(Options(crop=str(share)), None, size) == shorter
    assert recipes._shorter_side(Options(), share, size) == shorter


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--mean", "0.5"), "--mean and --std go together"),
        (
            ("--mean", "0.5,0.5", "--std", "1"),
            "--mean: expected one number, or 3, as the weights have channels, got 0.5,0.5",
        ),
        (("--mean", "a", "--std", "1"), "--mean: expected a number, got 'a'"),
        (("--mean", "nan", "--std", "1"), "--mean: expected a number, got 'nan'"),
        (("--mean", "0", "--std", "0"), "--std: expected numbers above 0, got 0"),
        (("--crop", "32"), "--crop: expected a share of the shorter side such as 0.875, or, beside --resize, 32"),
        (("--crop", "40", "--resize", "50"), "the model takes, got 40"),
        (("--crop", "0"), "--crop: 0 of a side is not 32 pixels"),
        (("--crop", "0.5", "--resize", "50"), "--crop: 0.5 of 50 is not 32 pixels"),
        (("--crop", "0.5", "--resize", "squash"), "nothing is cut out of images that are squashed"),
        (("--resize", "20"), "--resize: expected at least 32, of which 32 x 32 pixels are cut out, got 20"),
        (("--resize", "40.5"), "--resize: expected a whole number"),
        (("--interpolation", "bicubik"), "did you mean 'bicubic'?"),
        (("--recipe", "timm"), "neither w.npz nor a config.json beside it holds mean, std, crop_pct, interpolation"),
        (("--recipe", "inception", "data.shorter_side=40"), "leave one out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_in_a_recipe_is_one_sentence(run: Run, source: Path, options: tuple[str, ...], part: str) -> None:
    assert_mistake(run("evaluate", "--weights", "w.npz", "set", *options), part)


CONFIG = {
    "mean": [0.0, 0.1, 0.2],
    "std": [1.0, 0.9, 0.8],
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "crop_mode": "center",
}
EXPECTED = ((0.0, 0.1, 0.2), (1.0, 0.9, 0.8), 35, "bicubic")


def written(folder: Path, where: str, config: dict[str, Any]) -> Path:
    """Weights with a recipe of timm in one of the places where it is found."""
    arrays: State = bare("timm")
    if where == "arguments":
        state = {name: torch.tensor(x) for name, x in arrays.items()}
        torch.save({"state_dict": state, "args": argparse.Namespace(lr=1, **config)}, folder / "m.pth.tar")
        return folder / "m.pth.tar"
    metadata = {"pretrained_cfg": json.dumps(config)} if where == "metadata" else None
    save_file(arrays, folder / "m.safetensors", metadata=metadata)
    if where != "metadata":
        tree = {"architecture": "mixer", "pretrained_cfg": config} if where == "config.json" else config
        (folder / "config.json").write_text(json.dumps(tree))
    return folder / "m.safetensors"


@pytest.mark.parametrize("where", ["metadata", "config.json", "old config.json", "arguments"])
def test_the_recipe_of_timm_is_found_where_timm_writes_it(tmp_path: Path, where: str) -> None:
    found = find(written(tmp_path, where, CONFIG), recipe="timm")
    assert (found.mean, found.std, found.shorter_side, found.interpolation) == EXPECTED
    assert found.source.startswith("timm, ")
    other = find(written(tmp_path, where, CONFIG), recipe="timm", crop="1", interpolation="box")
    assert (other.shorter_side, other.interpolation, other.mean) == (32, "box", EXPECTED[0])
    assert other.source.endswith("--crop, --interpolation")


@pytest.mark.parametrize("where", ["metadata", "config.json", "arguments"])
@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"mean": None}, "holds mean; give them as --mean"),
        ({"crop_pct": None, "std": None}, "holds std, crop_pct"),
        ({"crop_mode": "border"}, "crop_mode: expected 'center', got 'border'"),
        ({"interpolation": "random"}, "interpolation: expected a kind of it, got 'random'"),
        ({"input_size": [3, 224, 224]}, "expected images of 32 pixels, as the weights take, got [3, 224, 224]"),
        ({"mean": [0.5, 0.5]}, "or 3, as the weights have channels"),
    ],
    ids=str,
)
def test_a_recipe_of_timm_that_is_not_whole_is_refused(
    tmp_path: Path, where: str, changes: dict[str, Any], part: str
) -> None:
    with pytest.raises(MixlabError) as refused:
        find(written(tmp_path, where, CONFIG | changes), recipe="timm")
    assert part in str(refused.value) and "\n" not in str(refused.value)


def test_what_the_recipe_of_timm_lacks_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path, "arguments", CONFIG | {"mean": None, "std": None})
    found = find(path, recipe="timm", mean="0.5", std="0.5")
    assert (found.mean, found.std, found.shorter_side) == ((0.5,) * 3, (0.5,) * 3, 35)


def test_the_command_line_offers_every_recipe() -> None:
    """It writes their names itself, since its help imports nothing."""
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    choices = next(action.choices for action in parser._actions if action.dest == "recipe")
    assert tuple(choices or ()) == recipes.NAMES
    assert set(Options.__dataclass_fields__) <= {action.dest for action in parser._actions}
