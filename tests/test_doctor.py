"""The doctor's verdicts: each can fail, whatever a device, a driver or a disk does.

The backend `faulty` is PyTorch's with a fault that FAULTY names, installed as another project would install one.
"""

import json
import re
import signal
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from analysis.terminal import doctor_lines
from experiments.bench import memory as bench_memory
from experiments.bench import step
from experiments.bench.rounds import Spread
from experiments.doctor import bits, devices, memory, parts, results, runs, speed, supervise, training
from experiments.doctor.ask import asked as question
from experiments.doctor.ask import present_device
from experiments.doctor.check import Asked, Check, Verdict, differs, not_run, ok
from experiments.doctor.process import asked_json, read_asked
from experiments.doctor.results import Found, Line
from tests.conftest import TIMEOUT_S, backend_package, command, start, wait_until

FAULTY = """
import os
import signal
import time

import numpy as np
import torch

from backends.torch.program import TorchBackend, TorchProgram

FAULT = os.environ.get("FAULTY", "")


class Program(TorchProgram):
    def _gradient(self, step, plans):
        losses, gradient = super()._gradient(step, plans)
        if FAULT == "wrong":
            gradient = gradient * 1.01
        if FAULT == "restless":
            gradient = gradient * (1 + 1e-4 * np.random.default_rng().random())
        if FAULT == "lazy":
            gradient = gradient * 0
        return losses, gradient

    def train(self, plans):
        if FAULT == "hangs":
            print("waiting for the driver", flush=True)
            time.sleep(3600)
        if FAULT == "out of memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if FAULT == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().train(plans)


class Backend(TorchBackend):
    name = "faulty"

    def open(self, model, optimizer, dataset, run):
        super().open(model, optimizer, dataset, run)
        return Program(model, optimizer, dataset, run)


BACKEND = Backend()
"""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder for PYTHONPATH that holds the backend `faulty`."""
    return str(backend_package(tmp_path_factory.mktemp("faulty"), "faulty", FAULTY))


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked("cpu", ("torch",), {}, tmp_path, tmp_path, short=True)


def examine(folder: Path, faulty: str, fault: str, part: str, backends: str = "faulty") -> dict[str, Verdict]:
    """The verdicts of a part on the faulty backend, by check; the command's exit code says whether there are faults."""
    arguments = ("doctor", "--device", "cpu", "--part", part, "--backend", backends, "--short", "--minutes", "3")
    ended = command(folder, *arguments, PYTHONPATH=faulty, FAULTY=fault)
    (found,) = results.kept(folder / "doctor")
    assert ended.code == (1 if found.num_faults else 0), ended.err
    assert all(str(line.verdict) in ended.out for line in found.lines)
    return {line.name: line.verdict for line in found.lines}


def test_parity_names_the_rung_of_a_wrong_gradient(tmp_path: Path, faulty: str) -> None:
    verdicts = examine(tmp_path, faulty, "wrong", "parity", "torch,faulty")
    sound = verdicts.pop("torch:float64:cpu against torch:float64:cpu")
    assert sound.word == "ok" and "rungs" in sound.text
    between = verdicts["torch:float64:cpu against faulty:float64:cpu"]
    assert between.word == "differs" and between.is_fault
    assert "first at the rung gradients: gradient of head/bias" in between.text
    seen, allowed = between.figures["rungs"]["gradients"]
    assert seen == pytest.approx(0.01, rel=0.1) and allowed == 1e-11
    assert "float32" in str(verdicts)


def test_bits_that_do_not_repeat_are_told_and_replicas_too(tmp_path: Path, faulty: str) -> None:
    verdicts = examine(tmp_path, faulty, "restless", "bits")
    assert list(verdicts) == [
        f"faulty: {kind}" for kind in ("the same trial twice", "killed and resumed", "4 replicas")
    ]
    assert verdicts["faulty: the same trial twice"].word == "differs"
    assert re.match(
        r"killed at step 20, resumed at step 1\d: \d+ of 30 arrays", verdicts["faulty: killed and resumed"].text
    )
    assert verdicts["faulty: killed and resumed"].word == "differs"


def test_replicas_that_part_from_the_trial_alone_differ(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"replicas": bits.NUM_REPLICAS}
    monkeypatch.setattr(runs, "train", lambda *_: [record])
    monkeypatch.setattr(bits, "_alone", lambda backend, asked, seed: {"head/bias": np.full(3, 1.0 + seed)})
    monkeypatch.setattr(bits, "_weights", lambda *_: {"head/bias": np.full(3, 1.0)})  # seed 0 in each place
    monkeypatch.setattr(bits, "largest_difference", lambda a, b: 0.5 * (a["head/bias"] != b["head/bias"]).any())
    verdict = next(check for check in bits.checks(asked) if "replicas" in check.name).look()
    assert str(verdict) == "differs: by 5.0e-01 from the trial alone; 1e-03 is allowed"
    record["replicas"] = 2
    verdict = next(check for check in bits.checks(asked) if "replicas" in check.name).look()
    assert verdict == not_run("2 trained together, and not 4", is_fault=True)


def test_a_model_that_does_not_learn_misses_the_known_accuracy(tmp_path: Path, faulty: str) -> None:
    verdict = examine(tmp_path, faulty, "lazy", "training")["faulty: digits"]
    assert verdict.word == "differs" and verdict.figures["accuracy"] < 0.3
    assert f"{training.KNOWN:.1%} are known" in verdict.text


def test_the_known_accuracy_is_reached(tmp_path: Path, faulty: str) -> None:
    assert examine(tmp_path, faulty, "", "training")["faulty: digits"].word == "ok"


def test_a_device_without_memory_is_a_verdict(tmp_path: Path, faulty: str) -> None:
    verdict = examine(tmp_path, faulty, "out of memory", "training")["faulty: digits"]
    assert verdict == not_run("OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", is_fault=True)


def test_a_crash_is_a_verdict(tmp_path: Path, faulty: str) -> None:
    verdict = examine(tmp_path, faulty, "crashes", "training")["faulty: digits"]
    assert verdict == not_run("its process was killed by signal SIGSEGV", is_fault=True)


def looked(monkeypatch: pytest.MonkeyPatch, faulty: str, fault: str, asked: Asked, limit_s: float) -> Verdict:
    """What the doctor says of a training that may take so long."""
    monkeypatch.setenv("PYTHONPATH", faulty)
    monkeypatch.setenv("FAULTY", fault)
    asked = replace(asked, backends=("faulty",))
    (check,) = training.checks(asked)
    return supervise.look("training", replace(check, limit_s=limit_s), asked, TIMEOUT_S)


def test_a_hang_is_killed_with_all_that_it_started(asked: Asked, faulty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    verdict = looked(monkeypatch, faulty, "hangs", asked, 12.0)
    assert verdict.is_fault and verdict.text.startswith("it had not ended after 12 s, and was killed")
    wait_until(lambda: {one.pid for one in psutil.Process().children(recursive=True)} <= before, "the end of all")


def test_a_check_that_its_part_has_no_time_for_is_no_fault(
    asked: Asked, faulty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (check,) = training.checks(asked)
    verdict = supervise.look("training", check, asked, 0.5)
    assert not verdict.is_fault and verdict.text.startswith("it was stopped after 0 s, when the part's time was over")


@pytest.mark.parametrize(("enough_s", "is_first"), [(0.5, False), (60.0, True)])
def test_a_check_that_had_the_time_of_a_sound_machine_may_hang(
    asked: Asked, faulty: str, enough_s: float, is_first: bool
) -> None:
    """Else a hang in a part whose time is shorter than its checks' limits would leave no fault behind."""
    (check,) = training.checks(asked)
    verdict = supervise.look("training", replace(check, enough_s=enough_s), asked, 0.5, is_first)
    assert verdict.is_fault and verdict.text.endswith("give more --minutes: it may hang")


def test_a_process_that_is_killed_asks_whether_its_memory_was_out() -> None:
    verdict = supervise._none(-signal.SIGKILL, 60.0, "loading")
    assert verdict == not_run(
        "its process was killed by SIGKILL: was its memory out?; its last words: loading", is_fault=True
    )
    assert supervise._none(3, 60.0, "").text == "its process ended with exit code 3"


def test_nothing_outlives_a_doctor_that_is_killed(tmp_path: Path, faulty: str) -> None:
    process = start(
        tmp_path, "doctor", "--part", "training", "--backend", "faulty", "--device", "cpu",
        PYTHONPATH=faulty, FAULTY="hangs",
    )  # fmt: skip
    family: list[psutil.Process] = []

    def is_at_work() -> bool:
        family[:] = psutil.Process(process.pid).children(recursive=True)
        return len(family) >= 2  # the check and its worker

    wait_until(is_at_work, "a worker")
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=TIMEOUT_S)
    assert not alive


def test_an_estimate_that_is_too_low_differs(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    check = memory.checks(asked)[0]
    for estimate, word in ((79, "differs"), (81, "ok"), (124, "ok"), (126, "differs")):
        measured = bench_memory.Measured(estimate * 2**20, 100 * 2**20)
        monkeypatch.setattr(bench_memory, "measure", lambda *_, measured=measured: measured)
        assert check.look().word == word
    assert check.look().text == "estimate 126 MiB, peak 100 MiB, ratio 1.26"


def test_a_step_that_beats_the_ceiling_was_not_timed_right(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(share: float) -> list[step.Measurement]:
        spread = {"train": Spread(share, share, share)}
        return [step.Measurement("torch", spread, spread, spread, "torch", spread, 1.0, {}, {})]

    check = speed.checks(asked)[0]
    for share, word in ((0.5, "ok"), (1.2, "differs")):
        monkeypatch.setattr(step, "measure", lambda *_, share=share: measure(share))
        assert check.look().word == word


@pytest.mark.parametrize(("device", "precision"), [("cpu", "tf32"), ("tpu", "tf32"), ("tpu", "float64")])
def test_a_precision_that_a_device_lacks_is_not_run_and_is_no_fault(asked: Asked, device: str, precision: str) -> None:
    checks = parts.checks("parity", replace(asked, short=False, device=device, backends=("jax",)))
    verdict = next(check for check in checks if f":{precision}:{device}" in check.name).look()
    assert verdict.word == "not run" and not verdict.is_fault and verdict.text.startswith(f"{precision} needs a C")


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("device", ["cpu", "cuda", "tpu"])
def test_every_part_has_checks_of_different_names(asked: Asked, device: str, short: bool) -> None:
    asked = replace(asked, device=device, short=short, backends=("torch", "jax"))
    for part in parts.NAMES:
        names = [check.name for check in parts.checks(part, asked)]
        assert names and len(set(names)) == len(names)


def test_what_was_asked_goes_through_json(asked: Asked) -> None:
    asked = replace(asked, pythons={"jax": "/python"}, absent=("jax",))
    assert read_asked(json.loads(json.dumps(asked_json(asked)))) == asked


def doctor(asked: Asked, monkeypatch: pytest.MonkeyPatch, limit_s: float, *checks: Check) -> list[Found]:
    """Run a doctor whose parts `machine` and `bits` are some checks."""
    monkeypatch.setattr(parts, "checks", lambda name, asked: list(checks))
    monkeypatch.setattr(supervise, "look", lambda part, check, asked, left_s, is_first: check.look())
    return supervise.Doctor(asked, ("bits", "machine"), limit_s, lambda found, check: None).run()


def test_parts_run_in_their_order_and_leave_their_time_to_later_ones(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = doctor(asked, monkeypatch, 100.0, Check("a", lambda: ok("fine")))
    assert [one.part for one in found] == ["machine", "bits"]
    assert found[0].limit_s == pytest.approx(100 / 3, abs=1) and found[1].limit_s == pytest.approx(100, abs=1)


def test_what_does_not_fit_into_the_minutes_is_said(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor(asked, monkeypatch, 1.0, Check("a", ok), Check("b", ok))
    texts = [line.verdict.text for one in found for line in one.lines]
    assert len(texts) == 4 and all("s of this part were over; try --part" in text for text in texts)
    # Of each part nothing at all was found out, which must not pass for a sound machine.
    assert [line.verdict.is_fault for one in found for line in one.lines] == [True, False, True, False]


def test_what_needs_a_device_that_is_not_usable_is_not_tried(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Check("torch: device", lambda: differs("no driver"), unlocks="torch")
    others = [Check("torch: digits", ok), Check("jax:float64:cuda against torch:float64:cuda", ok), Check("jax: x", ok)]
    found = doctor(asked, monkeypatch, 100.0, device, *others)
    seen = not_run("see machine: torch: device")
    assert [line.verdict for line in found[0].lines] == [differs("no driver"), seen, seen, ok()]
    assert results.num_faults(found) == 1, "one cause is one fault"


def test_a_device_short_of_memory_is_used_all_the_same(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    short = differs("expected 2 GiB free", devices=[{"kind": "H100"}])
    found = doctor(asked, monkeypatch, 100.0, Check("a: device", lambda: short, unlocks="a"), Check("a: digits", ok))
    assert found[0].lines[-1].verdict == ok()


def test_torch_is_left_out_on_a_tpu_unless_it_is_asked_for(tmp_path: Path) -> None:
    given = {"device": "tpu", "backend": None, "python": [], "out": tmp_path, "short": True}
    assert question(Namespace(**given)).backends == ("jax",)
    assert question(Namespace(**{**given, "device": "cpu"})).backends == ("jax", "torch")
    assert question(Namespace(**{**given, "backend": "torch"})).backends == ("torch",)


def test_results_are_there_after_each_check(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def second() -> Verdict:
        kept = results.kept(asked.folder)[-1]
        assert [line.verdict for line in kept.lines] == [ok("first", number=1)]
        return ok("second")

    first = Check("a", lambda: ok("first", number=1))
    found = doctor(asked, monkeypatch, 100.0, first, Check("b", second))
    assert results.kept(asked.folder) == [replace(one, about=json.loads(json.dumps(one.about))) for one in found]


def test_a_folder_that_cannot_be_written_is_one_sentence(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results, "replace", full)
    with pytest.raises(
        Exception, match=r"^doctor: cannot write .*: no space is left; choose another place with --out$"
    ):
        doctor(asked, monkeypatch, 100.0, Check("a", ok))


def test_a_page_holds_the_parts_of_earlier_calls_and_leaves_out_what_is_damaged(tmp_path: Path) -> None:
    about = {
        "device": "cuda",
        "processor": "x",
        "cores": 2,
        "host": "n1",
        "commit": "abc",
        "dirty": True,
        "python": "3",
    }
    about["short"] = False
    results.keep(tmp_path, Found("bits", about, 0.0, 1.0, [Line("torch: twice", ok("equal"), 1.0)]))
    results.keep(tmp_path, Found("machine", about, 0.0, 1.0, [Line("disk", not_run("a | b\nc"), 1.0)]))
    (tmp_path / "speed.json").write_text("{")
    kept = results.kept(tmp_path)
    assert [found.part for found in kept] == ["machine", "bits"]
    page = doctor_lines.page(kept)
    assert "| disk | not run | a \\| b c | 1 |" in page and "| torch: twice | ok | equal | 1 |" in page
    assert "2 checks: 1 ok, 1 not run; no faults." in page


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--part", "sped"], "--part: expected a part, got 'sped'; allowed: machine, parity, bits, memory, speed, "),
        (["--minutes", "0"], "--minutes: expected more than 0, got 0"),
        (["--minutes", "nan"], "--minutes: expected more than 0, got nan"),
        (["--backend", ""], "--backend: expected a backend, or several with commas, got nothing"),
        (["--backend", "trch"], "expected the name of a backend, got 'trch'"),
        (["--device", "gpuu"], "--device: expected a device, got 'gpuu'"),
        (["--python", "jax=/none"], "--python: expected backend=path with the path of an interpreter"),
    ],
)
def test_a_wrong_option_is_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    ended = command(tmp_path, "doctor", *arguments)
    assert ended.code == 2 and sentence in ended.err and len(ended.err.splitlines()) == 1


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = command(tmp_path, "doctor", "--out", "file/doctor")
    assert ended.code == 2 and "--out: cannot make" in ended.err and "a part of the path is a file" in ended.err


def test_the_device_is_told_by_the_files_of_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "FOLDER", tmp_path)
    (tmp_path / "nvidiactl").touch()  # of the driver itself
    assert present_device() == "cpu"
    (tmp_path / "accel0").touch()
    assert present_device() == "tpu"
    (tmp_path / "nvidia3").touch()  # a container that is given the fourth alone
    assert present_device() == "cuda"


def test_a_killer_waits_until_the_trial_can_go_on(asked: Asked) -> None:
    store = runs.store(asked, "empty")
    killer = runs.Killer(store, 1)
    from experiments.running.events import Stepped

    killer.on_event(None, Stepped("0" * 12, 5, 10, 1.0, 1.0))  # type: ignore[arg-type]
    assert not killer.killed_at
