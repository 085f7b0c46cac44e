"""What the tests share: small ablations, the command line in this process and in others, and a backend of few lines.

The backend `quick` is installed for a test as another project would install one: a package with an entry point. It
computes in NumPy at once, so that tests of the store and of processes need not wait for a framework. QUICK_STEP_S makes
its device slow, QUICK_LOG names a file that gets a line `first step, number of steps, number of replicas` for each
chunk it trains, and with QUICK_DIES="after the record" its process is killed as soon as a record is written; QUICK_ENDS
names a file that gets the id of each trial that is recorded as done. QUICK_FREE is the free memory of its device, which
is else the machine's own; with QUICK_BREAKS a step of several replicas raises an error, with QUICK_KILLED it kills its
process. A trial whose train.label_smoothing is 0.25 raises an error as it begins, one of 0.5 takes 600 MiB of memory.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

import mixlab
from experiments.design import ablation
from experiments.design import trials as resolving
from experiments.design.ablation import GridTrial
from slurm.testbed.cluster import Cluster
from slurm.testbed.config import Options
from slurm.testbed.daemons import missing
from slurm.testbed.down import down
from slurm.testbed.up import up

if TYPE_CHECKING:
    from tests.slurm_bench import Bench

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the network

ROOT = Path(__file__).parent.parent
MIXLAB = (sys.executable, "-m", "mixlab")  # with environment(), the code of this tree whatever is installed
TIMEOUT_S = 120.0  # of anything that is waited for; a machine under load is slow, and a test must still end

# Files of few and long tests. They are begun first, so that no process is left with one of them at the end.
LONG = {
    "test_kill",
    "test_doctor",
    "test_parity",
    "test_memory_estimate",
    "test_readmes",
    "test_bench",
    "test_trials_together",
    "test_tune_run",
    "test_halving_run",
    "test_parity_faults",
    "test_parity_terms",
    "test_report_scale",
    "test_replicas",
}

TINY: dict[str, Any] = {
    "model": {"hidden_dim": 8, "num_blocks": 1, "patch_size": 4},
    "data": {"source": "synthetic", "image_size": 8, "image_channels": 1, "num_classes": 2, "num_examples": 60},
    "train": {"steps": 6, "batch_size": 8, "evaluate_every": 3},
}

# Parts of a record that tell of the machine and the hour, and not of the result.
PASSING = ("started", "finished", "sessions", "seconds", "images_per_s", "peak_memory_bytes", "notes")
PASSING_ENVIRONMENT = ("commit", "dirty", "snapshot")

QUICK = """
import os
import signal
import time

import numpy as np

from backends.models import folds
from backends.contract import Predictions, StepMetrics
from experiments.results.store import Store


class Program:
    compile_s = 0.0
    exchange_s = 0.0

    def __init__(self, model, group):
        self.model, self.group = model, group

    def load(self, states):
        self.all = [{name: np.array(array, np.float64) for name, array in state.items()} for state in states]

    def states(self, wanted=True):
        return [{name: array.copy() for name, array in state.items()} for state in self.all]

    def train(self, plans):
        assert len(plans) == len(self.all)
        if log := os.environ.get("QUICK_LOG"):
            with open(log, "a") as file:
                file.write(f"{plans[0].first_step} {plans[0].num_steps} {len(plans)}\\n")
        start = time.monotonic()
        time.sleep(plans[0].num_steps * float(os.environ.get("QUICK_STEP_S", "0")))
        self.exchange_s += (time.monotonic() - start) * (self.group.size > 1)
        if self.group.rank and plans[0].first_step >= int(os.environ.get("QUICK_FOLLOWER_FAILS_AT", 2**30)):
            raise RuntimeError("out of memory")
        if len(plans) > 1 and "QUICK_BREAKS" in os.environ:
            raise RuntimeError("together it breaks")
        if len(plans) > 1 and "QUICK_KILLED" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        return [self.train_one(i, plan) for i, plan in enumerate(plans)]

    def train_one(self, i, plan):
        losses, state = [], self.all[i]
        for rate, examples in zip(plan.learning_rate, plan.examples):
            for name, array in state.items():
                state[name] = array * (1 - rate) + rate * np.sin(float(examples.sum()))
            mean = np.mean([np.abs(state[name]).mean() for name in sorted(state)])
            losses.append(np.inf if rate > 1 else mean)
        return StepMetrics(np.array(losses), np.zeros(len(losses)))

    def predict(self, images):
        return [self.predict_one(state, images) for state in self.all]

    def predict_one(self, state, images):
        weight = sum(float(state[name].sum()) for name in sorted(state) if name.startswith("params/"))
        pixels = images.reshape(len(images), -1).astype(np.float64).mean(1, keepdims=True)
        logits = np.sin(weight * pixels + np.arange(self.model.num_classes))
        return Predictions(logits, np.zeros((len(images), self.model.hidden_dim)))

    def peak_memory_bytes(self):
        return None


def note_ends(path):
    # Append the id of each trial that is recorded as done: one that is there twice was run to its end twice.
    finish = Store.finish

    def finish_and_note(self, trial_id, record, claim=None):
        written = finish(self, trial_id, record, claim)
        if written and record["status"] == "done":
            with open(path, "a") as file:
                file.write(trial_id + "\\n")
        return written

    Store.finish = finish_and_note


def die_after_the_record():
    finish = Store.finish

    def finish_and_die(self, trial_id, record, claim=None):
        finish(self, trial_id, record, claim)
        os.kill(os.getpid(), signal.SIGKILL)

    Store.finish = finish_and_die


class Backend:
    name = "quick"

    def join(self, group, address, timeout_s):
        pass

    def open(self, model, optimizer, dataset, run):
        if os.environ.get("QUICK_ENDS") and Store.finish.__name__ == "finish":
            note_ends(os.environ["QUICK_ENDS"])
        if os.environ.get("QUICK_DIES") == "after the record":
            die_after_the_record()
        if optimizer.label_smoothing == 0.25:
            raise RuntimeError("boom")
        if optimizer.label_smoothing == 0.5 and "QUICK_SPARES" not in os.environ:
            self.held = np.ones(600 * 2**17)
            time.sleep(30)
        return Program(model, run.group)

    def free_memory_bytes(self, run):
        return int(os.environ["QUICK_FREE"]) if "QUICK_FREE" in os.environ else None

    def memory_bytes(self, model, optimizer, data, plan, run, num_replicas=1):
        return None

    def about(self, run):
        name = {"cuda": "CUDA_VISIBLE_DEVICES", "tpu": "TPU_VISIBLE_CHIPS"}.get(run.device)
        return {"device": f"{run.device} sees {os.environ.get(name)}" if name else "none"}


BACKEND = Backend()
"""


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str


def write_yaml(path: Path, **keys: Any) -> Path:
    """An ablation over two seeds of the smallest trial, with keys replaced; a key of None is left out."""
    tree = {"name": path.stem, "base": TINY, "grid": {"seed": [0, 1]}, **keys}
    path.write_text(yaml.safe_dump({key: value for key, value in tree.items() if value is not None}, sort_keys=False))
    return path


def base(**values: Any) -> dict[str, Any]:
    """The base of the smallest trial, with fields replaced: base(train={"steps": 9}, backend="quick")."""
    merged = {**TINY, **values}
    return {key: {**TINY.get(key, {}), **value} if isinstance(value, dict) else value for key, value in merged.items()}


def planned(path: Path, cache: Path, *overrides: str) -> list[GridTrial]:
    return resolving.trials(ablation.load_ablation(path, overrides), cache)


def environment(**variables: str) -> dict[str, str]:
    """Of a command in a process of its own: it imports from PYTHONPATH, then from this tree, not from its folder."""
    folders = (variables.pop("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", ""))
    path = os.pathsep.join(filter(None, folders))
    return {**os.environ, "COLUMNS": "300", "PYTHONPATH": path, "PYTHONSAFEPATH": "1", **variables}


def start(folder: Path, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    """Begin a command in a process group of its own, as a shell does."""
    return subprocess.Popen(
        [*MIXLAB, *arguments],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


# Python that runs a command with the words of sys.argv, and prints the most memory that it took, in KiB, on stderr.
# It is read from /proc: what getrusage says of a process begins with what its parent had taken.
MEASURED = """
import re, sys
import mixlab
code = mixlab.main(sys.argv[1:])
sys.stdout.flush()
print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""


def end(process: "subprocess.Popen[str]") -> Ended:
    """Wait for the end of a command."""
    try:
        out, err = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_tree(process.pid)
        out, err = process.communicate()
        raise AssertionError(f"the command did not end in {TIMEOUT_S} s; it wrote:\n{out}\n{err}") from None
    return Ended(process.returncode, out, err)


def command(folder: Path, *arguments: str, **variables: str) -> Ended:
    """Run a command in a process of its own to its end."""
    return end(start(folder, *arguments, **variables))


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """What the condition gives as soon as that is true; fails after the timeout."""
    limit = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() > limit:
            raise AssertionError(f"waited {timeout_s} s in vain until {what}")
        time.sleep(0.005)
    return answer


def kill_tree(pid: int) -> None:
    """End a process and all below it."""
    try:
        process = psutil.Process(pid)
        below = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    for one in (process, *below):
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue


def workers(pid: int) -> list[int]:
    """Processes that train for a command: those that it has spawned, not the one that tracks its resources."""
    found = []
    try:
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.Error):
                if any("spawn_main" in word for word in child.cmdline()):
                    found.append(child.pid)
    except psutil.NoSuchProcess:
        return []
    return found


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def records(store: Path) -> dict[str, dict[str, Any]]:
    """Every record of a store as it is on the disk."""
    return {path.parent.name: json.loads(path.read_text()) for path in store.glob("trials/*/record.json")}


def results(store: Path) -> dict[str, dict[str, Any]]:
    """Every record of a store without what may differ between two runs of one trial."""
    kept = {}
    for key, record in records(store).items():
        kept[key] = {name: value for name, value in record.items() if name not in PASSING}
        about = record["environment"]
        kept[key]["environment"] = {name: about[name] for name in about if name not in PASSING_ENVIRONMENT}
    return kept


def files(store: Path) -> dict[str, tuple[int, int]]:
    """Every file of a store: its size and the time of its last change."""
    found = {path: path.stat() for path in store.rglob("*") if path.is_file()}
    return {path.relative_to(store).as_posix(): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """The command line in this process, in a folder of the test's own: run("plan", "a.yaml").code == 0."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mixlab", *arguments])
        try:
            code = mixlab.main(arguments)
        except SystemExit as ended:  # argparse
            code = int(ended.code or 0)
        return Ended(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def quick_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that holds the backend `quick`."""
    return backend_package(tmp_path_factory.mktemp("quick"), "quick", QUICK)


def backend_package(folder: Path, name: str, code: str) -> Path:
    """Install a backend in a folder for PYTHONPATH, as another project would: a module and an entry point."""
    (folder / f"{name}_backend.py").write_text(code)
    about = folder / f"{name}_backend-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-backend\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[mixlab.backends]\n{name} = {name}_backend:BACKEND\n")
    return folder


@pytest.fixture
def quick(quick_package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The backend `quick`, in this process and in those that it starts; gives the folder for PYTHONPATH."""
    monkeypatch.syspath_prepend(str(quick_package))
    return quick_package


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoded images, shared by the tests of a file."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def fresh_cache(tmp_path: Path) -> Path:
    """Decoded images of one test. A file in which every test begins with none says `cache = fresh_cache`."""
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def digits_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of digits alone, shared by the tests of a file whose other tests begin with an empty cache."""
    return tmp_path_factory.mktemp("digits")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Where a test puts its source of data."""
    return tmp_path / "set"


@pytest.fixture
def started() -> Iterator[list["subprocess.Popen[str]"]]:
    """Commands put in this list are ended with the test, whatever became of it."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        kill_tree(process.pid)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()
        process.wait()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put commands on PATH: fake(squeue="echo ..."); each is a line of shell."""
    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def fake(**scripts: str) -> None:
        for name, script in scripts.items():
            (tools / name).write_text(f"#!/bin/bash\n{script}\n")
            (tools / name).chmod(0o755)

    return fake


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm of four virtual nodes; without Slurm installed, the test is skipped with what is missing."""
    if sentence := missing(accounting=True):
        pytest.skip(sentence)
    with tempfile.TemporaryDirectory(prefix="mixlab-slurm-", dir="/tmp") as folder:  # sockets need a short path
        yield up(folder, Options(settings=("SlurmdTimeout=10",)))
        down(folder)


@pytest.fixture
def bench(slurm_cluster: Cluster, tmp_path: Path, quick_package: Path) -> "Iterator[Bench]":
    """A store beside that cluster, which is left idle."""
    from tests.slurm_bench import Bench

    bench = Bench(slurm_cluster, tmp_path, quick_package)
    yield bench
    bench.clear()
