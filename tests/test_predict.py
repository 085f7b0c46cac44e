"""`mixlab predict`: what it writes, of which images, and how it refuses."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import backends
from experiments import data
from experiments.files import write_json
from experiments.results.store import Store
from experiments.spec.trial import Trial, as_tree
from tests import kept_models
from tests.conftest import Ended
from tests.test_cli import assert_mistake

Run = Callable[..., Ended]

FIXTURES = Path(__file__).parent / "fixtures"
TOLERANCE = 1e-10  # see tests/test_weights_families.py
PREDICT = ("predict", "--weights", "gmlp_small.npz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The working folder, with weights and images: good ones, and each with one fault."""
    shutil.copy(FIXTURES / "gmlp_small.npz", tmp_path)
    images = np.load(tmp_path / "gmlp_small.npz")["images"]
    pixels = np.round((images + 1) * 127.5).astype(np.uint8)
    np.save(tmp_path / "good.npy", images)
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "nan.npy", np.where(images == images.max(), np.nan, images))
    np.save(tmp_path / "low.npy", images - 1)
    np.save(tmp_path / "high.npy", images + 1)
    np.save(tmp_path / "whole.npy", pixels.astype(np.int64))
    np.save(tmp_path / "first.npy", images.transpose(0, 3, 1, 2))
    np.save(tmp_path / "flat.npy", images[..., 0])
    np.savez(tmp_path / "several.npz", a=images, b=images)
    (tmp_path / "odd.npy").write_text("hello")
    return tmp_path


@pytest.mark.parametrize("backend", backends.names())
def test_logits_and_features_are_those_of_the_source_whatever_the_batch(run: Run, folder: Path, backend: str) -> None:
    expected = np.load(folder / "gmlp_small.npz")
    options = ("--out", "out.npz", "--precision", "float64", "--backend", backend, "--batch", "3")
    for images in (("gmlp_small.npz",), ("several.npz", "--array", "b"), ("pixels.npy",)):
        ended = run(*PREDICT, *images, *options)
        assert ended.code == 0, ended.err
        with np.load(folder / "out.npz") as made:
            for part in ("logits", "features"):
                # Pixels are scaled in float64 here, and were in float32 there: 3e-8 of an image of order 1.
                tolerance = 1e-6 if images == ("pixels.npy",) else TOLERANCE
                np.testing.assert_allclose(made[part], expected[part], rtol=0, atol=tolerance)
            assert ("labels" in made) == (images == ("gmlp_small.npz",))


def test_a_data_source_gives_its_test_examples_with_their_labels(run: Run, folder: Path) -> None:
    ended = run(*PREDICT, "synthetic", "data.num_classes=7", "data.num_examples=40", "--out", "out.npz")
    assert ended.code == 0, ended.err
    with np.load(folder / "out.npz") as made:
        assert (made["logits"].shape, made["features"].shape, made["labels"].shape) == ((8, 7), (8, 24), (8,))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nan.npy",), ("nan.npy: expected finite pixels, got NaN",)),
        (("low.npy",), ("low.npy: expected floats in [-1, 1], got -",)),
        (("high.npy",), ("high.npy: expected floats in [-1, 1], got ",)),
        (("whole.npy",), ("expected pixels of uint8, or floats in [-1, 1], got int64",)),
        (("first.npy",), ("expected images of 16 x 16 x 3", "got 3 x 16 x 16", "transpose(0, 2, 3, 1)")),
        (("flat.npy",), ("expected images (number, height, width, channels), got shape (4, 16, 16)",)),
        (("several.npz",), ("expected an array 'images' in it; name another with --array", "a, b")),
        (("odd.npy",), ("odd.npy: it cannot be read",)),
        (("goof.npy",), ("there is no such file", "did you mean 'good.npy'?")),
        (("good.npy", "data.subset=2"), ("images of a file have no fields",)),
        ((), ("IMAGES: expected a .npy or .npz file, or a source of data",)),
        (("good.npy", "--batch", "0"), ("--batch: expected 1 or more, got 0",)),
        (("good.npy", "--num-heads", "2"), ("--num-heads: its arrays say 1, got 2; leave it out",)),
        (("good.npy", "--weights", "trial:3f9c"), ("3f9c",)),
    ],
    ids=lambda value: " ".join(value) if value and "." in value[0] else "",
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    run: Run, folder: Path, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    assert_mistake(run(*PREDICT, *words, "--out", "out.npz"), *parts)
    assert not (folder / "out.npz").exists()


def test_labels_that_are_not_one_for_each_image_are_not_taken(run: Run, folder: Path) -> None:
    images = np.load(folder / "good.npy")
    np.savez(folder / "odd.npz", images=images, labels=np.zeros(len(images) + 1, np.int32))
    assert run(*PREDICT, "odd.npz", "--out", "out.npz").code == 0
    with np.load(folder / "out.npz") as made:
        assert set(made) == {"logits", "features"}


def test_an_output_that_cannot_be_written_is_refused_first(run: Run, folder: Path) -> None:
    assert_mistake(run(*PREDICT, "good.npy", "--out", "out.csv"), "--out: expected an .npz file, got 'out.csv'")
    assert_mistake(run(*PREDICT, "good.npy", "--out", "absent/out.npz"), "there is no folder absent")


def kept(folder: Path, permutation: str) -> Trial:
    """A trial that has kept weights, the same for every permutation."""
    trial = kept_models.trial({"permutation": permutation, "split_seed": 3})
    store = Store(folder / "runs")
    kept_models.keep(store, trial, kept_models.random_params(trial))
    write_json(store.folder(trial.id) / "spec.json", as_tree(trial))
    return trial


def test_the_weights_of_a_trial_get_its_permutation_of_pixels_and_no_other(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_models, "CLASSES", list("0123456789"))  # those of digits
    moved, plain = kept(tmp_path, "pixels"), kept(tmp_path, "none")
    model = moved.model
    side, channels = model.image_size, model.image_channels
    images = np.random.default_rng(0).integers(0, 256, (3, side, side, channels)).astype(np.uint8)
    order = data.pixel_order("pixels", side, model.patch_size, 3)
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "moved.npy", images.reshape(3, -1, channels)[:, order].reshape(images.shape))
    logits = []
    for trial, file in ((moved, "images.npy"), (plain, "moved.npy"), (plain, "images.npy")):
        ended = run("predict", "--weights", f"trial:{trial.id}", file, "--out", "out.npz")
        assert ended.code == 0, ended.err
        logits.append(np.load(tmp_path / "out.npz")["logits"])
    np.testing.assert_array_equal(logits[0], logits[1])
    assert np.abs(logits[0] - logits[2]).max() > 1e-3
    for command in (("predict", "--out", "out.npz"), ("evaluate",)):
        words = (command[0], "--weights", f"trial:{moved.id}", "digits", *command[1:])
        assert_mistake(run(*words), "data.permutation: expected pixels with data.split_seed=3", "got none")
        assert_mistake(run(*words, "data.permutation=pixels"), "data.split_seed=3", "got pixels with 0")
        assert run(*words, "data.permutation=pixels", "data.split_seed=3").code == 0


def test_a_spec_of_something_else_beside_the_weights_is_refused(run: Run, folder: Path) -> None:
    (folder / "spec.json").write_text("{}")
    assert_mistake(run(*PREDICT, "good.npy", "--out", "out.npz"), "spec.json: it cannot be read as a trial's spec")
