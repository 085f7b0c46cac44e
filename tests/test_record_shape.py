"""Every record that is written is as its declaration says, and every one that was written before stays readable."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from experiments.results.metrics import EXCHANGE_SECONDS, REAL
from experiments.results.shape import DONE, Part, faults, record_parts, sound
from tests.conftest import Ended, base, records, write_yaml

Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, quick_package: Path) -> dict[str, dict[str, Any]]:
    """Records of trials that ended in each way: done (with and without validation), an error, divergence."""
    from tests.conftest import command

    folder = tmp_path_factory.mktemp("written")
    ways = {
        "done": {
            "run": {"probe_shots": [1, 5, 10, 25]},
            "data": {"num_examples": 240, "num_classes": 6, "storage": "disk"},
        },
        "untested": {"data": {"validation_fraction": 0.0}},
        "error": {"train": {"label_smoothing": 0.25}},
        "diverged": {"train": {"learning_rate": 5.0, "warmup_steps": 0}},
        "none": {"model": {"hidden_dim": 2**20}},
        "begun": {},  # from the weights of the first one
    }
    found = {}
    for name, changes in ways.items():
        if name == "begun":
            (weights,) = (folder / "done").glob("trials/*/weights.safetensors")
            changes = {"train": {"init_from": str(weights)}}
        path = write_yaml(folder / f"{name}.yaml", base=base(backend="quick", **changes), grid={"seed": [0]})
        ended = command(folder, "run", str(path), "--store", name, PYTHONPATH=str(quick_package))
        (found[name],) = records(folder / name).values()
        assert (found[name]["status"] == "done") == (name in ("done", "untested", "begun")), ended.err
    return found


@pytest.mark.parametrize("way", ["done", "untested", "error", "diverged", "none", "begun"])
def test_what_is_written_is_what_is_declared(written: dict[str, dict[str, Any]], way: str) -> None:
    assert list(faults(written[way], whole=True)) == []


def test_all_that_is_declared_is_written(written: dict[str, dict[str, Any]]) -> None:
    """Nothing is declared that no record holds, but for where a null stands."""
    nulls = {"environment.snapshot", "data.repeats", "data.right_classes"}  # the last: see test_real.py
    never = {
        path
        for path, _ in leaves(record_parts())
        if not path.endswith((f".{REAL.name}", f".{EXCHANGE_SECONDS}"))  # see test_real.py, test_group.py
        if not any(sound(record, keys(path)) is not None for record in written.values()) and "repeats" not in path
    }
    assert never <= nulls


def leaves(parts: Mapping[str, Part], where: str = "") -> Iterator[tuple[str, Part]]:
    for name, part in parts.items():
        if part.parts:
            yield from leaves(part.parts, f"{where}{name}.")
        else:
            yield f"{where}{name}", part


def keys(path: str) -> list[str]:
    """The keys of a path; the last one is the name of a probe's metric, which has dots in it, where there is one."""
    holders, _, shots = path.partition(".probe.")
    return [*holders.split("."), *([f"probe.{shots}"] if shots else [])]


def without(record: dict[str, Any], path: str) -> dict[str, Any]:
    changed = json.loads(json.dumps(record))
    *holders, name = keys(path)
    tree = changed
    for holder in holders:
        tree = tree[holder]
    tree.pop(name, None)
    return changed


def with_value(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = without(record, path)
    *holders, name = keys(path)
    tree = changed
    for holder in holders:
        tree = tree[holder]
    tree[name] = value
    return changed


def test_a_record_without_a_part_is_refused_just_where_readers_need_it(written: dict[str, dict[str, Any]]) -> None:
    record, seen = written["done"], {True: 0, False: 0}
    for path, part in leaves(record_parts()):
        if path == "status" or (path.startswith("data.repeats.") and record["data"]["repeats"] is None):
            continue
        assert list(faults(without(record, path))) == ([path] if DONE in part.needed else []), path
        seen[DONE in part.needed] += 1
    assert min(seen.values()) > 10


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("steps", True),
        ("steps", -1),
        ("steps", "6"),
        ("notes", None),
        ("notes", [1]),
        ("sessions", {}),
        ("sessions", [None]),
        ("seconds.train", []),
        ("metrics.last.test.accuracy", 1.5),
        ("metrics.best.train.loss", -0.5),
        ("status", ["done"]),
    ],
)
def test_a_part_that_readers_need_is_of_its_type_and_in_range(
    written: dict[str, dict[str, Any]], path: str, value: Any
) -> None:
    assert list(faults(with_value(written["done"], path, value))) == [path]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("environment", []),
        ("environment.packages", {"numpy": 2}),
        ("environment.commit", 7),
        ("started", "today"),
        ("data.classes", [1]),
        ("curve", "x"),
        ("new", 1),
        ("environment.new", 1),
    ],
)
def test_other_damage_is_seen_by_a_whole_look_alone_and_read_as_nothing(
    written: dict[str, dict[str, Any]], path: str, value: Any
) -> None:
    record = with_value(written["done"], path, value)
    assert list(faults(record)) == [] and list(faults(record, whole=True)) == [path]
    if "new" not in path:
        assert sound(record, path) is None and sound(written["done"], path) is not None


def test_what_lies_within_a_list_is_named_by_its_place(written: dict[str, dict[str, Any]]) -> None:
    record = json.loads(json.dumps(written["done"]))
    record["curve"][1]["test"]["accuracy"] = 2.0
    record["sessions"][0]["new"] = 1
    assert list(faults(record)) == []
    assert list(faults(record, whole=True)) == ["sessions.0.new", "curve.1.test.accuracy"]


@pytest.mark.parametrize("name", ["steps", "seconds.train", "metrics.last.test.accuracy", "metrics.last.validation"])
def test_null_stands_for_a_number_that_is_none_and_for_a_split_without_examples(
    written: dict[str, dict[str, Any]], name: str
) -> None:
    assert list(faults(with_value(written["done"], name, None), whole=True)) == []
    assert list(faults(without(written["done"], name))) != []
