"""Axes whose values are computed or drawn."""

import itertools
from typing import Any

import pytest

from backends.errors import MixlabError
from experiments.design import axes

RATE, BLOCKS = "train.learning_rate", "model.num_blocks"


@pytest.mark.parametrize(
    ("field", "written", "values"),
    [
        (RATE, "log(1e-4, 1e-2, 5)", [0.0001, 0.000316228, 0.001, 0.00316228, 0.01]),
        (RATE, "log(0.01, 0.001, 2)", [0.01, 0.001]),
        (BLOCKS, "log(1, 16, 5)", [1, 2, 4, 8, 16]),
        (RATE, ["1e-3", "0.01"], [0.001, 0.01]),
        (RATE, "0.5", [0.5]),
        ("data.source", "log(1, 2, 3)", ["log(1, 2, 3)"]),
    ],
)
def test_an_axis_is_a_list_a_value_or_geometric_values(field: str, written: Any, values: list[Any]) -> None:
    found = axes.values(written, field, "a.yaml: grid")
    assert found == values
    assert list(map(type, found)) == list(map(type, values))


def test_the_ends_of_a_logarithmic_axis_are_those_that_are_written() -> None:
    found = axes.values("log(0.123456789, 0.987654321, 3)", RATE, "a.yaml")
    assert (found[0], found[-1]) == (0.123456789, 0.987654321)


@pytest.mark.parametrize(
    ("field", "written", "part"),
    [
        (RATE, "log(1e-4, 1e-2)", "expected log(from, to, number)"),
        (RATE, "log(0, 1, 3)", "expected ends above 0"),
        (RATE, "log(1, 1, 3)", "expected a second end above the first one"),
        (RATE, "log(1e-4, 1e-2, 1)", "from 2 to 10000, got '1'"),
        (RATE, "log(1e-4, 1e-2, 2.5)", "expected a whole number of values"),
        (RATE, "log(1e-4, 5000, 3)", "at most 1000"),
        (RATE, "log(a, b, 3)", "expected a number"),
        (BLOCKS, "log(1, 4, 9)", "two of the 9 values of log(1, 4, 9) are 1; ask for fewer"),
        ("model.rescale", "log(true, false, 3)", "expected two numbers"),
        (RATE, "uniform(0, 1)", "is drawn, which needs samples and samples_seed"),
        (RATE, [], "got no values"),
        (RATE, "logunifrom(1e-4, 1e-2)", "is no call that is read; allowed: log, uniform, loguniform, choice; did you"),
        (RATE, "log(1e-4", "'log(1e-4' has no closing bracket; inside of [] and {} a comma ends a value: use quotes"),
        (RATE, ["log(1e-4", "1e-2", "3)"], "has no closing bracket"),
        (RATE, ["log(1e-4, 1e-2, 3)"], "is a whole axis; write it without the brackets of a list"),
    ],
)
def test_an_axis_that_cannot_be_read_is_named(field: str, written: Any, part: str) -> None:
    with pytest.raises(MixlabError) as caught:
        axes.values(written, field, "a.yaml: grid")
    assert str(caught.value).startswith(f"a.yaml: grid: {field}: ") and part in str(caught.value)


def drawn(number: int, seed: int = 0, **calls: str) -> list[axes.Point]:
    names = {"rate": RATE, "blocks": BLOCKS, "optimizer": "train.optimizer", "decay": "train.weight_decay"}
    read = {names[name]: axes.read_call(text, names[name]) for name, text in calls.items()}
    return axes.samples({name: call for name, call in read.items() if call}, number, seed, "a.yaml: grid")


def test_more_samples_keep_the_first_ones() -> None:
    calls = {"rate": "loguniform(1e-4, 1e-2)", "optimizer": "choice(adamw, sgd)", "blocks": "uniform(1, 4)"}
    assert drawn(20, **calls)[:7] == drawn(7, **calls)


def test_the_values_of_a_field_depend_on_the_seed_and_its_name_alone() -> None:
    rates = [point[RATE] for point in drawn(6, rate="uniform(0, 1)")]
    assert rates == [point[RATE] for point in drawn(6, decay="uniform(0, 1)", rate="uniform(0, 1)")]
    assert rates != [point["train.weight_decay"] for point in drawn(6, decay="uniform(0, 1)")]
    assert rates != [point[RATE] for point in drawn(6, seed=1, rate="uniform(0, 1)")]


def test_what_is_drawn_lies_evenly_between_its_ends() -> None:
    rates = [point[RATE] for point in drawn(400, rate="loguniform(1e-4, 1e-2)")]
    assert min(rates) >= 1e-4 and max(rates) <= 1e-2
    assert 160 < sum(rate < 1e-3 for rate in rates) < 240  # half of them: the middle of the logarithms
    rates = [point[RATE] for point in drawn(400, rate="uniform(0, 1)")]
    assert 160 < sum(rate < 0.5 for rate in rates) < 240
    assert {point[BLOCKS] for point in drawn(3, blocks="uniform(2, 4)")} == {2, 3, 4}


def test_a_value_that_was_drawn_can_be_written_by_hand() -> None:
    for point in drawn(50, rate="loguniform(1e-4, 1e-2)"):
        assert axes.values(f"{point[RATE]:.6g}", RATE, "") == [point[RATE]]


def test_no_two_samples_are_the_same() -> None:
    points = drawn(6, optimizer="choice(adamw, sgd)", blocks="uniform(1, 3)")
    assert all(one != other for one, other in itertools.combinations(points, 2))
    with pytest.raises(MixlabError, match="gave 6 different samples, not 7; ask for fewer"):
        drawn(7, optimizer="choice(adamw, sgd)", blocks="uniform(1, 3)")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("loguniform(0, 1)", "expected ends above 0"),
        ("uniform(1, 0)", "expected a second end above the first one"),
        ("uniform(1)", "expected two numbers"),
        ("choice(0.1, )", "expected values such as choice"),
        ("choice(0.1, x)", "expected a number"),
    ],
)
def test_a_draw_that_cannot_be_read_is_named(text: str, part: str) -> None:
    with pytest.raises(MixlabError) as caught:
        drawn(2, rate=text)
    assert str(caught.value).startswith(f"a.yaml: grid: {RATE}: ") and part in str(caught.value)
