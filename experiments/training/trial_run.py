"""One trial while it trains: how far it is, its files, what it tells. The loop that drives it: training/loop.py."""

import json
import math
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from backends.arrays import State
from backends.contract import StepMetrics
from backends.errors import Diverged
from backends.models import folds
from backends.state import state_shapes
from experiments.data import Splits
from experiments.files import finite, set_aside, write_whole
from experiments.results import checkpoint, curves, first_layers, kept, predictions
from experiments.results.claims import Claim, ClaimLost
from experiments.results.crc import crc
from experiments.results.metrics import (
    BEST,
    EACH_SEED,
    EXCHANGE_SECONDS,
    FINITE,
    LAST,
    LEARNING_RATE,
    SECONDS,
    STEP,
    STEP_LOSS,
    WAIT_SECONDS,
)
from experiments.results.store import CHECKPOINT, Store
from experiments.spec.trial import Trial
from experiments.training import probe
from experiments.training.evaluate import Evaluation
from experiments.training.events import Evaluated, Noted, Stepped, Tell
from experiments.training.plan import learning_rates
from experiments.training.start import initial_state
from experiments.training.transfer import begun_state

WRITER = ThreadPoolExecutor(1, "checkpoint")  # of checkpoints that are written beside the training
Point = Mapping[str, Evaluation | None]  # by split; None: it has no examples


@dataclass
class Progress:
    """What a checkpoint holds beside the arrays."""

    step: int = 0
    loss_sum: float = 0.0  # over the steps since the last evaluation
    curve: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SECONDS, 0.0))
    sessions: list[dict[str, Any]] = field(default_factory=list)  # of each process: see TrialRun.begin
    start: str | None = None  # a line on the weights of elsewhere that it began from

    @property
    def trained_s(self) -> float:
        """Seconds of training by the clock: of the steps, and those that a device waited for pixels or for others."""
        return sum(self.seconds.get(what, 0.0) for what in ("train", WAIT_SECONDS, EXCHANGE_SECONDS))


class TrialRun:
    """One trial in a store. What several that train as one program take together is shared out among them equally."""

    def __init__(
        self,
        trial: Trial,
        store: Store,
        claim: Claim,
        splits: Splits,
        tell: Tell = lambda event: None,
        session: Mapping[str, Any] | None = None,
    ):
        self.trial, self.store, self.claim, self.splits, self.tell = trial, store, claim, splits, tell
        self.session = session or {}  # what the record says of this process
        self.folder = store.folder(trial.id)
        self.progress = Progress()
        self.notes: list[str] = []  # what was set aside
        self.said: dict[int, predictions.Classes] = {}  # by the evaluations of `_steps_to_keep`, where it is known
        self.saved: set[int] = set()  # `_steps_to_keep` when the state was last saved
        self.checkpoint_s, self.last_loss = 0.0, 0.0
        self.bits: str | None = None  # of the last state
        self.saving: Future[None] | None = None  # a checkpoint, beside the training

    def restore(self) -> State:
        """The state of the last checkpoint that is whole, or else the initial one; the progress becomes that of it.

        Raises: NoStart: the weights of elsewhere that it begins from are not there.
        """
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
        kept.drop_saved(self.folder, after=self.progress.step)
        self.saved = self._steps_to_keep
        found = {step: predictions.saved(self.folder, step) for step in self.saved}
        self.said = {step: said for step, said in found.items() if said is not None}
        self.write_curve()
        for note in self.notes:
            self.tell(Noted(self.trial.id, note))
        return state or self._first_state()

    def _first_state(self) -> State:
        if self.trial.train.init_from is None:
            return initial_state(self.trial)
        state, self.progress.start = begun_state(self.trial, self.store)
        self.tell(Noted(self.trial.id, f"trial {self.trial.id} {self.progress.start}"))
        return state

    def begin(self, num_replicas: int) -> None:
        """Note that this process goes on with the trial, with how many trials as one program."""
        session = {"first_step": self.progress.step, "replicas": num_replicas, **self.session}
        self.progress.sessions.append(session)

    def take(self, metrics: StepMetrics) -> None:
        """Count the steps of a chunk.

        Raises: Diverged: a loss is not finite.    ClaimLost.
        """
        for loss in metrics.loss:
            self.progress.step += 1
            if not math.isfinite(loss):
                raise Diverged(self.progress.step)
            self.progress.loss_sum += float(loss)
            self.last_loss = float(loss)
        self.check_claim()

    @property
    def has_point(self) -> bool:
        """Whether the curve has a point of this step."""
        return bool(self.progress.curve) and bool(self.progress.curve[-1][STEP] == self.progress.step)

    def add_point(self, point: Point) -> None:
        """Add a point to the curve, unless it has one of this step.

        Raises: Diverged: a loss is not finite: that of the last step was, and its update led to where nothing is.
        """
        if self.has_point:
            return
        progress, scores = self.progress, {split: one.scores if one else None for split, one in point.items()}
        if not all(math.isfinite(score[FINITE.name]) for score in scores.values() if score):
            raise Diverged(progress.step)
        since = progress.step - (progress.curve[-1]["step"] if progress.curve else 0)
        loss, rate = progress.loss_sum / since, float(learning_rates(self.trial.train, progress.step - 1, 1)[0])
        each_seed = {split: one.each_seed for split, one in point.items() if one and one.each_seed}
        probed = {EACH_SEED: each_seed} if each_seed else {}
        progress.curve.append({STEP: progress.step, STEP_LOSS: loss, LEARNING_RATE: rate, **scores, **probed})
        progress.loss_sum = 0.0
        said = {split: one.classes for split, one in point.items() if one and split in predictions.KEPT_SPLITS}
        self.said = {step: x for step, x in {**self.said, progress.step: said}.items() if step in self._steps_to_keep}
        self.tell(Evaluated(self.trial.id, progress.step, loss, rate, scores))

    def is_to_save_best(self) -> bool:
        """Whether the last point is the best so far, and its weights are to be kept."""
        return self._saves_best and self._best_step() == self.progress.curve[-1]["step"]

    def save_best(self, state: State) -> None:
        """Save the weights, if `is_to_save_best`. Raises: StoreError."""
        if self.is_to_save_best():
            self.finish_saving()  # which drops the weights of other steps than those that it knows
            kept.save_best(self.folder, self.trial, self.splits.classes, state, self.progress.step)

    def write_curve(self) -> None:
        """Raises: StoreError."""
        lines = "".join(f"{_json_line(point)}\n" for point in self.progress.curve)
        write_whole(self.folder / curves.FILE, lines.encode())

    def say(self, images_per_s: float, waiting: float = 0.0) -> None:
        """Tell how far the trial is. Raises: ClaimLost."""
        step, num_steps = self.progress.step, self.trial.num_steps
        stepped = Stepped(self.trial.id, step, num_steps, self.last_loss, images_per_s, waiting)
        self.claim.say(stepped.step, stepped.num_steps, stepped.loss, stepped.images_per_s, stepped.waiting)
        self.tell(stepped)
        self.check_claim()

    def save(self, state: State, beside: bool = False) -> None:
        """Write a checkpoint.

        Args:   beside: return at once; `finish_saving` tells what becomes of it.
        Raises: StoreError: also of one before that was written beside the training.
        """
        self.finish_saving()
        for step in self.said.keys() - self.saved:
            predictions.save(self.folder, step, self.said[step])
        progress, steps = asdict(self.progress), self._steps_to_keep
        if self.progress.start is None:
            del progress["start"]  # an earlier version of Mixlab knows no such key

        def write() -> None:
            checkpoint.write(self.folder / CHECKPOINT, state, progress)
            before, self.saved = self.saved, steps  # of the two checkpoints that are there now
            kept.drop_saved(self.folder, but=before | steps)

        if beside:
            self.saving = WRITER.submit(write)
        else:
            write()

    def finish_saving(self) -> None:
        """Wait for a checkpoint that is written beside the training.  Raises: StoreError: it could not be written."""
        if self.saving is not None:
            saving, self.saving = self.saving, None
            saving.result()

    def check_claim(self) -> None:
        """Raises: ClaimLost: another process has taken the trial over, and what is in its folder is that one's."""
        if not self.claim.is_held():
            raise ClaimLost(self.trial.id)

    def keep(self, state: State) -> None:
        """Keep what is asked for of a trial that has been trained to its end. Raises: ClaimLost.    StoreError."""
        self.finish_saving()
        self.check_claim()
        self.bits = crc(state)
        if self.store.recorded_status(self.trial.id) == "done":
            return None  # an owner that had lost its claim was faster: what is kept are the weights of its record
        first_layers.keep(self.folder, self.trial, state)
        self._keep_predictions()
        if self.trial.run.keep == "none":
            return kept.forget(self.folder)
        if not self._saves_best:
            return kept.keep_last(self.folder, self.trial, self.splits.classes, state)
        if sentence := kept.keep_best(self.folder, self.trial, self._best_step() or 0):
            self.notes.append(sentence)

    @property
    def spent(self) -> dict[str, float]:
        """Seconds by phase; those of a process before this one that has trained the same trial are counted too."""
        return {**self.progress.seconds, "checkpoint": self.checkpoint_s}

    def result(self, peak_memory_bytes: int) -> dict[str, Any]:
        """The part of the record that the training made.

        Of trials that trained as one program, the seconds are each one's share, images_per_s is of that, which is
        the rate of all of them together, and the memory is that of all of them.
        """
        progress, trial = self.progress, self.trial
        macs = folds.forward_macs(trial.model)
        images = progress.step * trial.train.batch_size
        return {
            "steps": progress.step,
            **({"start": progress.start} if progress.start else {}),
            **({"bits": self.bits} if self.bits else {}),
            "sessions": progress.sessions,
            # the most that trained with it, itself counted: where it is 1, the bits are those of the trial alone
            "replicas": max((session.get("replicas", 1) for session in progress.sessions), default=1),
            "seconds": progress.seconds,
            "images_per_s": images / trained_s if (trained_s := progress.trained_s) else None,
            "parameters": folds.count(trial.model),
            "forward_flops_per_image": 2 * macs,
            "training_flops": folds.training_flops(trial.model, images),
            "peak_memory_bytes": peak_memory_bytes,
            "metrics": {**dict.fromkeys((LAST, BEST)), **self._named_points},
            **({"probe": probe.about(trial.run.shots)} if trial.run.shots else {}),
            "notes": self.notes,
            "curve": progress.curve,
        }

    def _keep_predictions(self) -> None:
        steps = {when: point[STEP] for when, point in self._named_points.items()}
        said = {when: self.said[step] for when, step in steps.items() if step in self.said}
        predictions.keep(self.folder, self.splits, self.trial.info.content, said)
        for when in [when for when in steps if when not in said]:
            path = predictions.saved_path(self.folder, steps[when])
            self.notes.append(f"store: {path} is gone or damaged; no predictions are kept of the {when} evaluation")

    @property
    def _named_points(self) -> dict[str, dict[str, Any]]:
        """The last and the best point of the curve, once there is one."""
        curve = self.progress.curve
        return {LAST: curve[-1], BEST: curves.best(curve) or curve[-1]} if curve else {}

    @property
    def _steps_to_keep(self) -> set[int]:
        """Steps of the evaluations whose predictions, and of whose best one the weights, belong to a checkpoint."""
        return {int(point[STEP]) for point in self._named_points.values()}

    @property
    def _saves_best(self) -> bool:
        """Whether the best weights may be others than the last; see curves.best."""
        return self.trial.run.keep == "best" and len(self.splits.validation) > 0

    def _best_step(self) -> int | None:
        point = curves.best(self.progress.curve)
        return int(point["step"]) if point else None


def _json_line(point: dict[str, Any]) -> str:
    return json.dumps(finite(point), sort_keys=True, allow_nan=False)
