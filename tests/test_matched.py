"""A width is solved so that settings have as many parameters, or FLOPs, as their baseline."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from backends.errors import MixlabError
from backends.models import folds
from experiments.design.ablation import load_ablation, load_base
from experiments.design.trials import trials
from tests.conftest import base, planned, write_yaml

BLOCKS, MIXING, D_S, D_C, C = (
    f"model.{name}" for name in ("num_blocks", "token_mixing", "tokens_mlp_dim", "channels_mlp_dim", "hidden_dim")
)
WIDE = base(model={"hidden_dim": 32, "num_blocks": 2, "tokens_mlp_dim": 4, "channels_mlp_dim": 512})
REPORT = {"rows": [MIXING], "baseline": {MIXING: "tied"}}
GRID = {MIXING: ["tied", "untied"], "seed": [0, 1]}


@pytest.fixture
def asked(tmp_path: Path, cache: Path) -> Any:
    """The trials of these keys of YAML."""

    def asked(*overrides: str, **keys: Any) -> Any:
        given = {"base": WIDE, "grid": GRID, "report": REPORT, **keys}
        return planned(write_yaml(tmp_path / "one.yaml", **given), cache, *overrides)

    return asked


def refused(asked: Any, **keys: Any) -> str:
    with pytest.raises(MixlabError) as caught:
        asked(**keys)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("quantity", "width", "other", "sizes"),
    [
        ("parameters", D_S, "untied", (48, 256, 700)),
        ("parameters", D_C, "untied", (48, 8, 700)),
        ("parameters", C, "untied", (200, 8, 700)),
        ("flops", D_C, "identity", (48, 256, 700)),
        ("flops", C, "pooling", (200, 256, 700)),
    ],
)
def test_a_setting_has_as_many_as_its_baseline(
    asked: Any, quantity: str, width: str, other: str, sizes: tuple[int, int, int]
) -> None:
    model = dict(zip(("hidden_dim", "tokens_mlp_dim", "channels_mlp_dim"), sizes, strict=True)) | {"patch_size": 2}
    grid = {MIXING: ["tied", other]}
    found = asked(base=base(model=model), grid={**grid, "seed": [0, 1]}, matched={quantity: width})
    count = folds.count if quantity == "parameters" else folds.forward_macs
    numbers = [count(one.trial.model) for one in found]
    assert numbers[0] == numbers[1] and numbers[2] == numbers[3]  # whatever the seed
    assert abs(numbers[2] / numbers[0] - 1) <= 0.01
    assert all(width not in one.settings for one in found[:2]) and found[2].settings[width] == found[3].settings[width]
    unmatched = asked(base=base(model=model), grid={**grid, "seed": [0, 1]})
    assert [one.trial.id for one in found[:2]] == [one.trial.id for one in unmatched[:2]]
    assert abs(count(unmatched[2].trial.model) / numbers[0] - 1) > 0.01


def test_no_other_width_comes_closer(asked: Any) -> None:
    found = asked(matched={"parameters": D_C})
    wanted, width = folds.count(found[0].trial.model), found[2].settings[D_C]
    by_hand = {
        other: folds.count(asked(base=WIDE, grid={MIXING: "untied", D_C: other}, report=None)[0].trial.model)
        for other in (width - 1, width, width + 1)
    }
    assert min(by_hand, key=lambda other: abs(by_hand[other] - wanted)) == width


def test_the_trial_is_the_one_with_that_width_written_by_hand(asked: Any) -> None:
    found = asked(matched={"parameters": D_C})
    width = found[2].settings[D_C]
    by_hand = asked(grid=[{MIXING: "tied", "seed": [0, 1]}, {MIXING: "untied", D_C: width, "seed": [0, 1]}],
                    report={"rows": [MIXING, D_C]})  # fmt: skip
    assert [one.trial.id for one in found] == [one.trial.id for one in by_hand]


def test_a_setting_is_matched_to_the_baseline_beside_it(asked: Any) -> None:
    report = {"rows": [BLOCKS, MIXING], "baseline": {MIXING: "tied"}}
    found = asked(grid={BLOCKS: [1, 3], MIXING: ["tied", "untied"]}, report=report, matched={"parameters": D_C})
    numbers = [folds.count(one.trial.model) for one in found]
    assert abs(numbers[1] / numbers[0] - 1) <= 0.01 and abs(numbers[3] / numbers[2] - 1) <= 0.01
    assert numbers[2] > 2 * numbers[0]


def test_groups_divide_a_channel_width_that_is_solved(asked: Any) -> None:
    grid = {"mixing": [{MIXING: "untied"}, {MIXING: "grouped", "model.token_groups": 6}], "seed": [0]}
    report = {"baseline": {"mixing": "untied"}}
    wide = base(model={"hidden_dim": 1000, "channels_mlp_dim": 16, "tokens_mlp_dim": 4})  # 6 divides no 1000
    found = asked(base=wide, grid=grid, report=report, matched={"flops": C})
    assert found[1].trial.model.hidden_dim in (996, 1002)


def test_a_named_setting_is_matched_to_a_named_baseline(asked: Any) -> None:
    grid = {"mixing": [{"name": "plain", MIXING: "tied"}, {MIXING: "untied"}], "seed": [0]}
    found = asked(grid=grid, report={"baseline": {"mixing": "plain"}}, matched={"parameters": D_C})
    assert found[1].label == f"mixing=untied seed=0 {'channels_mlp_dim'}={found[1].settings[D_C]}"


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"matched": "parameters"}, ("matched: expected a quantity and the width that is solved for it", D_S, D_C, C)),
        ({"matched": {"parameters": D_S, "flops": C}}, ("matched: expected a quantity and the width",)),
        ({"matched": {"parameter": D_S}}, ("matched: 'parameter' is not a quantity", "did you mean 'parameters'?")),
        ({"matched": {"flops": "model.tokens_dim"}}, ("matched: flops: expected a width", f"did you mean '{D_S}'?")),
        ({"matched": {"flops": C}, "report": {"rows": [MIXING]}}, ("matched to a baseline; name it in",)),
        ({"matched": {"flops": C}, "grid": {**GRID, C: [8, 16]}, "report": {**REPORT, "columns": [C]}},
         (f"matched: {C} is solved, and the grid sets it too",)),
        ({"matched": {"flops": C}, "exclude": [{MIXING: "tied", BLOCKS: 2}], "grid": {**GRID, BLOCKS: [1, 2]},
          "report": {**REPORT, "columns": [BLOCKS]}},
         ("matched: the trial (token_mixing=untied seed=0 num_blocks=2) has no baseline in the grid",)),
        ({"matched": {"parameters": D_S}, "grid": {MIXING: ["tied", "pooling"]}, "base": base(model={"hidden_dim": 8})},
         (f"matched: (token_mixing=pooling): no {D_S} gives 794 ",
          "any width gives model.token_mixing pooling 754 (-5.04%)")),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_is_refused(asked: Any, keys: dict[str, Any], parts: tuple[str, ...]) -> None:
    text = refused(asked, **keys)
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"


def test_a_width_that_changes_nothing_is_not_set(asked: Any) -> None:
    found = asked(grid={MIXING: ["tied", "pooling"], "seed": [0]}, matched={"parameters": D_S})
    assert D_S not in found[1].settings
    assert 0 < 1 - folds.count(found[1].trial.model) / folds.count(found[0].trial.model) < 0.01


def test_the_closest_width_is_named_where_none_is_close_enough(asked: Any) -> None:
    text = refused(asked, base=base(model={"hidden_dim": 4, "tokens_mlp_dim": 2}), matched={"parameters": C})
    assert "within 1%; the closest, " in text


def test_a_width_that_can_be_solved_in_place_of_another_is_named(asked: Any) -> None:
    """Following the sentence, the ablation loads; where no width does, it says so."""
    given = base(model={"hidden_dim": 8, "tokens_mlp_dim": 512})
    text = refused(asked, base=given, matched={"parameters": D_C})
    assert f"matched: (token_mixing=untied seed=0): no {D_C} gives " in text
    (width,) = re.findall(rf"; {D_S} can be solved, and is (\d+) then", text)
    found = asked(base=given, matched={"parameters": D_S})
    assert found[2].settings[D_S] == int(width)
    small = base(model={"hidden_dim": 8, "tokens_mlp_dim": 64})
    assert "; nor does another width: leave the setting out" in refused(asked, base=small, matched={"parameters": D_C})


def test_plan_says_the_width_and_how_close_it_comes(tmp_path: Path, cache: Path, run: Any) -> None:
    given = {"base": WIDE, "grid": GRID, "report": REPORT, "matched": {"parameters": D_C}}
    path = write_yaml(tmp_path / "one.yaml", **given)
    found = trials(load_ablation(path), cache)
    ended = run("plan", str(path))
    own, baseline = folds.count(found[2].trial.model), folds.count(found[0].trial.model)
    line = f"matched: token_mixing=untied: channels_mlp_dim {found[2].settings[D_C]} gives {own:,} parameters, "
    assert line + f"{own / baseline - 1:+.2%} to the {baseline:,} of token_mixing=tied" in ended.out


# --- in a base --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["file", "fields", "a base of the base"])
def test_a_base_may_say_what_is_matched(asked: Any, tmp_path: Path, depth: str) -> None:
    stands = {**WIDE, "matched": {"parameters": D_C}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(stands))
    given = {"file": "base.yaml", "fields": stands, "a base of the base": {"base": "base.yaml", "train.steps": 6}}
    found, expected = asked(base=given[depth]), asked(matched={"parameters": D_C})
    assert [one.trial.id for one in found] == [one.trial.id for one in expected] and D_C in found[2].settings


def test_the_nearest_word_on_what_is_matched_counts(asked: Any) -> None:
    low = {**WIDE, "matched": {"parameters": D_C}}
    high = {"base": low, "matched": {"flops": C}}
    ids = [[one.trial.id for one in asked(base=base_, **own)] for base_, own in (
        (high, {}), (WIDE, {"matched": {"flops": C}}), (high, {"matched": {"parameters": D_C}}), (low, {}),
    )]  # fmt: skip
    assert ids[0] == ids[1] != ids[2] == ids[3]
    plain = [one.trial.id for one in asked()]
    assert [one.trial.id for one in asked(base={"base": low, "matched": None})] == plain


def test_an_ablation_takes_back_what_its_base_says_is_matched(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "one.yaml"
    tree = {"base": {**WIDE, "matched": {"parameters": D_C}}, "grid": GRID, "matched": None}
    path.write_text(yaml.safe_dump(tree))
    assert all(D_C not in one.settings for one in planned(path, cache))


@pytest.mark.parametrize(
    ("keys", "parts"),
    [
        ({"base": {**WIDE, "matched": {"flop": C}}}, ("one.yaml: base: matched: 'flop' is not a quantity",)),
        ({"base": "base.yaml"}, ("base.yaml: matched: parameters: expected a width", f"did you mean '{D_S}'?")),
        ({"base": {**WIDE, "matched": {"flops": C}}, "report": None},
         ("one.yaml: base: matched: settings are matched to a baseline", "`matched: null` takes back that of a base")),
        ({"base": {**WIDE, "match": {"flops": C}}}, ("one.yaml: base: ", "'match'")),
    ],
)  # fmt: skip
def test_a_mistake_in_a_base_is_told_with_its_place(
    asked: Any, tmp_path: Path, keys: dict[str, Any], parts: tuple[str, ...]
) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**WIDE, "matched": {"parameters": "model.tokens_dim"}}))
    text = refused(asked, **keys)
    for part in parts:
        assert part in text, f"{part!r} is not in {text!r}"


def test_a_base_alone_is_one_trial_in_which_nothing_is_matched(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**WIDE, "matched": {"parameters": D_C}}))
    assert load_base(tmp_path / "base.yaml").matched == {}


# --- every operator and family ----------------------------------------------------------------------------------------

HEADS, GROUPS = "model.num_heads", "model.token_groups"
OPERATORS = {  # with what it needs, and what divides C
    "untied": ({}, 1),
    "grouped": ({GROUPS: 6}, 6),
    "grouped_views": ({GROUPS: 6}, 6),
    "attention": ({HEADS: 5}, 5),
    "gating": ({}, 1),
    "linear": ({}, 1),
    "pooling": ({}, 1),
    "identity": ({}, 1),
    "fourier": ({}, 1),
    "random": ({}, 1),
    "depthwise": ({}, 1),
    "shift": ({}, 4),
}
LARGE = base(model={"hidden_dim": 480, "patch_size": 2, "channels_mlp_dim": 960, "num_blocks": 2})


@pytest.mark.parametrize("quantity", ["parameters", "flops"])
@pytest.mark.parametrize("operator", OPERATORS)
def test_the_channels_of_every_operator_are_solved_so_that_what_must_divide_them_does(
    asked: Any, operator: str, quantity: str
) -> None:
    needs, divisor = OPERATORS[operator]
    grid = {"mixing": [{MIXING: "tied"}, {MIXING: operator, **needs, "name": "other"}]}
    found = asked(base=LARGE, grid=grid, report={"baseline": {"mixing": "tied"}}, matched={quantity: C})
    models = [one.trial.model for one in found]
    numbers = [counted(model, quantity) for model in models]
    assert abs(numbers[1] / numbers[0] - 1) <= 0.01 and models[1].hidden_dim % divisor == 0
    assert models[1].token_mixing == operator and found[1].settings[C] == models[1].hidden_dim


def counted(model: Any, quantity: str) -> int:
    """By hand: constants are no parameters."""
    if quantity == "flops":
        return folds.forward_macs(model)
    params = folds.params(model).values()
    return sum(int(np.prod(param.shape)) for param in params if param.trained)


def test_the_units_of_a_gate_are_even(asked: Any) -> None:
    grid = {MIXING: ["tied", "gating"]}
    for hidden in (481, 483, 487):
        given = base(model={**LARGE["model"], "hidden_dim": hidden})
        found = asked(base=given, grid=grid, matched={"parameters": D_C})
        assert found[1].settings[D_C] % 2 == 0


RESNET = {"model.family": "resnet", "model.depth": 20, "model.norm_groups": 2, "name": "resnet"}


def test_the_width_of_a_resnet_is_solved_in_groups_of_its_norms(asked: Any) -> None:
    given = {name: value for name, value in LARGE.items() if name != "model"}
    grid = {"kind": [{C: 400, "name": "mixer"}, RESNET]}
    found = asked(base=given, grid=grid, report={"baseline": {"kind": "mixer"}}, matched={"parameters": "model.width"})
    numbers = [counted(one.trial.model, "parameters") for one in found]
    assert abs(numbers[1] / numbers[0] - 1) <= 0.01 and found[1].settings["model.width"] % 2 == 0


def test_a_model_that_does_not_fit_is_told_as_without_matching(asked: Any) -> None:
    text = refused(asked, grid={MIXING: ["tied", "depthwise"], "model.kernel_size": 4}, matched={"parameters": C})
    assert "model.kernel_size: expected an odd number" in text


def test_a_width_of_another_family_changes_nothing_and_is_told(asked: Any) -> None:
    given = {name: value for name, value in LARGE.items() if name != "model"}
    grid = {"kind": [{D_C: 1600, "name": "mixer"}, RESNET]}
    text = refused(asked, base=given, grid=grid, report={"baseline": {"kind": "mixer"}}, matched={"parameters": C})
    assert "any width gives model.family resnet " in text and "; model.width can be solved, and is " in text
