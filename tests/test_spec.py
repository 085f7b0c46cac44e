"""The spec of a trial: ranges, types and names of its fields, how they must fit each other, and what its id is."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.errors import MixlabError, listed
from backends.models import FAMILIES
from backends.models.config import FAMILY, ModelConfig
from backends.models.mixer_spec import NORM, TOKEN_MIXING
from backends.models.variants import MIXER, VARIANTS
from experiments.spec import fields, values
from experiments.spec.config import TrialConfig
from experiments.spec.trial import Trial, trial_from_json
from tests.conftest import base, planned, write_yaml
from tests.sources import noise_folder

WHERE = "trial.yaml"
NONE: tuple[Any, Any] = (None, None)
WORDS = {
    "data.storage": ("auto", "memory", "disk", "encoded"),
    "model.variant": tuple(VARIANTS),
    "model.family": FAMILY,
    "model.token_mixing": TOKEN_MIXING,
    "model.channel_mixing": ("tied", "untied", "none"),
    "model.position_embedding": ("none", "learned", "sincos2d"),
    "model.norm": NORM,
    "model.norm_place": ("pre", "post"),
    "model.pool": ("mean", "cls"),
    "model.stem": ("patches", "overlap"),
    "model.init": ("mixer", "vit"),
    "model.version": ("v1", "v2"),
    "model.root": ("imagenet", "cifar"),
    "model.unit": ("bottleneck", "basic"),
    "model.activation": ("gelu_tanh", "gelu", "relu"),
    "model.metaformer": ("poolformer", "baseline"),
    "model.token_mixers": ("pooling", "identity"),
    "data.interpolation": ("bilinear", "bicubic", "lanczos", "box", "hamming", "nearest"),
    "data.permutation": ("none", "patches", "pixels"),
    "data.layout": ("classes", "splits"),
    "data.augment.mixup_style": ("drawn", "authors"),
    "data.augment.inception": ("tf", "torchvision"),
    "data.augment.randaugment.style": ("big_vision", "fixed", "torchvision"),
    "train.optimizer": ("adamw", "sgd"),
    "train.schedule": ("cosine", "linear", "constant"),
    "run.keep": ("best", "last", "none"),
    "train.decay": ("kernels", "all"),
    "train.loss": ("softmax", "sigmoid"),
    "train.precision": ("float64", "float32", "tf32", "bfloat16"),
}
# Lowest and highest value of every field that is a number, None where there is no limit.
LIMITS: dict[str, tuple[Any, Any]] = {
    "model.num_classes": (2, None),
    "model.patch_size": (1, None),
    "model.hidden_dim": (1, None),
    "model.num_blocks": (1, 1000),
    "model.tokens_mlp_dim": (1, None),
    "model.channels_mlp_dim": (1, None),
    "model.token_groups": (1, None),
    "model.num_heads": (1, None),
    "model.width": (1, None),
    "model.norm_groups": (1, None),
    "model.kernel_size": (1, 99),
    "model.layer_scale": (0.0, 10.0),
    "model.norm_epsilon": (1e-30, 1.0),
    "model.dropout": (0.0, 0.95),
    "model.stochastic_depth": (0.0, 0.95),
    "data.image_size": (1, None),
    "data.shorter_side": (1, None),
    "data.image_channels": (1, 3),
    "data.bits": (8, 16),
    "data.num_classes": (2, None),
    "data.num_examples": (4, None),
    "data.fraction": (1e-6, 1.0),
    "data.validation_fraction": (0.0, 0.9),
    "data.test_fraction": (0.01, 0.9),
    "data.split_seed": (0, None),
    "data.augment.crop": (0, None),
    "data.augment.mixup": (0.0, 10.0),
    "data.augment.cutmix": (0.0, 10.0),
    "data.augment.inception_area": (0.0, 1.0),
    "data.augment.randaugment.num": (0, 16),
    "data.augment.randaugment.magnitude": (0.0, 30.0),
    "data.augment.color_jitter": (0.0, 1.0),
    "data.augment.erasing": (0.0, 1.0),
    "data.augment.repeat": (1, 16),
    "train.learning_rate": (0.0, 1e3),
    "train.warmup_steps": (0, None),
    "train.b1": (0.0, 0.999999),
    "train.b2": (0.0, 0.99999999),
    "train.epsilon": (0.0, 1.0),
    "train.momentum": (0.0, 0.999999),
    "train.weight_decay": (0.0, 1e3),
    "train.clip_norm": (0.0, None),
    "train.label_smoothing": (0.0, 0.99),
    "train.batch_size": (1, None),
    "train.epochs": (0.001, None),
    "train.steps": (1, None),
    "train.ema_decay": (0.0, 0.99999999),
    "train.evaluate_every": (1, None),
    "train.evaluate_train_examples": (1, None),
    "seed": (0, None),
    "train.microbatches": (1, 4096),
    "run.devices": (1, None),
    "run.threads": (0, None),
    "run.checkpoint_every_s": (0.0, None),
}
# Lowest and highest value in every field that is a list of numbers.
LISTS: dict[str, tuple[int, int | None]] = {
    "model.pyramid": (0, 999),
    "model.depths": (1, 1000),
    "model.dims": (1, None),
    "model.scaled_stages": (0, 999),
}
# Of those that are a number or such a list.
NUMBERS_OR_LISTS: dict[str, tuple[int, int | None]] = {"model.depth": (1, 1000), "run.probe_shots": (1, None)}
FLAGS = (
    "model.share_blocks",
    "model.share_token_mixing",
    "model.share_channel_mixing",
    "model.cls_position",
    "model.representation",
    "model.pre_head_norm",
    "model.rescale",
    "data.augment.flip",
    "data.augment.three_augment",
    "train.nesterov",
    "run.compile",
    "run.deterministic",
    "run.remat",
    "run.sharded_optimizer",
)
TEXTS = (
    "data.source",
    "data.labels_real",
    "data.subset",
    "data.train_split",
    "data.test_split",
    "data.image_column",
    "data.label_column",
    "data.background",
    "backend",
    "run.device",
    "run.replicas",
    "run.data_cache",
    "run.compile_cache",
    "train.init_from",
)
# Of TINY with every size given, on the data of "synthetic-1". Another id needs another SPEC_VERSION, or a new field.
GOLDEN_ID = "175dc057ce63"


def sentence(caught: pytest.ExceptionInfo[MixlabError], *parts: str) -> str:
    """The error's text, which is one line that begins with a place and holds the parts."""
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"
    return text


def held(name: str, value: Any) -> None:
    """Set one field as YAML does."""
    fields.set_fields(TrialConfig(), fields.typed({name: value}, WHERE))


@pytest.fixture
def trial(tmp_path: Path, cache: Path) -> Iterator[Any]:
    """The one trial of an ablation with this base: trial(base, "train.steps=3")."""

    def trial(given: Any, *overrides: str, grid: Any = None) -> Trial:
        path = write_yaml(tmp_path / "one.yaml", base=given, grid=grid or {"seed": [0]})
        (one,) = planned(path, cache, *overrides)
        return one.trial

    yield trial


# --- ranges, types, names -----------------------------------------------------------------------------------------


def test_every_field_is_held_by_a_test() -> None:
    assert sorted(fields.names()) == sorted((*WORDS, *LIMITS, *LISTS, *NUMBERS_OR_LISTS, *FLAGS, *TEXTS))


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_allowed_and_what_lies_beyond_is_not(name: str) -> None:
    low, high = LIMITS[name]
    is_float = isinstance(low, float)
    held(name, low)
    with pytest.raises(MixlabError) as caught:
        held(name, low - (low / 2 or 1e-9) if is_float else low - 1)
    sentence(caught, f"{WHERE}: {name}: expected a ", f"number (at least {low:.9g}", "got ")
    if high is None:
        held(name, 10**6)
        return
    held(name, high)
    with pytest.raises(MixlabError) as caught:
        held(name, high * 1.5 if is_float else high + 1)
    sentence(caught, f"{WHERE}: {name}: expected a ", f"at most {high:.9g})", "got ")


@pytest.mark.parametrize("name", [name for name, (low, _) in LIMITS.items() if isinstance(low, float)])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), ".nan"])
def test_no_field_is_nan_or_infinite(name: str, value: Any) -> None:
    with pytest.raises(MixlabError) as caught:
        held(name, value)
    sentence(caught, f"{WHERE}: {name}: ")


@pytest.mark.parametrize("name", WORDS)
def test_words_are_those_allowed_and_the_nearest_is_named(name: str) -> None:
    for word in WORDS[name]:
        held(name, word)
    first = WORDS[name][-1]
    with pytest.raises(MixlabError) as caught:
        held(name, first + "x")
    holder = fields.holder(name)
    more = ", or a list of them" if values.may_be_list(*holder) else ""
    null = " or null" if values.may_be_null(*holder) else ""
    sentence(
        caught, f"{name}: expected one of {listed(WORDS[name])}{more}{null}, got '{first}x'; did you mean {first!r}?"
    )


@pytest.mark.parametrize("name", LISTS)
def test_each_number_of_a_list_is_in_its_range(name: str) -> None:
    low, high = LISTS[name]
    most = high or 10**6
    may_be_null = values.may_be_null(*fields.holder(name))
    assert fields.typed({name: [str(low), most]}, WHERE) == {name: (low, most)}
    assert fields.typed({name: []}, WHERE) == {name: ()}
    beyond, ends = ([[low, high + 1]], f", at most {high}") if high else ([], "")
    null = " or null" if may_be_null else ""
    for wrong in (*beyond, [low - 1], [0.5], ["many"], [[low]], [None], low, "many", *([] if may_be_null else [None])):
        with pytest.raises(MixlabError) as caught:
            held(name, wrong)
        sentence(caught, f"{name}: expected a list of whole numbers (each at least {low}{ends}){null}, got ")


@pytest.mark.parametrize("name", NUMBERS_OR_LISTS)
def test_a_number_and_each_of_a_list_are_in_their_range(name: str) -> None:
    low, high = NUMBERS_OR_LISTS[name]
    most = high or 10**6
    assert fields.typed({name: str(low)}, WHERE) == {name: low}
    assert fields.typed({name: [low, str(most)]}, WHERE) == {name: (low, most)}
    beyond, ends = ([high + 1, [low, high + 1]], f", at most {high}") if high else ([], "")
    for wrong in (low - 1, *beyond, [[low]], "many"):
        with pytest.raises(MixlabError) as caught:
            held(name, wrong)
        sentence(caught, f"{name}: expected a whole number or a list of whole numbers (at least {low}{ends})")


def test_each_word_of_a_list_is_one_of_the_words() -> None:
    name = "model.token_mixing"
    assert fields.typed({name: ["tied", "attention"]}, WHERE) == {name: ("tied", "attention")}
    for wrong, end in (
        (["tied", "atention"], "; did you mean 'attention'?"),
        (["tied", 1], "['tied', 1]"),
        ([[]], "[[]]"),
    ):
        with pytest.raises(MixlabError) as caught:
            held(name, wrong)
        assert sentence(caught, f"{name}: expected one of tied, ", ", or a list of them, got ").endswith(end)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in (*LIMITS, *FLAGS) for value in ("many", [1], {"a": 1})),
        *((name, 0.5) for name, (low, _) in LIMITS.items() if isinstance(low, int)),
        *((name, True) for name in LIMITS),
        *((name, value) for name in (*WORDS, *TEXTS) for value in ([1], {"a": 1})),
        *((name, None) for name in ("seed", "train.batch_size", "model.dropout", "data.source", "backend")),
    ],
)
def test_a_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(MixlabError) as caught:
        held(name, value)
    sentence(caught, f"{WHERE}: {name}: ")


def test_words_of_a_number_are_that_number() -> None:
    """The command line and YAML's own odd rules (1e-3 is a text in it) give texts."""
    typed = fields.typed({"train.steps": "20", "train.learning_rate": "1e-3", "model.share_blocks": "true"}, WHERE)
    assert typed == {"train.steps": 20, "train.learning_rate": 1e-3, "model.share_blocks": True}
    assert [type(value) for value in typed.values()] == [int, float, bool]


@pytest.mark.parametrize(
    ("keys", "came", "near"),
    [
        ({"base": {"model": {"hiden_dim": 8}}}, "model.hiden_dim", "model.hidden_dim"),
        ({"base": {"modle": {"hidden_dim": 8}}}, "modle", "model"),
        ({"base": {"model.hiden_dim": 8}}, "model.hiden_dim", "model.hidden_dim"),
        ({"base": {"data": {"augment": {"crops": 1}}}}, "data.augment.crops", "data.augment.crop"),
        ({"base": {"hidden_dim": 8}}, "hidden_dim", "model.hidden_dim"),
        ({"base": {"train": {"hidden_dim": 8}}}, "train.hidden_dim", "model.hidden_dim"),
        ({"base": {"train": {"lr": 0.1}}}, "train.lr", "train.learning_rate"),
        ({"grid": {"wd": [0.1]}}, "wd", "train.weight_decay"),
        ({"grid": {"modle.num_blocks": [1]}}, "modle.num_blocks", "model.num_blocks"),
        ({"grid": {"model.num_block": [1]}}, "model.num_block", "model.num_blocks"),
        ({"grid": {"setting": [{"model.num_block": 1}]}}, "model.num_block", "model.num_blocks"),
        ({"grid": [{"seed": [0]}, {"sede": [1]}]}, "sede", "seed"),
        ({"exclude": [{"sed": 1}]}, "sed", "seed"),
        ({"report": {"rows": ["sed"]}}, "sed", "seed"),
        ({"report": {"columns": ["bakend"]}}, "bakend", "backend"),
        ({"report": {"row": ["seed"]}}, "row", "rows"),
        ({"report": {"baseline": {"bakend": "torch"}}}, "bakend", "backend"),
        ({"report": {"metric": "last.test.acuracy"}}, "last.test.acuracy", "last.test.accuracy"),
        ({"gird": {"seed": [0]}}, "gird", "grid"),
    ],
)
def test_a_misspelt_key_comes_with_the_nearest(
    tmp_path: Path, cache: Path, keys: dict[str, Any], came: str, near: str
) -> None:
    path = write_yaml(tmp_path / "one.yaml", **keys)
    with pytest.raises(MixlabError) as caught:
        planned(path, cache)
    assert sentence(caught, repr(came), f"did you mean {near!r}?").startswith(f"{path}: ")


def test_a_value_where_a_section_belongs_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(MixlabError) as caught:
        planned(write_yaml(tmp_path / "one.yaml", base={"model": 8}), cache)
    sentence(caught, "one.yaml", "model: expected a mapping of fields, got 8")


def test_a_wrong_value_in_a_base_file_names_that_file(tmp_path: Path, cache: Path) -> None:
    for name, value in (("train.steps", "many"), ("train.steps", 0), ("train.step", 3)):
        (tmp_path / "base.yaml").write_text(json.dumps({name: value}))
        with pytest.raises(MixlabError) as caught:
            planned(write_yaml(tmp_path / "one.yaml", base="base.yaml"), cache)
        sentence(caught, "base.yaml", name)


# --- fields that must fit each other and the data -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        (["model.patch_size=3"], ("model.patch_size: 3", "8 pixels", "data.image_size", "1, 2, 4, 8")),
        (["model.token_mixing=grouped", "model.token_groups=3"], ("model.token_groups: 3", "model.hidden_dim 8")),
        (["model.token_mixing=grouped_views", "model.token_groups=16"], ("model.token_groups: 16", "hidden_dim 8")),
        (["model.token_groups=2"], ("model.token_groups: 2", "grouped", "'tied'")),
        (["model.token_mixing=untied", "model.token_groups=2"], ("model.token_groups: 2", "'untied'")),
        (["model.num_classes=2", "data.num_classes=3"], ("model.num_classes: 2", "3 classes", "'synthetic'")),
        (["train.batch_size=44"], ("train.batch_size: 44", "43 training examples", "data.fraction")),
        (["train.batch_size=8", "data.fraction=0.1"], ("train.batch_size: 8", "4 training examples")),
        (["train.warmup_steps=7"], ("train.warmup_steps: 7", "6 steps")),
        (["data.augment.crop=9"], ("data.augment.crop: 9", "8 pixels")),
        (["data.image_channels=2"], ("data.image_channels: expected 1 (grey) or 3 (colour), got 2",)),
        (["data.source=digitss"], ("data.source: 'digitss'", "did you mean 'digits'?")),
        (["data.validation_fraction=0.9", "data.num_examples=4", "data.num_classes=2"], ("data.validation_fraction",)),
        (["backend=tensorflow"], ("backend: expected the name of a backend, got 'tensorflow'", "jax, torch")),
    ],
)
def test_fields_that_do_not_fit_are_named(trial: Any, overrides: list[str], parts: tuple[str, ...]) -> None:
    with pytest.raises(MixlabError) as caught:
        trial(base(), *overrides)
    sentence(caught, "one.yaml with ", *parts)


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.patch_size=8"],
        ["model.token_mixing=grouped", "model.token_groups=8"],
        ["model.num_classes=3", "data.num_classes=3"],
        ["train.batch_size=43"],
        ["train.warmup_steps=6"],
        ["data.augment.crop=8"],
    ],
)
def test_fields_that_just_fit_are_taken(trial: Any, overrides: list[str]) -> None:
    trial(base(), *overrides)


def test_steps_and_epochs_exclude_each_other(trial: Any) -> None:
    with pytest.raises(MixlabError) as caught:
        trial(base(train={"steps": 3, "epochs": 1}))
    sentence(caught, "one.yaml", "train.steps", "train.epochs")


@pytest.mark.parametrize("seed", [2**32, 2**63, 2**64, 2**70])
def test_a_seed_may_be_of_any_size(trial: Any, seed: int) -> None:
    from experiments import streams

    resolved = trial(base(), f"seed={seed}")
    assert resolved.seed == seed
    assert streams.uniforms(resolved.seed, "weights", 0, 1, (2,)).shape == (1, 2)


# --- what is left out ---------------------------------------------------------------------------------------------


def test_what_is_left_out_is_filled_in(trial: Any) -> None:
    resolved = trial({"data": {"source": "synthetic", "image_size": 16, "num_examples": 1000}, "train.batch_size": 10})
    model, train, info = resolved.model, resolved.train, resolved.info
    assert (info.num_train, info.num_validation, info.num_test) == (720, 80, 200)
    assert (model.patch_size, model.hidden_dim, model.num_blocks, model.num_classes) == (2, 64, 4, 10)
    assert (model.tokens_mlp_dim, model.channels_mlp_dim) == (32, 256)  # C/2 and 4C
    assert (train.steps, train.epochs, train.evaluate_every) == (20 * 72, None, 144)


@pytest.mark.parametrize("name", MIXER)
def test_a_variant_is_its_sizes(trial: Any, name: str) -> None:
    names = ("patch_size", "hidden_dim", "num_blocks", "tokens_mlp_dim", "channels_mlp_dim")
    sizes = dict(zip(names, MIXER[name], strict=True))
    # Table 1 of arXiv 2105.01601: patch, C, blocks, D_S, D_C.
    table = {
        "S/32": (32, 512, 8, 256, 2048),
        "S/16": (16, 512, 8, 256, 2048),
        "B/32": (32, 768, 12, 384, 3072),
        "B/16": (16, 768, 12, 384, 3072),
        "L/32": (32, 1024, 24, 512, 4096),
        "L/16": (16, 1024, 24, 512, 4096),
        "H/14": (14, 1280, 32, 640, 5120),
    }
    assert tuple(sizes.values()) == table[name]
    data = {"source": "synthetic", "image_size": 224, "image_channels": 1, "num_examples": 40}
    train = {"batch_size": 2, "steps": 1}
    by_name = trial({"model": {"variant": name}, "data": data, "train": train})
    by_size = trial({"model": sizes, "data": data, "train": train})
    assert by_name.id == by_size.id and by_name == by_size
    smaller = trial({"model": {"variant": name, "num_blocks": 1}, "data": data, "train": train})
    assert smaller.model == dataclasses.replace(by_name.model, num_blocks=1)


# --- id -----------------------------------------------------------------------------------------------------------


def test_epochs_that_are_as_many_steps_are_the_same_trial(trial: Any) -> None:
    given = base(train={"steps": None})
    assert trial(given, "train.epochs=2").id == trial(base(), "train.steps=10").id  # 43 examples, batches of 8
    assert trial(given, "train.epochs=2").id != trial(base(), "train.steps=11").id


@pytest.mark.parametrize(
    ("epochs", "steps"),
    [(0.7, 4), (0.5, 2), (0.35, 2), (0.05, 1)],  # of 5 steps each: the nearest whole number, of two the even one
)
def test_a_part_of_an_epoch_is_the_nearest_number_of_steps(trial: Any, epochs: float, steps: int) -> None:
    assert trial(base(train={"steps": None}), f"train.epochs={epochs}").train.steps == steps


@pytest.mark.parametrize(("steps", "every"), [(6, 1), (10, 1), (11, 2), (25, 3), (100, 10)])
def test_a_run_is_evaluated_ten_times_at_most_where_nothing_is_said(trial: Any, steps: int, every: int) -> None:
    assert trial(base(train={"steps": steps, "evaluate_every": None})).train.evaluate_every == every


def test_an_override_and_the_yaml_give_the_same_trial(trial: Any) -> None:
    overrides = ["model.hidden_dim=16", "train.learning_rate=0.01", "data.augment.flip=true", "backend=jax", "seed=3"]
    written = base(model={"hidden_dim": 16}, train={"learning_rate": 0.01}, data={"augment": {"flip": True}})
    by_override = trial(base(), *overrides)
    assert by_override.id == trial({**written, "backend": "jax", "seed": 3}, grid={"seed": [3]}).id
    assert (
        by_override.id == trial(base(), grid=dict([axis.split("=")[0], [axis.split("=")[1]]] for axis in overrides)).id
    )


def test_a_default_written_out_is_the_same_trial(trial: Any) -> None:
    config = TrialConfig()
    values = {name: fields.get_field(config, name) for name in fields.names()}
    whole = {name: value for name, value in values.items() if value is not None}
    sections = ("data.source", "data.image", "data.num", "train.steps", "train.batch", "train.evaluate_every")
    kept = {name: value for name, value in whole.items() if not name.startswith(sections)}
    dotted = {f"{section}.{name}": value for section, inner in base().items() for name, value in inner.items()}
    assert trial({**kept, **dotted}).id == trial(base()).id == GOLDEN_ID


def test_an_int_where_a_float_belongs_is_the_same_trial(trial: Any) -> None:
    assert trial(base(train={"clip_norm": 1, "weight_decay": 0})).id == trial(base()).id


def test_the_same_data_in_another_folder_is_the_same_trial(trial: Any, tmp_path: Path) -> None:
    shutil.copytree(noise_folder(tmp_path / "one"), tmp_path / "two")
    given = {key: value for key, value in base().items() if key != "data"}
    ids = [trial(given, f"data.source={tmp_path / name}").id for name in ("one", "two")]
    assert ids[0] == ids[1]
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    last = tmp_path / "other" / "train" / "dog" / "9.png"
    Image.fromarray(np.asarray(Image.open(last))[::-1]).save(last)
    assert trial(given, f"data.source={tmp_path / 'other'}").id != ids[0]


@pytest.mark.parametrize("name", [name for name in fields.names() if name.startswith("run.")])
def test_where_a_trial_runs_does_not_change_its_id(trial: Any, tmp_path: Path, name: str) -> None:
    values = {"run.device": "cpu", "run.threads": 3, "run.compile": True, "run.deterministic": False, "run.remat": True}
    values |= {"run.checkpoint_every_s": 1.0, "run.data_cache": str(tmp_path / "cache")}
    values |= {"run.compile_cache": str(tmp_path / "compiled"), "run.keep": "best", "run.replicas": "auto"}
    values |= {"run.probe_shots": 1, "run.devices": 2, "run.sharded_optimizer": True}
    parts = [f"train.microbatches={2 if name == 'run.devices' else 1}"]
    resolved = trial(base(), *parts, f"{name}={values[name]}")
    assert fields.get_field(resolved, name) == values[name] and resolved.id == trial(base(), *parts).id
    assert name == "run.devices" or resolved.id == GOLDEN_ID


def changed(trial: Trial) -> Iterator[tuple[str, Trial]]:
    """The trial with one field changed, for each of its fields that is not of `run`."""
    for section in ("model", "data", "train", "info"):
        part = getattr(trial, section)
        for f in dataclasses.fields(part):
            value = getattr(part, f.name)
            for inner, new in changed_values(value):
                changed_part = dataclasses.replace(part, **{f.name: new})
                yield f"{section}.{f.name}{inner}", dataclasses.replace(trial, **{section: changed_part})
    yield "backend", dataclasses.replace(trial, backend="jax")
    yield "seed", dataclasses.replace(trial, seed=1)


def changed_values(value: Any) -> Iterator[tuple[str, Any]]:
    """The value with one field changed, for each of its fields, which may have fields too; else another value."""
    if not dataclasses.is_dataclass(value):
        yield "", other(value)
        return
    for f in dataclasses.fields(value):
        for inner, new in changed_values(getattr(value, f.name)):
            yield f".{f.name}{inner}", dataclasses.replace(value, **{f.name: new})


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 7)
    return f"{value}x" if isinstance(value, str) else 7 if value is None else value + 1


def test_every_scientific_field_changes_the_id(trial: Any) -> None:
    resolved = trial(base())
    ids = {name: one.id for name, one in changed(resolved)}
    for family in FAMILY[1:]:
        model = FAMILIES[family].make(ModelConfig(family=family), 8, 1, 2)
        of_family = {name: one.id for name, one in changed(dataclasses.replace(resolved, model=model))}
        own = {name: key for name, key in of_family.items() if name.startswith("model.")}
        assert len(set(own.values())) == len(own) and not set(own.values()) & set(ids.values())
        ids |= {name: key for name, key in own.items() if name not in ids}
    # Each field of the spec is one of these; how data was asked for counts by what came of it, in `info`.
    asked = {name for name in fields.names() if not name.startswith("run.")} - {"model.variant"}
    assert asked <= set(ids)
    hashed = ("data.split_seed", "data.permutation", "data.augment.")
    by_content = {name: ids.pop(name) for name in list(ids) if name.startswith("data.") and not name.startswith(hashed)}
    assert len(by_content) == 20 and set(by_content.values()) == {resolved.id}
    assert resolved.id not in ids.values() and len(set(ids.values())) == len(ids)


@pytest.mark.parametrize(
    ("setting", "idle"),
    [
        ({"train": {"optimizer": "sgd"}}, {"train": {"b1": 0.5, "b2": 0.5, "epsilon": 0.1}}),
        ({"train": {"optimizer": "adamw"}}, {"train": {"momentum": 0.5, "nesterov": True}}),
        ({"train": {"weight_decay": 0.0}}, {"train": {"decay": "all"}}),
        ({"model": {"stochastic_depth": 0.0}}, {"model": {"rescale": True}}),
        ({}, {"data": {"test_split": None, "train_split": "train"}}),
    ],
)
def test_a_field_that_has_no_effect_makes_no_other_trial(
    trial: Any, setting: dict[str, dict[str, Any]], idle: dict[str, dict[str, Any]]
) -> None:
    both = {section: {**setting.get(section, {}), **idle.get(section, {})} for section in {**setting, **idle}}
    assert trial(base(**setting)).id == trial(base(**both)).id
    if "train" in idle or "model" in idle:
        working = {"train": {"optimizer": "sgd" if "momentum" in idle.get("train", {}) else "adamw"}}
        working["train"] |= {"weight_decay": 0.1}
        awake = {"model": {"stochastic_depth": 0.1, **idle.get("model", {})}}
        awake["train"] = {**working["train"], **idle.get("train", {})}
        assert trial(base(**working, model={"stochastic_depth": 0.1})).id != trial(base(**awake)).id


def test_a_column_that_is_named_and_one_that_is_found_give_the_same_trial(trial: Any, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "set" / "train" / name).mkdir(parents=True)
        for row in range(10):
            Image.fromarray(np.full((8, 8), 20 * row, np.uint8)).save(tmp_path / "set" / "train" / name / f"{row}.png")
    given = {key: value for key, value in base().items() if key != "data"}
    source = f"data.source={tmp_path / 'set'}"
    named = ("data.image_column=image", "data.label_column=label", "data.image_size=8", "data.image_channels=1")
    assert trial(given, source, *named).id == trial(given, source).id != trial(base()).id


def test_the_id_of_a_fixed_trial_stays(trial: Any) -> None:
    assert trial(base()).id == GOLDEN_ID


def test_a_trial_survives_json(trial: Any) -> None:
    resolved = trial(base(model={"dropout": 0.1}, data={"augment": {"mixup": 0.3}}, run={"threads": 2}))
    assert trial_from_json(asdict(resolved)) == resolved
    back = trial_from_json(json.loads(json.dumps(asdict(resolved))))
    assert back == resolved and back.id == resolved.id and back.optimizer == resolved.optimizer
