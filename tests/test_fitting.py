"""What plan and show say of memory: which settings of a trial fit, and the least change that does."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.terminal import fits_lines, plan_lines
from analysis.terminal.fits_lines import GIB, Memory
from backends.models import folds
from experiments.bench import config
from experiments.machine import memory
from experiments.results.record import make_record
from experiments.results.store import Store
from experiments.running import fit, storage
from experiments.running.failures import Failure
from experiments.running.fitting import Setting, least_change, microbatches
from experiments.spec.trial import Trial
from tests.conftest import Ended, base, planned, write_yaml
from tests.test_planning import Bench

Run = Callable[..., Ended]


def trial_of(batch: int = 512, **settings: Any) -> Trial:
    return config.trial("cifar", [f"train.batch_size={batch}", *(f"{k}={v}" for k, v in settings.items())])


def at(trial: Trial, parts: int, devices: int = 1, remat: bool = False) -> Trial:
    return Setting(parts, devices, remat).on(trial)


def cells(lines: list[str]) -> dict[str, list[str]]:
    """The cells of a table by the first of a row, without the heads."""
    rows = [re.split(r" {2,}", line.strip()) for line in lines if re.match(r" *\d+ ", line)]
    return {first: rest for first, *rest in rows}


# --- the least change -------------------------------------------------------------------------------------------------


def test_the_least_change_keeps_the_trial_if_it_can_and_then_cuts_as_little_as_it_can() -> None:
    trial = trial_of()

    def found(fitting: Setting) -> Setting | None:
        return least_change(trial, lambda one: fit.need(one, False).total <= fit.need(fitting.on(trial), False).total)

    assert found(Setting(1, 1, False)) is None
    assert found(Setting(1, 1, True)) == Setting(1, 1, True)
    assert found(Setting(2, 1, True)) == Setting(2, 1, True)  # of a quarter of what 2 microbatches alone need
    assert Setting(1, 1, True).on(trial).id == trial.id != at(trial, 2).id
    assert least_change(trial, lambda one: False) is None


def test_fewer_devices_come_before_another_trial_and_more_of_them_last() -> None:
    trial = trial_of(**{"train.microbatches": 4, "run.devices": 2})
    asked: list[Setting] = []
    least_change(trial, lambda one: bool(asked.append(Setting.of(one))), [1, 2, 4, 8])
    two = [Setting(4, 2, remat, shares) for remat in (False, True) for shares in (False, True)]
    assert asked[:7] == [*two, *(Setting(4, 1, remat) for remat in (False, True)), Setting(8, 2, False)]
    first = next(i for i, one in enumerate(asked) if one.devices > 2)
    assert {one.devices for one in asked[:first]} == {1, 2} and {one.devices for one in asked[first:]} == {4, 8}
    assert all(one.microbatches % one.devices == 0 for one in asked) and asked[first] == Setting(4, 4, False)


def test_words_name_what_changes_alone() -> None:
    trial = trial_of(**{"train.microbatches": 4, "run.devices": 2})
    assert Setting(4, 2, True).words(trial) == "run.remat=true"
    assert Setting(8, 1, False).words(trial) == "run.devices=1 and train.microbatches=8 (another trial)"


def test_a_batch_is_cut_by_powers_of_two_that_divide_it() -> None:
    assert microbatches(trial_of(24)) == [1, 2, 4, 8] and microbatches(trial_of(7)) == [1]


def test_a_refusal_counts_its_program_as_it_is_held_against_the_memory() -> None:
    """Replicas need three times as much, and a compiled program its share more: neither may name what would not fit."""
    trial = trial_of()
    needs = {number: fit.need(at(trial, 1, remat=True), False, num_replicas=number).total for number in (1, 3)}
    own = fit.need(trial, False, num_replicas=3).total
    for free, known, words in (
        (needs[3], None, "; run.remat=true would fit"),
        (needs[3] - 1, None, "run.remat=true and train.microbatches=2"),
        (2 * needs[3] - 1, 2 * own, "run.remat=true and train.microbatches=2"),
    ):
        with pytest.raises(fit.DoesNotFit) as refused:
            fit.check(trial, free, known=known, num_replicas=3)
        assert words in str(refused.value)


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_cell_is_what_its_setting_needs_and_says_whether_it_fits() -> None:
    trial, held = trial_of(), Memory(0.4 * GIB)
    lines = fits_lines.lines(trial, held)
    shown = cells(lines)
    assert list(shown) == ["1", "2", "4", "8", "16", "32"], "up to where nothing gets less"
    for parts, row in shown.items():
        for remat, cell in zip((False, True), row, strict=True):
            needed = fit.need(at(trial, int(parts), remat=remat), on_host=False).total
            as_set = " (as set)" * (parts == "1" and not remat)
            assert cell == f"{needed / GIB:.2f}{' fits' * (needed <= 0.4 * GIB)}{as_set}"
    assert lines[0].split() == ["GiB", "by", "train.microbatches", "run.remat=false", "run.remat=true"]
    assert (
        lines[-1] == "the least change that fits into 0.4 GiB: run.remat=true and train.microbatches=2 (another trial)"
    )


def test_the_setting_of_the_trial_has_a_cell_wherever_it_is() -> None:
    shown = cells(fits_lines.lines(trial_of(**{"train.microbatches": 256, "run.remat": True}), Memory(80 * GIB)))
    assert (
        shown["256"][1].endswith("fits (as set)")
        and sum("as set" in cell for row in shown.values() for cell in row) == 1
    )


def test_numbers_of_devices_have_columns_only_where_they_change_what_fits() -> None:
    trial = trial_of(**{"train.microbatches": 8, "run.devices": 8})
    waiting = fit.need(at(trial, 8, 4), False).total  # a gradient more than on 8
    assert waiting > fit.need(trial, False).total
    lines = fits_lines.lines(trial, Memory(waiting - 1))
    assert "8 devices, remat" in lines[0] and "4 devices, remat" in lines[0] and "2 devices" in lines[0]
    assert cells(lines)["4"][-2:] == ["-", "-"], "8 devices have no share of 4 microbatches"
    lines = fits_lines.lines(trial, Memory(80 * GIB))
    assert " of each device by train.microbatches" in lines[0]
    other = "run.devices=1, 2, 4 changes these by at most "
    (told,) = (line for line in lines if line.startswith(other))
    most = max(abs(fit.need(at(trial, 8, n), False).total - fit.need(trial, False).total) for n in (1, 2, 4))
    assert told == f"{other}{most / 2**20:,.0f} MiB, and not what fits"


def test_on_a_cpu_the_processes_of_a_trial_count_together_and_no_more_are_offered() -> None:
    trial = trial_of(**{"train.microbatches": 2, "run.devices": 2, "run.device": "cpu"})
    needed = storage.needed_bytes(trial)
    assert Memory(needed).needed(trial) == needed == 2 * fit.need(trial, True).total
    lines = fits_lines.lines(trial, Memory(needed - 1))
    assert "1 device " in lines[0] and "4 devices" not in "".join(lines)
    assert " of all processes together by train.microbatches" in lines[0]
    assert " of all processes together at the peak" in fits_lines.head(trial)
    assert lines[-1].endswith(": run.sharded_optimizer=true")


def test_auto_is_a_cpu_here_and_another_device_elsewhere() -> None:
    trial = trial_of()
    assert trial.run.device == "auto"
    assert Memory(1.0, is_here=True).needed(trial) == fit.need(trial, True).total
    assert Memory(80 * GIB).needed(trial) == fit.need(trial, False).total
    assert Memory.here(replace(trial, run=replace(trial.run, device="cuda"))) is None


def test_images_that_a_device_has_no_room_for_come_in_as_it_trains() -> None:
    large = trial_of()
    large = replace(large, info=replace(large.info, num_train=2**20))  # of 3 GiB
    whole, streamed = (fit.need(large, False, streams=streams).total for streams in (False, True))
    assert whole > streamed + 2 * GIB
    assert storage.needed_of_device(large, whole) == whole and storage.needed_of_device(large, whole - 1) == streamed
    in_memory = replace(large, data=replace(large.data, storage="memory"))
    assert storage.needed_of_device(in_memory, whole - 1) == whole


def test_where_nothing_fits_it_says_what_else_there_is() -> None:
    last = fits_lines.lines(trial_of(), Memory(1e6))[-1]
    assert last == "none of these fits into 0.0009313 GiB; set a smaller model"


# --- the commands -----------------------------------------------------------------------------------------------------


def test_a_plan_says_nothing_of_settings_where_all_fit_and_nobody_asks(run: Run, tmp_path: Path) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    assert "by train.microbatches" not in run("plan", "tiny.yaml").out


def test_a_plan_says_what_fits_where_the_largest_trial_does_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"model.num_blocks": [1, 40], "seed": [0, 1]}
    path = write_yaml(tmp_path / "tiny.yaml", base=base(model={"hidden_dim": 64}), grid=grid)
    small, large = sorted({storage.needed_bytes(one.trial) for one in planned(path, tmp_path / "data")})
    monkeypatch.setattr(memory, "available_bytes", lambda: large)
    assert "by train.microbatches" not in run("plan", "tiny.yaml").out
    monkeypatch.setattr(memory, "available_bytes", lambda: large - 1)
    out = run("plan", "tiny.yaml").out
    assert "2 of 4 trials fit as set into the 0.0 GiB that are available here to a CPU" in out and small < large - 1
    assert "MiB by train.microbatches" in out and "for a device that is not here: --memory GIB" in out
    cuda = run("plan", "tiny.yaml", "run.device=cuda").out
    assert "by train.microbatches" not in cuda, "of a device that is not here nothing is known"


def test_a_plan_of_which_all_is_done_says_nothing_of_settings(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Bench(tmp_path, cache)
    monkeypatch.setattr(memory, "available_bytes", lambda: 1)
    assert "by train.microbatches" in made.text()
    assert "by train.microbatches" not in made.put_all().text()
    assert "by train.microbatches" in "\n".join(plan_lines.summary(made.known, device=Memory(GIB)))


def test_a_plan_holds_the_largest_trial_of_a_device_against_its_memory(run: Run, tmp_path: Path) -> None:
    """On a CPU jax needs more, on a device as much."""
    model = {"hidden_dim": 256, "num_blocks": 4}
    grid = {"backend": ["torch", "jax"], "train.batch_size": [256, 512]}
    write_yaml(tmp_path / "tiny.yaml", base=base(model=model, data={"num_examples": 1000}), grid=grid)
    out = run("plan", "tiny.yaml", "--memory", "80").out
    assert "4 of 4 trials fit as set into 80 GiB" in out and "as it is set, it fits into 80 GiB" in out
    assert re.search(r"^memory .* \(backend=jax batch_size=512\)$", out, re.MULTILINE)
    assert re.search(r"the largest there, \w+ \(backend=torch batch_size=512\):", out)
    assert "2 of 4 trials" in run("plan", "tiny.yaml", "--memory", str(_between(out) / 1024)).out


def _between(out: str) -> float:
    """A MiB less than the largest trial of a plan needs of a device."""
    (row,) = (line for line in out.splitlines() if "(as set)" in line)
    return float(row.split()[1].replace(",", "")) - 1


@pytest.mark.parametrize("word", ["0", "-1", "80GB", "nan"])
@pytest.mark.parametrize("command", ["plan", "show"])
def test_a_memory_that_is_none_is_a_sentence(run: Run, tmp_path: Path, command: str, word: str) -> None:
    write_yaml(tmp_path / "tiny.yaml")
    ended = run(command, "tiny.yaml", f"--memory={word}")
    assert ended.code == 2 and not ended.out
    assert f"command line: --memory: expected a number above 0 in GiB, such as 80, got {word!r}" in ended.err


@pytest.mark.parametrize("ran_on", [None, "cpu", "NVIDIA H100"])
def test_show_says_what_a_trial_needs_and_if_memory_was_out_what_would_fit(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran_on: str | None
) -> None:
    """A trial that did not begin has its spec in its record alone."""
    (one,) = planned(write_yaml(tmp_path / "tiny.yaml", grid={"seed": [0]}), tmp_path / "data")
    trial, environment = one.trial, {"backend": {"device": ran_on}} if ran_on else {}
    record = make_record(trial, Failure("out_of_memory", "it was full").outcome, environment, 1.0, None)
    Store(tmp_path / "runs").finish(trial.id, record)
    out = run("show", trial.id).out
    needed = f"{storage.needed_bytes(trial) / 2**20:.0f}"
    assert f"memory {needed} MiB at the peak, by estimate, with train.microbatches=1 run.devices=1" in out
    assert ("GiB that are available here to a CPU:" in out) == (ran_on != "NVIDIA H100") == ("(as set)" in out)
    assert "--memory GIB" in out and "stem" in out and "no model that can be read" not in out
    assert "as it is set, it fits into 80 GiB" in run("show", trial.id, "--memory", "80").out
    Store(tmp_path / "runs").finish(trial.id, record | Failure("error", "it broke").outcome)
    assert "(as set)" not in run("show", trial.id).out


def test_moments_that_are_shared_out_are_counted_by_their_share() -> None:
    """Of parameters P, AdamW's two moments are 2 P: four devices hold P / 2 of them each. The average stays whole."""
    for ema_decay in (0.0, 0.9):
        words = {"train.microbatches": 4, "run.devices": 4, "train.ema_decay": ema_decay}
        whole, shared = (trial_of(**words, **{"run.sharded_optimizer": shares}) for shares in (False, True))
        saved = fit.need(whole, False).state - fit.need(shared, False).state
        assert saved == 4 * 3 * 2 * folds.count(whole.model) // 4
    alone = trial_of(**{"run.sharded_optimizer": True})
    assert fit.need(alone, False) == fit.need(trial_of(), False) and not Setting.of(alone).shares
