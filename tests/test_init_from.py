"""`train.init_from`: trials that begin from the weights of a file, of another trial, or of an archived ablation's."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.arrays import State
from backends.errors import MixlabError
from backends.models import folds
from backends.state import state_shapes
from experiments.design import ablation, archive, tune
from experiments.design import trials as resolving
from experiments.machine.environment import ROOT
from experiments.results import kept
from experiments.results.store import Store
from experiments.running import replicas
from experiments.running.events import Ended, Event, Noted, Spent, Stepped
from experiments.running.opener import WorkerSpec
from experiments.running.worker import Worker
from experiments.spec.trial import Trial, as_tree, trial_from_json
from experiments.training.start import drawn_state, initial_state
from experiments.training.transfer import begun_state
from experiments.weights import start_file, weight_files
from tests.conftest import base, results, write_yaml

Run = dict[str, Any]
ALIKE = 1e-10  # both frameworks in float64, over 6 steps.


@dataclass
class Room:
    """A store, its cache, and a worker in this process."""

    folder: Path
    cache: Path
    stop: threading.Event = field(default_factory=threading.Event)
    events: list[Event] = field(default_factory=list)
    on_event: Callable[[Event], None] = lambda event: None

    @property
    def store(self) -> Store:
        return Store(self.folder / "runs")

    def trials(self, name: str = "a", grid: Any = None, keep: str = "last", **keys: Any) -> list[Trial]:
        """The trials of an ablation on this store, which is kept in its archive."""
        own = base(**{"backend": "quick", "run": {"device": "cpu", "threads": 1, "keep": keep}, **keys})
        whole = ablation.load_ablation(write_yaml(self.folder / f"{name}.yaml", base=own, grid=grid or {"seed": [0]}))
        planned = resolving.trials(whole, self.cache, store=self.store)
        archive.keep(self.store, whole, planned)
        return [one.trial for one in planned]

    def trial(self, init_from: str | None = None, **keys: Any) -> Trial:
        train = {**keys.pop("train", {}), **({"init_from": init_from} if init_from else {})}
        return self.trials(train=train, **keys)[0]

    def train(self, *trials: Trial) -> Ended:
        """Train them one by one; what the worker tells last."""
        for trial in trials:
            places = (self.store.root, self.cache)
            spec = WorkerSpec(trial.backend, (0,), *places, {}, ROOT, time.monotonic())
            Worker(spec, self.stop, self._hear).run(trial)
        return [event for event in self.events if isinstance(event, Ended)][-1]

    def _hear(self, event: Event) -> None:
        self.events.append(event)
        self.on_event(event)

    def weights(self, trial: Trial) -> Path:
        return self.store.folder(trial.id) / kept.FILE

    def params(self, trial: Trial) -> State:
        return weight_files.read(self.weights(trial)).params


@pytest.fixture
def room(tmp_path: Path, quick: Path, cache: Path) -> Room:
    return Room(tmp_path, cache)


@pytest.fixture
def done(room: Room) -> Trial:
    """A trial of the room that is done."""
    trial = room.trial()
    assert room.train(trial).how == "done"
    return trial


# --- what a trial begins from -------------------------------------------------------------------------------------


def test_a_trial_begins_from_the_kept_weights_of_another(room: Room, done: Trial) -> None:
    trial = room.trial(f"trial:{done.id[:6]}")
    assert trial.train.init_from == f"trial:{done.id}/last" and trial.start_id == done.id
    assert replicas.common(trial) == replicas.common(room.trial())  # one program may train both
    state, said = begun_state(trial, room.store)
    for name, array in room.params(done).items():
        assert np.array_equal(state[f"params/{name}"], array)
        assert not state[f"first_moment/{name}"].any()
    assert room.train(trial).how == "done"
    record = room.store.record(trial.id)
    assert record is not None and record["start"] == said
    assert said == f"begins from trial:{done.id}/last: {len(room.params(done))} arrays as they are"
    assert any(isinstance(event, Noted) and said in event.sentence for event in room.events)


def test_the_average_is_taken_where_evaluations_took_it(room: Room) -> None:
    first = room.trial(train={"ema_decay": 0.5})
    room.train(first)
    shapes = state_shapes(first.model, first.optimizer)
    ended = {name: np.full(shape, 2.0 if name.startswith("average/") else 1.0) for name, shape in shapes.items()}
    kept.keep_last(room.store.folder(first.id), first, (), ended)
    for decay in (0.0, 0.9):
        state, _ = begun_state(room.trial(f"trial:{first.id}", train={"ema_decay": decay}), room.store)
        begun = {name: array for name, array in state.items() if name.startswith(("params/", "average/"))}
        assert len(begun) == len(folds.shapes(first.model)) * (2 if decay else 1)
        assert all((array == 2.0).all() for array in begun.values())


def test_another_number_of_classes_has_a_head_drawn_anew(room: Room, done: Trial) -> None:
    trial = room.trial(f"trial:{done.id}", data={"num_classes": 3})
    state, said = begun_state(trial, room.store)
    drawn = drawn_state(trial)
    assert all(
        np.array_equal(state[f"params/head/{part}"], drawn[f"params/head/{part}"]) for part in ("kernel", "bias")
    )
    assert np.array_equal(state["params/stem/kernel"], room.params(done)["stem/kernel"])
    assert "head drawn anew (3 classes, there 2)" in said


def test_another_resolution_is_expanded(room: Room, done: Trial) -> None:
    keys = {"data": {"image_size": 16}}
    with pytest.raises(
        MixlabError, match=r"a.yaml: train.init_from: trial:.*model.tokens_mlp_dim: .*expected 16, got 4"
    ):
        room.trial(f"trial:{done.id}", **keys)
    trial = room.trial(f"trial:{done.id}", model={"tokens_mlp_dim": 16}, **keys)
    assert room.train(trial).how == "done"
    record = room.store.record(trial.id)
    assert record is not None and "4 arrays expanded block-diagonally, K = 2" in record["start"]


# --- the id -------------------------------------------------------------------------------------------------------


def test_a_trial_that_draws_its_weights_has_the_id_of_before(room: Room) -> None:
    trial = room.trial()
    assert "init_from" not in trial.science["train"]
    tree = as_tree(trial)
    del tree["train"]["init_from"], tree["start_file"]  # as an older store has it
    assert trial_from_json(tree) == trial and trial_from_json(tree).id == trial.id


def test_an_id_is_by_the_content_of_a_file_and_not_by_its_path(room: Room, done: Trial, tmp_path: Path) -> None:
    own = tmp_path / "own.safetensors"
    own.write_bytes(room.weights(done).read_bytes())
    official, _ = (
        tmp_path / "official.npz",
        weight_files.write(tmp_path / "official.npz", weight_files.read(own), "official"),
    )
    others = replace(weight_files.read(own), params={k: v + (k == "head/bias") for k, v in room.params(done).items()})
    weight_files.write(tmp_path / "others.safetensors", others, "mixlab")
    ids = [room.trial(str(path)).id for path in (own, official, tmp_path / "others.safetensors")]
    assert ids[0] == ids[1] != ids[2] and len({*ids, room.trial().id, room.trial(f"trial:{done.id}").id}) == 4


def test_best_and_last_weights_are_other_starts(room: Room) -> None:
    first = room.trial(keep="best")
    room.train(first)
    trial = room.trial(f"trial:{first.id}/best")
    assert trial.train.init_from == f"trial:{first.id}/best" == room.trial(f"trial:{first.id}").train.init_from
    with pytest.raises(MixlabError, match=r"has kept its best weights, expected last; set run.keep"):
        room.trial(f"trial:{first.id}/last")


def test_a_file_and_a_trial_of_the_same_numbers_train_to_the_same_bits(room: Room, done: Trial, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(room.weights(done).read_bytes())
    two = [room.trial(str(path)), room.trial(f"trial:{done.id}")]
    assert room.train(*two).how == "done"
    found = {key: record["metrics"] for key, record in results(room.store.root).items()}
    curves = [found[one.id] for one in (*two, done)]
    assert curves[0] == curves[1] != curves[2]


# --- an archived ablation -----------------------------------------------------------------------------------------


def test_the_trial_of_an_ablation_with_these_settings_is_taken(room: Room) -> None:
    grid = {"model.num_blocks": [1, 2], "seed": [0, 1]}
    trials = room.trials("deep", grid)
    room.train(*trials)
    by_settings = {(one.model.num_blocks, one.seed): one for one in trials}  # type: ignore[attr-defined]
    found = room.trials("b", train={"init_from": "ablation:deep(model.num_blocks=1)"}, grid={"seed": [1, 0]})
    assert [one.start_id for one in found] == [by_settings[1, seed].id for seed in (1, 0)]
    one = room.trial("ablation:deep(model.num_blocks=2 seed=1)", model={"num_blocks": 2})
    assert one.start_id == by_settings[2, 1].id and one.seed == 0
    for text, sentence in {
        "ablation:deep(model.num_blocks=3)": r"no trial of it has model.num_blocks=3 seed=0; the nearest is \w+ \(",
        "ablation:deep": r"2 trials of it have seed=0, such as \w+ \(.*; add model.num_blocks",
        "ablation:deep(train.init_from=null)": r"2 trials of it have",
        "ablation:deep(model.num_blocks=null)": r"no trial of it has model.num_blocks=None seed=0",
        "ablation:dep": r"has no ablation 'dep'; .*did you mean 'deep'",
        "ablation:deep(seed:0)": r"expected settings such as model.num_blocks=4, parted by spaces, got 'seed:0'",
        "ablation:deep(model.blocks=1)": r"'model.blocks' is not a field",
        "ablation:(seed=0)": r"expected the name of an ablation and settings",
    }.items():
        with pytest.raises(MixlabError, match=sentence):
            room.trial(text)


def test_what_is_tuned_and_the_table_at_what_is_chosen_begin_from_the_same(room: Room, done: Trial) -> None:
    def written(init_from: str, **over: Any) -> Any:
        own = base(backend="quick", run={"device": "cpu", "threads": 1}, train={"init_from": init_from})
        tuned = {"over": {"train.learning_rate": [0.01, 0.02], **over}, "seeds": [9]}
        path = write_yaml(room.folder / "t.yaml", base=own, grid={"seed": [0, 1]}, tune=tuned)
        return ablation.load_ablation(path)

    whole = written(f"trial:{done.id}")
    tuning = tune.trials(whole, room.cache, room.store)
    room.train(*[one.trial for one in tuning])
    table = [one.trial for one in tune.known(whole, tuning, room.store) if not one.tunes]
    assert [one.start_id for one in table] == [done.id] * 2 and {one.trial.start_id for one in tuning} == {done.id}
    rate = {"learning_rate": table[0].train.learning_rate}
    assert table == room.trials(train={"init_from": f"trial:{done.id}", **rate}, grid={"seed": [0, 1]})
    for one in (
        written("ablation:a"),
        written(f"trial:{done.id}", **{"train.init_from": ["ablation:a", "ablation:b"]}),
    ):
        with pytest.raises(MixlabError, match=r"ablation:a is the trial of the same seed, and tune has seeds of its"):
            tune.trials(one, room.cache, room.store)


# --- what is wrong is said, and nothing begins afresh -------------------------------------------------------------


def test_wrong_words_are_one_sentence_at_planning(room: Room, done: Trial, tmp_path: Path) -> None:
    (tmp_path / "foreign.npz").write_bytes(b"<html>")
    (none,) = room.trials(keep="none", grid={"seed": [5]})
    room.train(none)
    (waiting,) = room.trials(grid={"seed": [6]})
    for text, sentence in {
        "nowhere.npz": r"train.init_from: nowhere.npz: .*there is no such file",
        str(tmp_path / "foreign.npz"): r"it is a web page",
        "trial:zz": r"expected the digits of an id",
        "trial:0000": r"no trial id starts with '0000'",
        f"trial:{none.id}": r"has no weights: run.keep was none; remove",
        f"trial:{waiting.id}": r"no trial id starts with",
    }.items():
        with pytest.raises(MixlabError, match=sentence) as raised:
            room.trial(text)
        assert str(raised.value).startswith(f"{tmp_path / 'a.yaml'}: train.init_from: ")
    with pytest.raises(MixlabError, match=r"model.hidden_dim: expected 8, as the weights have, got 16"):
        room.trial(f"trial:{done.id}", model={"hidden_dim": 16})


@pytest.mark.parametrize("damage", ["gone", "damaged", "other", "file gone", "file changed"])
def test_what_is_gone_or_changed_since_planning_fails_the_trial_with_a_sentence(
    room: Room, done: Trial, tmp_path: Path, damage: str
) -> None:
    path = room.weights(done)
    if damage.startswith("file"):
        copy = tmp_path / "copy.safetensors"
        copy.write_bytes(path.read_bytes())
        path = copy
    trial = room.trial(str(path) if damage.startswith("file") else f"trial:{done.id}")
    if damage.endswith("gone"):
        path.unlink()
    elif damage == "damaged":
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    elif damage == "other":
        room.store.folder(done.id).joinpath("record.json").unlink()
    else:
        others = {name: array + 1 for name, array in room.params(done).items()}
        weight_files.write(path, replace(weight_files.read(path), params=others), "mixlab")
    room.events.clear()
    ended = room.train(trial)
    spent = {phase for event in room.events if isinstance(event, Spent) for phase in event.seconds}
    assert ("data" in spent) == (damage not in ("gone", "other"))  # these are seen before anything is read for it
    sentences = {
        "gone": "has no weights: they were removed",
        "damaged": "checksum does not match",
        "other": "is not done; run it first",
        "file gone": "there is no such file",
        "file changed": "the file has changed since; plan it again",
    }
    assert ended.how == "failed" and ended.failure is not None
    assert ended.failure.cause == "start_missing" and sentences[damage] in ended.failure.reason
    assert ended.failure.reason.startswith("train.init_from: ")
    record = room.store.record(trial.id)
    assert record is not None and record["status"] == "failed" and "traceback" not in record


def test_nothing_that_has_no_store_begins_afresh(room: Room, done: Trial) -> None:
    with pytest.raises(MixlabError, match="cannot be loaded here"):
        initial_state(room.trial(f"trial:{done.id}"))


# --- training -----------------------------------------------------------------------------------------------------


def test_both_frameworks_agree_on_fine_tuning(room: Room, done: Trial) -> None:
    curves = {}
    for backend in ("torch", "jax"):
        data = {"image_size": 16, "num_classes": 3}
        train = {"precision": "float64", "init_from": f"trial:{done.id}"}
        (trial,) = room.trials(backend=backend, data=data, train=train, model={"tokens_mlp_dim": 16})
        assert room.train(trial).how == "done"
        record = room.store.record(trial.id, with_curve=True)
        assert record is not None
        curves[backend] = [point["loss"] for point in record["curve"]]
    np.testing.assert_allclose(curves["torch"], curves["jax"], rtol=ALIKE, atol=0)


def test_a_trial_that_is_stopped_goes_on_to_the_same_bits_without_its_start(room: Room, done: Trial) -> None:
    whole, other = room.trial(f"trial:{done.id}"), Room(room.folder / "other", room.cache)
    other.folder.mkdir()
    assert room.train(whole).how == "done"
    expected = results(room.store.root)[whole.id]
    room.store.folder(whole.id).rename(room.folder / "before")

    def stop(event: Event) -> None:
        if isinstance(event, Stepped) and event.step >= 2:
            room.stop.set()

    room.on_event = stop
    assert room.train(whole).how == "stopped"
    room.on_event = lambda event: None
    room.stop.clear()
    room.weights(done).unlink()
    assert room.train(whole).how == "done"
    assert results(room.store.root)[whole.id] == expected
    assert json.loads((room.store.folder(whole.id) / "spec.json").read_text())["train"]["init_from"]


def test_the_name_of_weights_is_by_every_number(room: Room, done: Trial) -> None:
    params = room.params(done)
    names = {start_file.name_of(params), start_file.name_of({k: v.astype(np.float64) for k, v in params.items()})}
    assert len(names) == 1
    for name in folds.shapes(done.model):
        changed = {**params, name: params[name].copy()}
        changed[name].flat[-1] += 1
        names.add(start_file.name_of(changed))
    assert len(names) == 1 + len(params)
