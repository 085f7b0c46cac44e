"""The one loop: train, evaluate, checkpoint, resume, stop; a trial goes in and a record comes out."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from backends.arrays import State
from backends.contract import Program, StepMetrics
from backends.errors import Diverged
from backends.models import folds
from backends.state import state_shapes
from experiments.data import Splits
from experiments.files import finite, set_aside, write_whole
from experiments.machine import memory
from experiments.results import checkpoint, first_layers, kept
from experiments.results.claims import Claim, ClaimLost
from experiments.results.metrics import BEST, CHOOSES, FINITE, LAST, LEARNING_RATE, SECONDS, SPLITS, STEP, STEP_LOSS
from experiments.results.store import CHECKPOINT, Store
from experiments.spec.trial import Trial
from experiments.training.evaluate import evaluate
from experiments.training.events import Evaluated, Noted, Stepped, Tell
from experiments.training.plan import learning_rates, step_plan
from experiments.training.start import initial_state

# A chunk of steps lasts about this long, so that progress is seen and a stop is answered soon.
CHUNK_S = 0.5
MAX_CHUNK_STEPS = 1024


class Stopped(Exception):
    """The trial was asked to stop and has saved its state."""


@dataclass
class Progress:
    """What a checkpoint holds beside the arrays."""

    step: int = 0
    loss_sum: float = 0.0  # over the steps since the last evaluation
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS, 0.0))
    sessions: list[dict[str, Any]] = field(default_factory=list)  # first step, commit and machine of each process


class TrialRun:
    """One trial on one program, in a store."""

    def __init__(self, trial: Trial, store: Store, claim: Claim, splits: Splits, program: Program, session: Any = None):
        self.trial, self.store, self.claim, self.splits, self.program = trial, store, claim, splits, program
        self.session = session or {}  # what the record says of this process
        self.folder = store.folder(trial.id)
        self.progress = Progress()
        self.notes: list[str] = []  # what was set aside
        self.saved_at = time.monotonic()
        self.saved_best: int | None = None  # step of the best point when the state was last saved
        self.step_s = self.checkpoint_s = 0.0
        memory.reset_peak()

    def run(self, should_stop: Callable[[], bool], tell: Tell) -> None:
        """Train to the last step, from the newest whole checkpoint if there is one.

        Args:    should_stop: asked after each chunk of steps.    tell: called with each event.
        Raises:  Stopped: the state is saved.    Diverged: the loss is not finite.    StoreError.    ClaimLost.
        """
        self._restore()
        for note in self.notes:
            tell(Noted(self.trial.id, note))
        if should_stop() and self.progress.step < self.trial.num_steps:
            raise Stopped  # nothing is new since the last checkpoint, and the first chunk may take long to compile
        self.progress.sessions.append({"first_step": self.progress.step, **self.session})
        while self.progress.step < self.trial.num_steps:
            metrics = self._train(self._chunk())
            self._check_claim()
            every = self.trial.train.evaluate_every
            if self.progress.step % every == 0 or self.progress.step == self.trial.num_steps:
                self._evaluate(tell)
            self._tell(metrics, tell)
            self._check_claim()
            if should_stop() and self.progress.step < self.trial.num_steps:
                self._save()
                raise Stopped
            if time.monotonic() - self.saved_at > self.trial.run.checkpoint_every_s:
                self._save()
        self._keep(self.program.states()[0])

    @property
    def spent(self) -> dict[str, float]:
        """Seconds by phase; those of a process before this one that has trained the same trial are counted too."""
        return {**self.progress.seconds, "checkpoint": self.checkpoint_s}

    def result(self) -> dict[str, Any]:
        """The part of the record that the training made."""
        progress, trial = self.progress, self.trial
        macs = folds.forward_macs(trial.model)
        images = progress.step * trial.train.batch_size
        return {
            "steps": progress.step,
            "sessions": progress.sessions,
            "seconds": progress.seconds,
            "images_per_s": images / progress.seconds["train"] if progress.seconds["train"] else None,
            "parameters": folds.count(trial.model),
            "forward_flops_per_image": 2 * macs,
            "training_flops": 6 * macs * images,
            "peak_memory_bytes": self.program.peak_memory_bytes() or memory.peak_bytes(),
            "metrics": {LAST: progress.curve[-1] if progress.curve else None, BEST: best(progress.curve)},
            "notes": self.notes,
            "curve": progress.curve,
        }

    def _check_claim(self) -> None:
        """Raises: ClaimLost: another process has taken the trial over, and what is in its folder is that one's."""
        if not self.claim.is_held():
            raise ClaimLost(self.trial.id)

    def _keep(self, state: State) -> None:
        """Keep what is asked for of a trial that has been trained to its end."""
        self._check_claim()
        if self.store.recorded_status(self.trial.id) == "done":
            return None  # an owner that had lost its claim was faster: what is kept are the weights of its record
        first_layers.keep(self.folder, self.trial, state)
        if self.trial.run.keep == "none":
            return kept.forget(self.folder)
        if not self._saves_best:
            return kept.keep_last(self.folder, self.trial, self.splits.classes, state)
        if sentence := kept.keep_best(self.folder, self.trial, self._best_step() or 0):
            self.notes.append(sentence)

    @property
    def _saves_best(self) -> bool:
        """Whether the best weights may be others than the last; see `best`."""
        return self.trial.run.keep == "best" and len(self.splits.validation) > 0

    def _best_step(self) -> int | None:
        point = best(self.progress.curve)
        return int(point["step"]) if point else None

    def _restore(self) -> None:
        """Load the last checkpoint that is whole, or else the initial state."""
        state, last = None, self.folder / CHECKPOINT
        shapes = state_shapes(self.trial.model, self.trial.optimizer)
        for path in (last, checkpoint.before(last)):
            try:
                state, progress = checkpoint.read(path, shapes)
                self.progress = Progress(**progress)
                break
            except FileNotFoundError:
                continue
            except (checkpoint.CorruptCheckpoint, TypeError) as error:
                state = None
                self.notes.append(f"store: {path} is corrupt: {error}; set aside as {set_aside(path).name}")
        if self.notes:
            self.notes[-1] += f", {f'gone on from step {self.progress.step}' if state else 'started again'}"
        kept.drop_best(self.folder, until=self.progress.step)
        self.saved_best = self._best_step()
        self.program.load([state or initial_state(self.trial)])
        self._write_curve()

    def _chunk(self) -> int:
        """Steps until the next evaluation or the end, at most half a second's worth."""
        step, every = self.progress.step, self.trial.train.evaluate_every
        until = min(every - step % every, self.trial.num_steps - step)
        affordable = int(CHUNK_S / self.step_s) if self.step_s else 1
        return max(1, min(until, affordable, MAX_CHUNK_STEPS))

    def _train(self, num_steps: int) -> StepMetrics:
        plan = step_plan(self.trial, self.splits.train, self.progress.step, num_steps)
        start, compiled = time.monotonic(), self.program.compile_s
        metrics = self.program.train([plan])[0]
        seconds = self._spend("train", start, compiled)
        # a chunk that compiled says nothing of what a step takes
        self.step_s = seconds / num_steps if self.program.compile_s == compiled else 0.0
        for loss in metrics.loss:
            self.progress.step += 1
            if not math.isfinite(loss):
                raise Diverged(self.progress.step)
            self.progress.loss_sum += float(loss)
        return metrics

    def _evaluate(self, tell: Tell) -> None:
        progress, train = self.progress, self.trial.train
        start, compiled = time.monotonic(), self.program.compile_s
        since = progress.step - (progress.curve[-1]["step"] if progress.curve else 0)
        point: dict[str, Any] = {
            STEP: progress.step,
            STEP_LOSS: progress.loss_sum / since,
            LEARNING_RATE: float(learning_rates(train, progress.step - 1, 1)[0]),
        }
        trained = self.splits.train[: train.evaluate_train_examples]
        subsets = dict(zip(SPLITS, (trained, self.splits.validation, self.splits.test), strict=True))
        for name, indices in subsets.items():
            point[name] = evaluate(self.program, self.splits, indices, train.loss) if len(indices) else None
            if point[name] and not math.isfinite(point[name][FINITE.name]):
                raise Diverged(progress.step)  # the loss was finite, and its step led to where nothing is
        progress.curve.append(point)
        progress.loss_sum = 0.0
        self._spend("evaluate", start, compiled)
        if self._saves_best and best(progress.curve) is point:
            state = self.program.states()[0]
            kept.save_best(self.folder, self.trial, self.splits.classes, state, progress.step)
        self._write_curve()
        scores = {name: point[name] for name in subsets}
        tell(Evaluated(self.trial.id, progress.step, point[STEP_LOSS], point[LEARNING_RATE], scores))

    def _spend(self, what: str, start: float, compiled: float) -> float:
        """Book the time since `start`, compilation apart; returns the seconds without it."""
        compile_s = self.program.compile_s - compiled
        seconds = time.monotonic() - start - compile_s
        self.progress.seconds[what] += seconds
        self.progress.seconds["compile"] += compile_s
        return seconds

    def _tell(self, metrics: StepMetrics, tell: Tell) -> None:
        images_per_s = self.trial.train.batch_size / self.step_s if self.step_s else 0.0
        stepped = Stepped(
            self.trial.id, self.progress.step, self.trial.num_steps, float(metrics.loss[-1]), images_per_s
        )
        self.claim.say(stepped.step, stepped.num_steps, stepped.loss, stepped.images_per_s)
        tell(stepped)

    def _save(self) -> None:
        start = time.monotonic()
        checkpoint.write(self.folder / CHECKPOINT, self.program.states()[0], asdict(self.progress))
        before, self.saved_best = self.saved_best, self._best_step()  # of the two checkpoints that are there now
        kept.drop_best(self.folder, but=[step for step in (before, self.saved_best) if step is not None])
        self.saved_at = time.monotonic()
        self.checkpoint_s += time.monotonic() - start

    def _write_curve(self) -> None:
        lines = "".join(f"{_json_line(point)}\n" for point in self.progress.curve)
        write_whole(self.folder / "metrics.jsonl", lines.encode())


def best(curve: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first point that is best on validation; without a validation split, the last point."""
    if not curve or curve[-1]["validation"] is None:
        return curve[-1] if curve else None
    better = max if CHOOSES.higher_is_better else min
    return better(curve, key=lambda point: point["validation"][CHOOSES.name])


def _json_line(point: dict[str, Any]) -> str:
    return json.dumps(finite(point), sort_keys=True, allow_nan=False)
