"""Whether a trial fits into the memory of its device or of the machine."""

from backends import footprint
from backends.arrays import Array
from backends.contract import PREDICT_BATCH, ArrayDataset, Backend, DataSize
from backends.footprint import EVALUATION, SAVING, STEP, Need, Work
from backends.models import folds
from backends.specs import RunSpec
from experiments.data import stored_form
from experiments.data.ahead import Room
from experiments.machine import memory
from experiments.running import fitting
from experiments.running.failures import DoesNotFit
from experiments.spec.config import AUTO
from experiments.spec.trial import Trial
from experiments.training import host
from experiments.training.plan import step_plan

GIB = 2**30


def need(
    trial: Trial, on_host: bool, is_placed: bool = False, num_replicas: int = 1, streams: bool | None = None
) -> Need:
    """What a trial needs at its peak, by its model's layers.

    Args: on_host: it runs on the CPU.    is_placed: its images lie on the device already.
          streams: pixels come as it trains; None: as `data.storage` says, and auto by the memory that is there.
    """
    streams = does_stream(trial) if streams is None else streams
    work = Work(
        trial.train.precision,
        trial.train.batch_size // trial.train.microbatches,
        PREDICT_BATCH,
        remat=trial.run.remat,
        data_bytes=0 if is_placed and not streams else data_bytes(trial, num_replicas, streams),
        num_replicas=num_replicas,
        waiting=_waiting(trial),
        num_shares=trial.run.devices if trial.run.sharded_optimizer else 1,
        saves_beside=trial.run.devices > 1,
        backend=trial.backend,
        on_host=on_host,
    )
    return footprint.need(trial.model, trial.optimizer, work)


def _waiting(trial: Trial) -> int:
    """Gradients that a process holds beside the one that it makes: see backends.microbatches."""
    in_tree = (trial.train.microbatches // trial.run.devices).bit_length() - 1
    return in_tree + (2 if trial.run.devices > 1 else 0)


def num_decoded(trial: Trial) -> int:
    """Examples of its source: a smaller data.fraction decodes no fewer."""
    info = trial.info
    return round(info.num_train / trial.data.fraction) + info.num_validation + info.num_test


def images_bytes(trial: Trial) -> int:
    """Bytes of all images in memory: for inception crops as they are stored, else framed."""
    stored = stored_form.stored_bytes(trial.data.source, trial.info.content) if trial.data.augment.inception else None
    return _decoded_bytes(trial) if stored is None else stored


def _decoded_bytes(trial: Trial) -> int:
    """Bytes of the decoded images, framed."""
    return num_decoded(trial) * trial.info.image_size**2 * trial.info.image_channels


def does_stream(trial: Trial) -> bool:
    """Whether pixels come as it trains, as far as it can be told without the data."""
    asked = trial.data.storage
    if host.needed(trial.data.augment) or asked in ("disk", "encoded"):
        return True
    return asked == AUTO and _decoded_bytes(trial) > memory.available_bytes()


def data_bytes(trial: Trial, num_replicas: int = 1, streams: bool | None = None) -> int:
    """Bytes of all images, or of the pixels of the steps that are held at a time; see `need`."""
    streams = does_stream(trial) if streams is None else streams
    return num_replicas * Room.of(trial).num_bytes if streams else _decoded_bytes(trial)


def known_bytes(
    backend: Backend, trial: Trial, dataset: ArrayDataset, examples: Array, run: RunSpec, num_replicas: int = 1
) -> int | None:
    """What a backend says of the memory that such trials need as one program, with the images; None: it cannot.

    Args: examples: int32 (n,), the training examples as indices into the images.
    """
    streams = not len(dataset.images)
    steps = Room.of(trial).chunk if streams else 0
    size = DataSize(len(dataset.labels), str(dataset.images.dtype), dataset.pixel_order is not None, steps)
    plan = step_plan(trial, examples, 0, 1)
    return backend.memory_bytes(trial.model, trial.optimizer, size, plan, run, num_replicas)


def check(
    trial: Trial,
    free_bytes: int | None,
    is_placed: bool = False,
    known: int | None = None,
    num_replicas: int = 1,
    streams: bool = False,
    num_processes: int = 1,
) -> int:
    """Hold the estimate of what a trial needs against the memory that is there.

    Args:    free_bytes: of its device; None: it uses the machine's own.
             is_placed: its images lie on the device already.
             known: see `known_bytes`; None: the layers' estimate counts.
             streams: pixels come as it trains.
             num_processes: on this machine that train it together.
    Returns: the estimate.
    Raises:  DoesNotFit: gives both numbers.
    """
    memory.give_back()
    # On a CPU they are in one memory, and each looks before the others have begun.
    free = memory.available_bytes() // num_processes if free_bytes is None else free_bytes
    estimate = need(trial, free_bytes is None, is_placed, num_replicas, streams)
    needed = estimate.total if known is None else known - (is_placed and not streams) * _decoded_bytes(trial)
    if free >= needed:
        return needed
    # A compiled program gives a sum alone: what the layers say of its parts may be far from it.
    what = f"a step of train.batch_size {trial.train.batch_size} or an evaluation" if known else _what(trial, estimate)
    largest = "" if known else f"; {_largest(estimate)}"
    whose = f" for each of {num_processes} processes" if free_bytes is None and num_processes > 1 else ""
    # A compiled program may need another amount than the layers' estimate: settings are held against it by its share.
    share = needed / estimate.total
    setting = fitting.least_change(
        trial, lambda one: share * need(one, free_bytes is None, is_placed, num_replicas, streams).total <= free
    )
    remedy = f"{setting.words(trial)} would fit" if setting else f"set {less(trial, estimate)}"
    raise DoesNotFit(
        f"{what} needs {needed / GIB:.1f} GiB ({folds.count(trial.model):,} parameters) and {free / GIB:.1f} GiB are "
        f"free{whose}{largest}; nothing was allocated; {remedy}, or take a device with more"
    )


def _what(trial: Trial, estimate: Need) -> str:
    return {
        STEP: f"a step of train.batch_size {trial.train.batch_size}",
        EVALUATION: f"an evaluation of {PREDICT_BATCH} images",
        SAVING: "training while a checkpoint is written" if trial.run.devices > 1 else "loading or saving its state",
    }[estimate.peak]


def _largest(estimate: Need) -> str:
    """What takes the most: `the activations are the largest part, 1.2 GiB`."""
    parts = {"state": estimate.state, "activations": estimate.activations, "data": estimate.data}
    name = max(parts, key=lambda part: parts[part])
    return f"most of it is the {name}, {parts[name] / GIB:.1f} GiB"


def less(trial: Trial, estimate: Need) -> str:
    """Which settings need less."""
    if max(estimate.state, estimate.data) > estimate.activations:
        return "a smaller model" if estimate.state > estimate.data else "a smaller data.image_size"
    if estimate.peak == EVALUATION:
        return "a smaller model"
    return f"{'' if trial.run.remat else 'run.remat=true, '}a smaller train.batch_size or model"
