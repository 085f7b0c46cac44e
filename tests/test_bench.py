"""The bench measures what it says: known times give known ratios, peers are found and trained, phases add up."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

import analysis
import backends
from analysis.terminal import bench_lines
from backends.bench import Load
from backends.errors import MixlabError
from backends.models import folds
from backends.specs import RunSpec
from backends.torch import loader
from experiments.bench import config, grid, limit, reading, rounds, side, step
from experiments.bench import data as bench_data
from experiments.bench.rounds import Spread
from experiments.bench.step import Measurement
from experiments.data import pixels
from experiments.machine import malloc, memory
from experiments.results import ceilings
from experiments.results.store import Store
from experiments.running import failures, fit, storage
from experiments.spec.trial import as_tree
from tests import prepared_sets
from tests.conftest import Ended, base, records, write_yaml
from tests.peers import SMALL_MIXER as SMALL
from tests.peers import write_official, write_timm

Run = Callable[..., Ended]


class Clock:
    """A side whose work takes a known number of seconds a piece, another in each turn, and that notes its turns."""

    def __init__(self, turns: list["Clock"], *pieces: float):
        self.turns, self.pieces = turns, iter(pieces)

    def seconds(self, work: str, times: int) -> float:
        self.turns.append(self)
        return next(self.pieces) * times


def test_sides_take_turns_and_a_ratio_is_that_of_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine gets three times slower from round to round; the ratio stays."""
    monkeypatch.setattr(rounds, "REST_S", 0.0)
    turns: list[Clock] = []
    ours, theirs = Clock(turns, 0.1, 0.1, 0.3, 0.9), Clock(turns, 0.2, 0.2, 0.6, 1.8)
    found = rounds.take_turns([(ours, "train"), (theirs, "train")], 3, 1.0)  # type: ignore[list-item]
    assert np.allclose(found, [[0.1, 0.3, 0.9], [0.2, 0.6, 1.8]])
    assert turns == [ours, theirs] * 4
    spread = rounds.ratios(found[1], found[0])
    assert np.allclose((spread.median, spread.low, spread.high), 2.0)


def test_spread_by_hand() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0)


AUGMENT = ("data.image_size=8", "data.augment.inception=torchvision", "data.augment.flip=true", "train.batch_size=16")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 40 PNG files of two sizes."""
    rng = np.random.default_rng(0)
    several = [rng.integers(0, 256, (12 + i % 2, 12, 3), np.uint8) for i in range(40)]
    folder = tmp_path_factory.mktemp("images") / "set"
    return prepared_sets.write(folder, "encoded", several, [i % 4 for i in range(40)])


@pytest.mark.parametrize("storage", ["encoded", "memory"])
def test_data_measures_the_feed_against_torchs_loader_and_a_bare_decoder(
    run: Run, images: Path, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_data, "TURN_S", 0.1)
    words = [*AUGMENT, f"data.storage={storage}", "run.threads=1"]
    ended = run("bench", "data", str(images), "--rounds", "1", "--json", "--out", "kept.json", *words)
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told == json.loads(Path("kept.json").read_text()) and told["bench"] == "data"
    found = told["found"]
    assert [one["label"] for one in found] == ["feed", "torch's loader", "bare decoder"]
    feed = found[0]["images_per_s"]["median"]
    for one in found:
        assert math.isclose(one["relative"]["median"], feed / one["images_per_s"]["median"], rel_tol=1e-9)
        assert one["num_threads"] == 1 and one["spec"]["data"]["storage"] == storage


def test_each_side_makes_the_batches_that_it_is_asked_for(
    images: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """And reads nothing ahead of them, which the next turn would have for nothing."""
    trial = bench_data.trial(str(images), [*AUGMENT, "data.storage=encoded"], cache)
    num_read: list[int] = []
    stored = pixels.Encoded.encoded

    def counted(self: pixels.Encoded, number: int) -> bytes:
        num_read.append(number)
        return stored(self, number)

    monkeypatch.setattr(pixels.Encoded, "encoded", counted)
    for what in (reading.FEED, reading.DECODER):
        make = reading.opened(what, trial, cache)
        for batches in (1, 3):
            num_read.clear()
            make(batches)
            assert len(num_read) == batches * 16, what


def test_the_loader_of_torch_crops_and_flips_each_image_once(images: Path) -> None:
    made: list[int] = []
    wide = np.zeros((20, 30, 3), np.uint8)
    wide[:, :15] = 255
    seen = loader.Images(lambda number: made.append(number) or wide, Load(8, 3, 0.08, True, 4, 1))  # type: ignore[func-returns-value]
    found = [np.asarray(seen[number]) for number in range(50)]
    assert made == list(range(50)) and all(one.shape == (8, 8, 3) and one.dtype == np.uint8 for one in found)
    assert any(one[0, 0, 0] < one[0, -1, 0] for one in found) and any(one[0, 0, 0] > one[0, -1, 0] for one in found)
    for _ in range(200):
        left, top, right, bottom = loader.crop_box(30, 20, 0.08)
        assert 0 <= left < right <= 30 and 0 <= top < bottom <= 20 and (right - left) * (bottom - top) >= 0.06 * 600


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.augment.randaugment.num=2"], "has no data.augment.randaugment; leave it out"),
        (["data.shorter_side=10", "data.image_size=8"], "has no data.shorter_side; give data.augment.inception too"),
        (["data.storage=memory", "data.image_size=8"], "all images lie on the device and none is read"),
    ],
)
def test_what_the_sides_do_not_have_in_common_is_refused(
    run: Run, images: Path, words: list[str], sentence: str
) -> None:
    ended = run("bench", "data", str(images), *words, "train.batch_size=16")
    assert ended.code == 2 and sentence in ended.err, ended.err


def test_step_measures_both_backends_and_a_share_of_the_ceiling(run: Run) -> None:
    ended = run("bench", "step", "--rounds", "1", "--json", *SMALL)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["found"]
    assert [one["label"] for one in found] == ["torch", "jax"]
    macs = folds.forward_macs(config.trial("cifar", SMALL).model)
    for one in found:
        for work, factor in (("train", 6), ("predict", 2)):
            images = one["images_per_s"][work]["median"]
            assert math.isclose(one["gflops"][work]["median"], factor * macs * images / 1e9, rel_tol=1e-9)
            assert 0 < one["share"][work]["median"] < 1
        assert one["first_step_s"] > 0
        assert one["about"]["peak_memory_bytes"] > 2**20
    assert found[0]["relative"]["train"]["median"] == 1.0
    both = [one["images_per_s"]["train"]["median"] for one in found]
    assert math.isclose(found[1]["relative"]["train"]["median"], both[0] / both[1], rel_tol=1e-9)


def test_another_setting_is_a_side_of_its_own(run: Run) -> None:
    ended = run(
        "bench", "step", "--rounds", "1", "--backend", "torch", "--versus", "train.batch_size=8", "--json", *SMALL
    )
    assert ended.code == 0, ended.err
    first, second = json.loads(ended.out)["found"]
    assert (first["label"], second["label"]) == ("torch", "torch train.batch_size=8")
    rates = [one["images_per_s"]["train"]["median"] for one in (first, second)]
    assert (second["against"], second["spec"]["train"]["batch_size"]) == ("torch", 8)
    assert math.isclose(second["relative"]["train"]["median"], rates[0] / rates[1], rel_tol=1e-9)


def test_each_side_says_how_many_times_as_long_it_takes_as_the_one_that_it_is_held_to() -> None:
    spread, spec = (
        {"train": Spread(1.0, 1.0, 1.0), "predict": Spread(1.0, 1.0, 1.0)},
        as_tree(config.trial("cifar", [])),
    )
    sides = [
        Measurement(label, spread, spread, spread, "torch", ratios, 1.0, spec, {"peak_memory_bytes": 2**20})
        for label, ratios in (
            ("torch", spread),
            ("timm", {"train": Spread(1.274, 1.2, 1.31), "predict": Spread(0.9, 0.8, 1.0)}),
        )
    ]
    assert bench_lines.step_lines("cifar", sides)[-2:] == [
        "timm's step takes 1.27 [1.20, 1.31] times as long as torch's",
        "timm's forward pass takes 0.90 [0.80, 1.00] times as long as torch's",
    ]
    assert not any("times as long" in line for line in bench_lines.step_lines("cifar", sides[:1]))


def test_replicas_are_a_side_that_is_compared_with_as_many_trials_one_by_one(run: Run) -> None:
    words = ("--rounds", "1", "--backend", "torch", "--replicas", "3", "--json")
    ended = run("bench", "step", *words, *SMALL)
    assert ended.code == 0, ended.err
    alone, together = json.loads(ended.out)["found"]
    assert (alone["label"], together["label"], together["against"]) == ("torch", "torch 3 replicas", "torch")
    rates = [one["images_per_s"]["train"]["median"] for one in (alone, together)]
    assert math.isclose(together["relative"]["train"]["median"], rates[0] / rates[1], rel_tol=1e-9)
    macs = folds.forward_macs(config.trial("cifar", SMALL).model)
    assert math.isclose(together["gflops"]["train"]["median"], 6 * macs * rates[1] / 1e9, rel_tol=1e-9)


def test_a_step_of_replicas_counts_the_images_of_all() -> None:
    trial = config.trial("cifar", [*SMALL, "train.batch_size=8"])
    alone, together = step.sides(trial, ["torch"], num_replicas=3)
    assert (alone.batch_size, together.batch_size) == (8, 24)
    assert step._an_image([6.0], together) == [0.25] and step._an_image([2.0], alone) == [0.25]


def test_our_loop_trains_replicas_that_differ_in_their_seed() -> None:
    for name in backends.names():
        loop = side.OurLoop(config.trial("cifar", [*SMALL, f"backend={name}"]), RunSpec(), 3)
        loop.train(2)
        biases = [state["params/head/bias"] for state in loop.program.states()]
        assert len(biases) == 3 and not any(np.array_equal(biases[i], biases[i - 1]) for i in range(3))


def test_our_loop_trains_as_a_trial_does() -> None:
    """The parameters move, by the plan of a trial: what is timed is training."""
    for name in backends.names():
        loop = side.OurLoop(config.trial("cifar", [*SMALL, f"backend={name}"]), RunSpec())
        before = loop.program.states()[0]["params/head/bias"]
        loop.train(2)
        assert loop.step == 2
        assert not np.array_equal(before, loop.program.states()[0]["params/head/bias"])


def peer(name: str, backend: str, path: Path | None = None) -> Any:
    trial = config.trial("cifar", SMALL)
    peers = backends.load_peers(backend)
    return peers.open_peer(name, trial.model, trial.optimizer, side.random_data(trial, 1), RunSpec(), path)


def test_the_authors_model_is_taken_from_a_clone(tmp_path: Path) -> None:
    write_official(tmp_path)
    found = peer("official-flax", "jax", tmp_path)
    before = np.asarray(found.params["params"]["Dense_0"]["bias"]).copy()
    found.train(2)
    found.predict(1)
    assert not np.array_equal(before, np.asarray(found.params["params"]["Dense_0"]["bias"]))


@pytest.fixture
def timm_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test imports timm and torchvision as if none had; they go with it, and with them what stands in for them."""

    def taken() -> dict[str, ModuleType]:
        names = [one for one in sys.modules if one.partition(".")[0] in ("timm", "torchvision")]
        return {name: sys.modules.pop(name) for name in names}

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    before = taken()
    yield
    taken()
    sys.modules.update(before)


@pytest.mark.usefixtures("timm_anew")
def test_timm_is_measured_without_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_timm(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = peer("timm", "torch")
    before = found.module.head.bias.detach().clone()
    found.train(2)
    found.predict(1)
    assert not (before == found.module.head.bias).all()


@pytest.mark.usefixtures("timm_anew")
@pytest.mark.parametrize(("backend", "name"), [("torch", "timm-vit"), ("jax", "big_vision-vit")])
def test_the_vits_of_others_have_the_parameters_of_ours_and_train(backend: str, name: str) -> None:
    trial = config.trial("cifar-vit", [*SMALL, "model.num_heads=2"])
    data = side.random_data(trial, 1)
    found: Any = backends.load_peers(backend).open_peer(name, trial.model, trial.optimizer, data, RunSpec(), None)

    def parameters() -> list[Any]:
        arrays = found.module.parameters() if backend == "torch" else jax.tree.leaves(found.params)
        return [np.array(one.detach().numpy() if backend == "torch" else one) for one in arrays]

    before = parameters()
    assert sum(one.size for one in before) == folds.count(trial.model)
    found.train(2)
    found.predict(1)
    assert all(not np.array_equal(one, other) for one, other in zip(before, parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config", "B/61"], ["'B/61'", "B/16"]),
        (["--peer", "tim"], ["'tim'", "did you mean 'timm'"]),
        (["--peer", "official-flax"], ["expected a clone at --peer-path, got none", "git clone"]),
        (["--peer", "timm", "model.token_mixing=untied"], ["model.token_mixing=untied"]),
        (["--peer", "timm", "model.token_mixing=attention"], ["timm has no model.token_mixing=attention, only tied"]),
        (["--peer", "timm-vit"], ["timm-vit has no model.token_mixing=tied, only attention"]),
        (["--config", "cifar-vit", "--peer", "big_vision-vit", "model.pool=cls"], ["no model.pool=cls, only mean"]),
        (["--peer", "timm", "train.optimizer=sgd"], ["no train.optimizer=sgd"]),
        (["--peer", "timm", "data.augment.crop=4"], ["no data.augment.crop=4"]),
        (["--peer", "timm", "--peer", "official-flax"], ["timm and official-flax", "activations"]),
        (["--rounds", "0"], ["--rounds: expected at least 1", "at least 1"]),
        (["--replicas", "0"], ["--replicas: 0", "at least 1"]),
        (["--backend", "torhc"], ["'torhc'", "did you mean 'torch'"]),
        (["--precision", "float31"], ["float31", "float32"]),
        (["model.hidden_dims=8"], ["hidden_dims"]),
    ],
)
def test_a_mistake_is_one_sentence(run: Run, arguments: list[str], words: list[str]) -> None:
    ended = run("bench", "step", *arguments)
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
    for word in words:
        assert word in ended.err


def test_the_ceiling_is_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "TURN_S", 0.05)
    monkeypatch.setattr(limit, "COPY_BYTES", 2**22)
    found = limit.limit(config.trial("cifar", ["backend=torch", "run.device=cpu"]), 2, (64, 512))
    assert found.gflops == max(spread.median for spread in found.product_gflops.values())
    assert found.copy_gb_per_s.low > 0
    lines = bench_lines.limit_lines([found])
    assert sum("the ceiling" in line for line in lines) == 1


def test_the_phases_of_a_grid_add_up(tmp_path: Path) -> None:
    from tests.conftest import planned

    trials = planned(write_yaml(tmp_path / "a.yaml", grid={"seed": [0, 1, 2]}), tmp_path / "data")
    found = grid.measure(trials, tmp_path / "data", 1)
    assert (found.num_trials, found.jobs) == (3, 1)
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert all(found.seconds[phase] > 0 for phase in ("start", "import", "train", "evaluate", "record"))
    assert 0 <= found.idle_s < found.wall_s
    assert 0 < found.training_share < 1
    share = (found.seconds["compile"] + found.seconds["train"] + found.seconds["evaluate"]) / found.wall_s
    assert math.isclose(found.training_share, share)


def test_a_trial_that_cannot_fit_is_refused_with_numbers_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    """One of hundreds of GiB is refused before anything is allocated."""
    path = write_yaml(
        tmp_path / "large.yaml",
        base=base(data={"image_size": 224, "num_examples": 40}, train={"batch_size": 8, "steps": 1}),
        grid={
            "size": [
                {"model.patch_size": 56, "model.hidden_dim": 8},
                {"model.patch_size": 1, "model.hidden_dim": 65536, "model.tokens_mlp_dim": 65536},
            ]
        },
    )
    ended = run("run", str(path))
    assert ended.code == 1, ended.err
    by_status = {record["status"]: record for record in records(tmp_path / "runs").values()}
    assert set(by_status) == {"done", "failed"}
    failed = by_status["failed"]
    assert failed["cause"] == "out_of_memory"
    assert "GiB (" in failed["reason"]
    assert "nothing was allocated" in failed["reason"]
    assert "traceback" not in failed


def test_a_control_groups_limit_counts_and_its_page_cache_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1000 bytes 900 are used, but 600 of them only hold files."""
    (tmp_path / "own").write_text("0::/job/step\n")
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    for name, content in (
        ("current", "900\n"),
        ("max", "1000\n"),
        ("stat", "anon 300\nactive_file 200\ninactive_file 400\n"),
    ):
        (group / f"memory.{name}").write_text(content)
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
    assert memory.available_bytes() == 700
    (group / "memory.max").write_text("max\n")
    assert memory.available_bytes() > 2**20
    for name in ("current", "max", "stat"):  # of the job, which holds the step
        (group.parent / f"memory.{name}").write_text({"current": "10", "max": "50", "stat": ""}[name])
    assert memory.available_bytes() == 40


def test_what_fits_is_not_refused() -> None:
    trial = config.trial("cifar", SMALL)
    needed = fit.need(trial, on_host=False).total
    fit.check(trial, needed)
    with pytest.raises(failures.DoesNotFit, match=r"an evaluation of 256 images needs 0\.0 .* 0\.0 GiB are free"):
        fit.check(trial, needed - 1)
    large = config.trial("cifar")
    needed = fit.need(large, on_host=False).total
    fit.check(large, needed)
    sentence = (
        r"a step of train\.batch_size 128 needs 0\.5 .* 0\.5 GiB are free; most of it is the activations, 0\.5 GiB"
    )
    with pytest.raises(failures.DoesNotFit, match=sentence):
        fit.check(large, needed - 1)


@pytest.mark.parametrize("backend", backends.names())
def test_a_trial_that_computes_its_blocks_again_needs_less(backend: str) -> None:
    """By the estimate, and by the peak of the process: 448 MiB of activations against 144."""
    sizes = ["model.num_blocks=4", "train.batch_size=256", "run.device=cpu"]
    kept, again = (config.trial("cifar", [*sizes, f"run.remat={remat}"]) for remat in ("false", "true"))
    assert storage.needed_bytes(kept) - storage.needed_bytes(again) > 2**28
    peaks = []
    for trial in (kept, again):
        with rounds.running(step.sides(trial, [backend])) as (one,):
            one.seconds("train", 1)
            peaks.append(one.about()["peak_memory_bytes"])
    assert peaks[0] - peaks[1] > 2**28
    with pytest.raises(failures.DoesNotFit, match=r"run\.remat=true would fit"):
        fit.check(kept, fit.need(again, on_host=False).total)
    fit.check(again, fit.need(again, on_host=False).total)


def test_what_a_former_trial_has_left_is_not_counted_against_the_next() -> None:
    """A worker keeps what it frees, until it is asked whether a trial fits."""
    program = """
import psutil
from experiments.bench import config
from experiments.running import fit
blocks = [bytes(2**20 - 100) for _ in range(400)]
kept = bytes(100)
del blocks
before = psutil.Process().memory_info().rss
fit.check(config.trial("cifar"), None)
print((before - psutil.Process().memory_info().rss) / 2**20)
"""
    with malloc.large_pages():
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 300


def test_the_optimizer_does_the_same_in_parts_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight decay ends inside a part; every part has its own."""
    found = []
    for size in (7, 2**30):
        monkeypatch.setattr("backends.torch.optimizer.CPU_PART", size)
        settings = ["backend=torch", "train.weight_decay=0.3", "train.clip_norm=0.1", "train.ema_decay=0.9"]
        loop = side.OurLoop(config.trial("cifar", [*SMALL, *settings]), RunSpec())
        loop.train(2)
        found.append(loop.program.states()[0])
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_large_pages_are_for_what_is_begun_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with malloc.large_pages():
        assert os.environ["GLIBC_TUNABLES"] == malloc.TUNABLES
    assert "GLIBC_TUNABLES" not in os.environ
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    with malloc.large_pages():
        assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=3"
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


def test_one_side_that_dies_is_a_sentence() -> None:
    trial = config.trial("cifar", SMALL)
    one = step.sides(trial, ["torch"])[0]
    with rounds.running([one]) as (started,):
        started.process.kill()
        started.process.join()
        with pytest.raises(MixlabError, match="ended with exit code -9"):
            started.seconds("train", 1)


def test_the_share_of_a_trial_is_of_its_machine_and_threads(tmp_path: Path) -> None:
    """By hand: 600 GFLOP in 2 s on 3 cores of 200 GFLOP/s each are half of the ceiling."""
    store = Store(tmp_path)
    ceilings.keep(store, "Xeon", "float32", 200.0)
    ceilings.keep(store, "Xeon", "float32", 150.0)  # a busy hour does not lower it
    ceilings.keep(store, "H200", "bfloat16", 1000.0)
    found = ceilings.known(store)
    values = {"device": "cpu", "processor": "Xeon", "threads": 3, "seconds.train": 2.0, "training_flops": 600e9}
    assert ceilings.share(found, values, "float32") == pytest.approx(0.5)
    assert ceilings.share(found, values, "float64") is None
    assert ceilings.share(found, {**values, "threads": None}, "float32") is None
    assert ceilings.share(found, {**values, "device": "H200"}, "bfloat16") == pytest.approx(0.3)
    store.limits.write_text("{")
    assert ceilings.known(store) == {}


def test_a_report_says_the_share_of_the_measured_peak(run: Run, tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "a.yaml")
    assert run("run", str(path)).code == 0
    assert analysis.load(tmp_path / "runs", path)["peak_share"].isna().all()
    record = next(iter(records(tmp_path / "runs").values()))
    ceilings.keep(Store(tmp_path / "runs"), record["environment"]["processor"], "float32", 1e-3)
    frame = analysis.load(tmp_path / "runs", path)
    rates = frame["training_flops"] / frame["seconds.train"] / 1e9
    assert np.allclose(frame["peak_share"], rates / frame["threads"] / 1e-3)
