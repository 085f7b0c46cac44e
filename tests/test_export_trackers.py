"""Exports to W&B, MLflow and Trackio, each read by its own reader, without the network."""

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.export import wandb as to_wandb
from tests import exporting
from tests.conftest import Ended, environment, files
from tests.test_report_files import MIXING, Bench

Command = Callable[..., Ended]
CELL, LAST_CELL = "token MLP=tied backend=jax", "token MLP=per channel backend=jax"
TITLES = ["mean", "seed=0", "seed=1"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this process connects to another machine, and nothing that it starts asks its proxy for one."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a connection to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        proxy.setblocking(False)
        yield
        with pytest.raises(BlockingIOError):  # nobody has asked
            proxy.accept()


@pytest.fixture
def own(tmp_path: Path, cache: Path) -> Bench:
    """A store that a test may change, in the folder of its commands."""
    return exporting.store_of(tmp_path, cache)


@pytest.fixture
def export(run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    def export(to: str, *words: str, ablation: str = "one") -> Path:
        for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
            monkeypatch.delitem(sys.modules, name)  # it takes its folder as it is imported
        ended = run("export", ablation, "--to", to, to, *words)
        assert ended.code == 0, ended.err
        return own.folder / to

    return export


def id_of(bench: Bench, i: int) -> str:
    return str(bench.trials[i].trial.id)


def fall_back(bench: Bench, i: int) -> None:
    """A trial that was done is not any more, so that its cell has another mean."""
    bench.store.folder(bench.trials[i].trial.id).joinpath("record.json").unlink()


def ids(to: str, out: Path) -> list[str]:
    """The trials and cells that an export has runs of."""
    if to == "wandb":
        return sorted(place.name.rpartition("-")[2] for place in (out / "wandb").iterdir())
    if to == "mlflow":
        return sorted(one.data.tags["mixlab.id"] for one in read_mlflow(out).values())
    from trackio.sqlite_storage import SQLiteStorage

    return sorted(str(one["id"]) for one in SQLiteStorage.get_run_records("one"))


@pytest.mark.parametrize("to", ["wandb", "mlflow", "trackio"])
def test_a_run_that_the_ablation_has_no_more_goes_and_comes_back_with_it(
    export: Callable[..., Path], own: Bench, to: str
) -> None:
    exporting.finish(own)
    before = ids(to, export(to))
    gone = {planned.trial.id for planned in own.trials if planned.trial.seed == 1}
    assert len(before) == 12 and len(gone) == 4 and gone < set(before)
    assert ids(to, export(to, "seed=[0]", ablation="one.yaml")) == [one for one in before if one not in gone]
    assert ids(to, export(to)) == before


# --- W&B --------------------------------------------------------------------------------------------------------------


def inspected(place: Path) -> list[dict[str, Any]]:
    """What W&B's own reader says of an offline run, record by record."""
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(place)]
    done = subprocess.run(words, env=environment(WANDB_ERROR_REPORTING="false"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def places(out: Path, run_id: str) -> list[Path]:
    return list((out / "wandb").glob(f"offline-run-*-{run_id}"))


def test_an_offline_run_is_read_by_wandb(export: Callable[..., Path], own: Bench) -> None:
    out = export("wandb")
    assert len(list((out / "wandb").iterdir())) == 12
    (place,) = places(out, id_of(own, 3))
    read = inspected(place)
    (about,) = [one["run"] for one in read if one["type"] == "run"]
    assert (about["run_id"], about["project"]) == (id_of(own, 3), "one")
    assert (about["display_name"], about["run_group"], about["job_type"]) == (f"{CELL} seed=1", CELL, "trial")
    config = about["config"]["update"]
    assert config[MIXING] == "tied" and config["seed"] == 1 and config["mixlab.status"] == "done"
    items = [one["history"]["item"] for one in read if one["type"] == "history"]
    assert [(item["_step"], item["validation.accuracy"]) for item in items] == [
        (i, pytest.approx(0.53 * i / 4)) for i in (1, 2, 3, 4)
    ]
    summary = {
        key: value for one in read if one["type"] == "summary" for key, value in one["summary"]["update"].items()
    }
    assert summary["last.validation.accuracy"] == pytest.approx(0.53) and read[-1]["exit"]["exit_code"] == 0
    assert "host" not in about and about["telemetry"]["feature"]["offline"] is True
    assert [line for line in map(json.dumps, read) if "test." in line] == []


def test_a_run_of_wandb_is_written_anew_where_it_has_changed_alone(export: Callable[..., Path], own: Bench) -> None:
    out = export("wandb")
    before = files(out / "wandb")
    assert files(export("wandb") / "wandb") == before
    exporting.grow(own, 3)
    after = files(export("wandb") / "wandb")
    grown = {name.partition("/")[0] for name in after if after[name] != before.get(name)}
    assert grown == {place.name for place in places(out, id_of(own, exporting.RUNNING))} and len(grown) == 1
    (place,) = places(out, id_of(own, exporting.RUNNING))
    points = [one for one in to_wandb.records(next(place.glob("*.wandb"))) if one.HasField("history")]
    assert len(points) == 3
    (out / to_wandb.PART).mkdir()  # as a killed export leaves it
    shutil.rmtree(place)
    assert files(export("wandb") / "wandb").keys() == after.keys() and not (out / to_wandb.PART).exists()


def test_a_run_that_wandb_could_not_write_is_a_sentence(
    run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    teardown = wandb.teardown

    def full() -> None:
        teardown()
        (file,) = Path("out").glob(f"{to_wandb.PART}/wandb/*{id_of(own, 0)}/*.wandb")
        file.write_bytes(file.read_bytes()[:-20])

    with monkeypatch.context() as here:
        here.setattr(wandb, "teardown", full)
        ended = run("export", "one", "--to", "wandb", "out")
    assert ended.code == 2 and "is the disk full?" in ended.err and len(ended.err.splitlines()) == 1
    assert places(Path("out"), id_of(own, 0)) == []
    assert run("export", "one", "--to", "wandb", "out").code == 0
    (place,) = places(Path("out"), id_of(own, 0))
    file = next(place.glob("*.wandb"))
    assert to_wandb.fault(file, 4) == "" and "not whole" in to_wandb.fault(file, 5)
    whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        assert "not whole" in to_wandb.fault(file, 4)


# --- MLflow -----------------------------------------------------------------------------------------------------------


def client(out: Path) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{out.absolute() / 'mlflow.db'}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def read_mlflow(out: Path) -> dict[str, Any]:
    """The runs that MLflow's client finds, by their names."""
    reader = client(out)
    experiment = reader.get_experiment_by_name("one")
    found = list(reader.search_runs([experiment.experiment_id]))
    assert len({one.info.run_name for one in found}) == len(found)
    return {one.info.run_name: one for one in found}


def history(out: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((one.step, one.value) for one in client(out).get_metric_history(run_id, name))


def test_mlflow_has_each_run_appends_to_what_grows_and_completes_what_was_killed(
    export: Callable[..., Path], own: Bench
) -> None:
    out = export("mlflow")
    found = read_mlflow(out)
    assert len(found) == 12
    one = found[f"{CELL} seed=1"]
    assert history(out, one.info.run_id, "validation.accuracy") == [
        (i, pytest.approx(0.53 * i / 4)) for i in (1, 2, 3, 4)
    ]
    assert one.data.metrics["last.validation.accuracy"] == 0.53 and one.data.params[MIXING] == "tied"
    assert (one.info.status, one.info.start_time, one.info.end_time) == ("FINISHED", 103_000, 203_000)
    assert one.data.tags["mixlab.id"] == id_of(own, 3) and one.data.tags["group"] == CELL
    assert [name for each in found.values() for name in each.data.metrics if "test" in name] == []
    assert found[f"{CELL} mean"].data.metrics["last.validation.accuracy"] == pytest.approx(0.525)
    statuses = [found[f"{LAST_CELL} {name}"].info.status for name in TITLES]
    assert statuses == ["RUNNING", "SCHEDULED", "FAILED"]

    again = read_mlflow(export("mlflow"))
    assert {name: run.info.run_id for name, run in again.items()} == {
        name: run.info.run_id for name, run in found.items()
    }

    growing = found[f"{LAST_CELL} seed=0"].info.run_id
    exporting.grow(own, 3)
    client(out).log_metric(growing, "loss", 0.7, timestamp=0, step=3)  # as an export leaves it that is killed then
    assert read_mlflow(export("mlflow"))[f"{LAST_CELL} seed=0"].info.run_id == growing
    assert history(out, growing, "loss") == [(1, 0.7), (2, 0.7), (3, 0.7)]

    exporting.finish(own)
    fall_back(own, 3)
    last = read_mlflow(export("mlflow"))
    assert len(last) == 12 and last[f"{CELL} mean"].data.metrics["last.validation.accuracy"] == pytest.approx(0.52)
    ended = last[f"{LAST_CELL} seed=0"]
    assert (ended.info.status, ended.data.metrics["last.validation.accuracy"]) == ("FINISHED", pytest.approx(0.56))
    assert (ended.info.start_time, ended.info.end_time) == (106_000, 206_000)


def test_a_database_that_cannot_be_written_is_a_sentence(
    run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    from analysis.export import mlflow

    def full(*arguments: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr(mlflow, "_export", full)
    ended = run("export", "one", "--to", "mlflow", "out")
    assert ended.code == 2 and "database or disk is full" in ended.err and len(ended.err.splitlines()) == 1


# --- Trackio ----------------------------------------------------------------------------------------------------------


def read_trackio() -> dict[str, list[dict[str, Any]]]:
    """The points of each run, by its name, as Trackio reads them from the folder that it was imported for."""
    from trackio.sqlite_storage import SQLiteStorage

    return {name: SQLiteStorage.get_logs("one", name) for name in SQLiteStorage.get_runs("one")}


def test_trackio_has_each_run_and_the_new_in_place_of_the_old(export: Callable[..., Path], own: Bench) -> None:
    out = export("trackio")
    found = read_trackio()
    assert len(found) == 11  # without the mean of a cell that has none
    points = found[f"{CELL} seed=1"]
    assert [(one["step"], one["validation.accuracy"]) for one in points[:4]] == [
        (i, pytest.approx(0.53 * i / 4)) for i in (1, 2, 3, 4)
    ]
    assert points[4]["final/last.validation.accuracy"] == 0.53 and len(points) == 5
    from trackio.sqlite_storage import SQLiteStorage

    config = SQLiteStorage.get_run_config("one", f"{CELL} seed=1")
    assert config is not None and config[MIXING] == "tied" and config["_Group"] == CELL
    assert [name for each in found.values() for one in each for name in one if "test" in name] == []

    assert export("trackio") == out and read_trackio() == found
    exporting.grow(own, 3)
    fall_back(own, 3)
    export("trackio")
    again = read_trackio()
    assert again.keys() == found.keys() - {f"{CELL} seed=1"}  # which has no point any more
    assert [one["step"] for one in again[f"{LAST_CELL} seed=0"]] == [1, 2, 3]
    assert again[f"{CELL} mean"][3]["validation.accuracy"] == pytest.approx(0.52)
    assert [path.suffix for path in out.glob("*.db")] == [".db"]


def test_a_database_of_trackio_that_cannot_be_written_is_a_sentence(
    run: Command, own: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from analysis.export import trackio

    def full(*arguments: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(trackio, "_write", full)
    ended = run("export", "one", "--to", "trackio", "out")
    assert ended.code == 2 and "database or disk is full" in ended.err and len(ended.err.splitlines()) == 1
