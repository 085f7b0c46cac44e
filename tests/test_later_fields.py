"""Fields that came later, and what stands for several: ids of before, variants, families, stores of before."""

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analysis import run_sets
from backends.errors import MixlabError
from backends.models import FAMILIES, read_spec
from backends.models.config import ModelConfig, foreign, with_variant
from backends.models.variants import VARIANTS
from backends.specs import option
from experiments.design.ablation import load_ablation
from experiments.design.asked import asked
from experiments.design.base import laid_over
from experiments.spec import fields, resolve
from experiments.spec.config import TrialConfig
from experiments.spec.trial import Trial, as_tree, trial_from_json, values_before, with_later_fields
from tests.conftest import base, planned, write_yaml

VIT = VARIANTS["ViT-S/16"]
PICTURES = {"source": "synthetic", "image_size": 32, "num_examples": 40}
SHORT = {"batch_size": 2, "steps": 1}


# The fields of a Mixer's spec before models of other families, in its records since then.
PAST = [
    "image_size",
    "image_channels",
    "num_classes",
    "patch_size",
    "hidden_dim",
    "num_blocks",
    "tokens_mlp_dim",
    "channels_mlp_dim",
    "token_groups",
    "token_mixing",
    "channel_mixing",
    "share_blocks",
    "position_embedding",
    "activation",
    "norm_epsilon",
    "pre_head_norm",
    "dropout",
    "stochastic_depth",
    "rescale",
]


@pytest.fixture
def trial(tmp_path: Path, cache: Path) -> Any:
    """The trial of a base, with words of the command line; where the grid holds several, all of them."""

    def trial(given: Any, *overrides: str, **keys: Any) -> Any:
        path = write_yaml(tmp_path / "one.yaml", **({"base": given, "grid": {"seed": [0]}} | keys))
        trials = [one.trial for one in planned(path, cache, *overrides)]
        return trials[0] if len(trials) == 1 else trials

    return trial


# --- ids ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Past:
    width: int = 8


@dataclass(frozen=True)
class Present(Past):
    norm: str = option("layer", before="layer")
    blocks: tuple[int, ...] = option((), before=())


@dataclass(frozen=True)
class Future(Past):
    norm: str = option("rms", before="layer")
    blocks: tuple[int, ...] = option((), before=())


def id_with(trial: Trial, model: Any) -> str:
    return dataclasses.replace(trial, model=model).id


def test_a_field_that_came_later_counts_for_an_id_unless_it_has_the_value_of_before(trial: Any) -> None:
    any_trial = trial(base())
    past = id_with(any_trial, Past())
    assert id_with(any_trial, Present()) == past
    others = [id_with(any_trial, model) for model in (Present(norm="rms"), Present(blocks=(1,)), Past(9))]
    assert len({past, *others}) == 4


def test_a_default_that_changes_changes_the_id_and_not_that_of_the_old_value(trial: Any) -> None:
    any_trial = trial(base())
    assert id_with(any_trial, Future()) == id_with(any_trial, Present(norm="rms")) != id_with(any_trial, Past())
    assert id_with(any_trial, Future(norm="layer")) == id_with(any_trial, Past())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_values_of_before_are_such_that_their_fields_can_hold(family: str) -> None:
    for name, value in values_before(FAMILIES[family].Spec).items():
        assert value is None or isinstance(value, (bool, int, float, str, tuple)), name


def test_a_store_of_before_is_read_and_its_trials_keep_their_ids(trial: Any) -> None:
    now = trial(base())
    tree = json.loads(json.dumps(as_tree(now)))
    for name in values_before(type(now.model)):
        del tree["model"][name]
    assert trial_from_json(tree) == now and trial_from_json(tree).id == now.id


def test_lists_of_a_store_are_the_lists_of_its_trial(trial: Any) -> None:
    given = base(model={"token_mixing": ["tied", "identity"], "pyramid": [0], "num_blocks": 2})
    now = trial(given)
    tree = json.loads(json.dumps(as_tree(now)))
    assert tree["model"]["token_mixing"] == ["tied", "identity"] and tree["model"]["pyramid"] == [0]
    back = trial_from_json(tree)
    assert back == now and back.id == now.id and hash(back.model) == hash(now.model)
    assert read_spec(tree["model"]).token_mixing == ("tied", "identity")  # type: ignore[attr-defined]
    assert trial_from_json(asdict(now)) == now


def keys_of(spec: dict[str, Any]) -> str:
    """What a record of this spec is compared by, as text."""
    return json.dumps(dict(run_sets.key_of({"spec": spec})), sort_keys=True)


def test_a_record_of_before_is_compared_by_the_values_that_its_trial_had(trial: Any) -> None:
    now = trial(base())
    spec = json.loads(json.dumps(as_tree(now)))
    past = {**spec, "model": {name: part for name, part in spec["model"].items() if name in PAST}}
    assert set(spec["model"]) - set(past["model"]) == set(values_before(type(now.model)))
    assert keys_of(past) == keys_of(spec)
    other = {**spec, "model": {**spec["model"], "norm": "rms"}}
    assert keys_of(past) != keys_of(other)
    assert with_later_fields({"model": None, "seed": 0}) == {"model": None, "seed": 0}  # of a damaged file


# --- variants -----------------------------------------------------------------------------------------------------


def test_a_variant_stands_for_its_fields_and_what_is_set_itself_wins() -> None:
    own = {"variant": "ViT-S/16", "num_blocks": 3, "pool": "cls"}
    assert with_variant(own) == {**VIT, **own}


def test_none_takes_back_what_stands_beside_a_variant() -> None:
    """None is no value of `token_mixing`, and of `hidden_dim` it is the one that means: by the rule."""
    taken_back = {"token_mixing": None, "hidden_dim": None, "num_classes": None}
    assert with_variant({"variant": "ViT-S/16", **taken_back}) == {**VIT, "variant": "ViT-S/16", "num_classes": None}
    assert with_variant(taken_back) == {"hidden_dim": None, "num_classes": None}
    assert with_variant({"variant": None, "token_mixing": "untied"}) == {"variant": None, "token_mixing": "untied"}


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_variant_stands_for_are_fields_of_its_family(name: str) -> None:
    config = ModelConfig(**with_variant({"variant": name}))
    assert all(getattr(config, field) == value for field, value in VARIANTS[name].items())
    assert not foreign(config, FAMILIES[config.family].Config)


def test_a_variant_takes_back_the_fields_of_the_base_that_it_stands_for() -> None:
    below = {"model.token_mixing": "untied", "model.norm": "rms", "model.hidden_dim": 8}
    laid = laid_over(below, {"model.variant": "ViT-S/16", "model.hidden_dim": 16})
    assert laid["model.token_mixing"] is None and (laid["model.hidden_dim"], laid["model.norm"]) == (16, "rms")
    assert laid_over(below, {"model.variant": None}) == {**below, "model.variant": None}
    assert laid_over(below, {"model.variant": "S/16"})["model.token_mixing"] == "untied"  # which says no token mixing


def test_a_grid_goes_from_variant_to_variant_and_back(trial: Any) -> None:
    given = {"model": {"token_mixing": "untied", "num_classes": 12}, "data": PICTURES, "train": SHORT}
    grid = {"model.variant": [None, "ViT-Ti/16", "S/16"], "seed": [0]}
    none, vit, mixer = trial(given, grid=grid)
    alone = trial({**given, "model": {"variant": "ViT-Ti/16", "num_classes": 12}})
    assert vit == alone and vit.model.token_mixing == "attention" and vit.model.init == "vit"
    assert (none.model.token_mixing, none.model.hidden_dim) == ("untied", 64)
    assert (mixer.model.token_mixing, mixer.model.hidden_dim, mixer.model.init) == ("untied", 512, "mixer")
    assert {one.model.num_classes for one in (none, vit, mixer)} == {12}


def test_a_variant_of_the_base_is_left_by_null_and_changed_by_what_is_set_beside_it(trial: Any) -> None:
    given = {"model": {"variant": "ViT-Ti/16"}, "data": PICTURES, "train": SHORT}
    small, usual = trial(given, "model.num_blocks=1"), trial(given, "model.variant=null")
    assert (small.model.num_blocks, small.model.hidden_dim, small.model.token_mixing) == (1, 192, "attention")
    assert usual == trial({"data": PICTURES, "train": SHORT})
    by_grid = trial(given, grid={"model.token_mixing": ["tied"], "seed": [0]})
    assert (by_grid.model.token_mixing, by_grid.model.hidden_dim, by_grid.model.init) == ("tied", 192, "vit")


def test_a_field_is_asked_for_as_the_point_its_variant_or_the_base_says() -> None:
    below = {"model.token_mixing": "untied", "model.hidden_dim": 8}
    assert asked("model.token_mixing", {"model.variant": "ViT-S/16"}, below) == "attention"
    assert asked("model.token_mixing", {"model.variant": "ViT-S/16", "model.token_mixing": "tied"}, below) == "tied"
    assert asked("model.token_mixing", {"model.variant": "S/16"}, below) == "untied"
    assert asked("model.hidden_dim", {"model.variant": "S/16"}, below) == 512
    assert asked("model.hidden_dim", {}, {**below, "model.variant": "S/16"}) == 8  # set beside it
    taken_back = laid_over(below, {"model.variant": "ViT-S/16"})
    assert asked("model.token_mixing", {}, taken_back) == "attention"
    assert asked("model.token_mixing", {"model.variant": None}, taken_back) == "tied"
    assert asked("model.norm", {}, {}) == "layer" and asked("axis.mixing", {}, {}) is None


@pytest.mark.parametrize(
    ("given", "usual"),
    [
        ({}, ("gelu_tanh", 0.0, 3)),
        ({"model.family": "convmixer"}, ("gelu", None, 9)),
        ({"model.variant": "PoolFormer-S36"}, (None, 1e-6, None)),
        ({"model.family": "metaformer", "model.metaformer": "poolformer"}, (None, 1e-5, None)),
    ],
)
def test_an_option_that_is_left_out_is_what_the_family_makes_of_it(given: Any, usual: Any) -> None:
    names = ("model.activation", "model.layer_scale", "model.kernel_size")
    assert tuple(asked(name, given, {}) for name in names) == usual
    assert tuple(asked(name, {}, {**dict.fromkeys(names), **given}) for name in names) == usual
    assert asked("model.num_heads", given, {}) is None  # of the sizes it depends on others


def test_a_baseline_may_be_what_a_mapping_leaves_out(tmp_path: Path) -> None:
    mixing = [{"name": "usual", "model.token_mixing": "tied"}, {"name": "exact", "model.activation": "gelu"}]
    report = {"rows": ["model.token_mixing", "model.activation"], "baseline": {"model.activation": "gelu_tanh"}}
    path = write_yaml(tmp_path / "a.yaml", base=base(), grid={"mixing": mixing}, report=report)
    assert load_ablation(path).report.baseline == {"model.activation": "gelu_tanh"}
    with pytest.raises(MixlabError, match=r"no trial has model.activation 'relu'; allowed: gelu_tanh, gelu"):
        load_ablation(path, ["report.baseline.model.activation=relu"])


# --- families -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Narrow:
    """The config of a family that has these two fields."""

    hidden_dim: int | None = None
    num_blocks: int | None = None


def test_a_field_of_another_family_is_one_sentence(trial: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert foreign(ModelConfig(hidden_dim=3, patch_size=2, num_classes=5), Narrow) == []
    assert foreign(ModelConfig(pyramid=(1,), token_mixing="untied"), Narrow) == ["token_mixing", "pyramid"]
    resolve._resolve_model.cache_clear()
    narrow = SimpleNamespace(Config=Narrow, make=None)
    monkeypatch.setattr(resolve, "FAMILIES", {"mixer": narrow})
    with pytest.raises(MixlabError) as caught:
        trial(base(), "model.token_mixing=untied")
    said = str(caught.value)
    assert said.endswith("model.token_mixing: model.family 'mixer' has no such field; leave it out")
    assert len(said.splitlines()) == 1 and "one.yaml with model.token_mixing=untied: " in said


def test_a_family_takes_back_what_a_base_says_of_another() -> None:
    below = {"model.hidden_dim": 16, "model.tokens_mlp_dim": 8, "model.patch_size": 4, "train.steps": 3}
    narrow = laid_over(below, {"model.family": "resnet"})
    assert narrow == {**below, "model.family": "resnet", "model.hidden_dim": None, "model.tokens_mlp_dim": None}
    kept = laid_over(below, {"model.family": "convmixer"})  # which has a hidden_dim
    assert (kept["model.hidden_dim"], kept["model.tokens_mlp_dim"]) == (16, None)
    named = laid_over({"model.variant": "ViT-S/16"}, {"model.family": "resnet"})
    assert named == {"model.variant": None, "model.family": "resnet"}
    back = laid_over({"model.family": "resnet", "model.depth": 20}, {"model.variant": "S/16"})
    config = fields.set_fields(TrialConfig(), back).model
    assert (config.family, config.depth, config.num_blocks) == ("mixer", TrialConfig().model.depth, 8)
    beside = laid_over({}, {"model.family": "resnet", "model.hidden_dim": 16})
    assert beside["model.hidden_dim"] == 16  # refused where the trial is resolved: both are said here
