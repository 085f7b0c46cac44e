"""Estimates of the memory that a training needs at its peak, before anything is allocated: folds over a model's layers.

What was measured, and how to repeat it: analysis/results/memory.md.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from backends.models.family import Layer
from backends.models.folds import count, layers, shapes
from backends.specs import ModelSpec, OptimizerSpec
from backends.state import state_size

STEP, EVALUATION, SAVING = "a step", "an evaluation", "loading or saving its state"
DRAWN = 8  # bytes of a number of the state on the host, before it is rounded


@dataclass(frozen=True)
class Facts:
    """What a framework's arrays take of the host's memory, on a CPU, where the layers do not say it.

    The first three are the memory of a step, of a step with dropout, and of an evaluation, in units of its arrays: the
    C library keeps what is freed between arrays that live, and products copy their operands into tiles. They lie in the
    middle of what was measured, and are no bounds: equal runs differ by a tenth.
    data_copies: of the decoded images, the pages of the cache's file among them.
    """

    step: float
    dropout: float  # whose masks are made in small parts
    evaluation: float
    data_copies: int


# jax: 1.5 to 2.6, as XLA keeps other values than the layers say. A run of jax is admitted by its compiled program
# (backends/jax/memory.py), a plan shows this.
FACTS = {"torch": Facts(1.5, 1.65, 1.6, data_copies=2), "jax": Facts(2.2, 2.2, 2.2, data_copies=2)}
ARRAYS_ALONE = Facts(1.0, 1.0, 1.0, data_copies=1)  # on a device, whose allocator is the framework's


@dataclass(frozen=True)
class Work:
    """What a training's memory depends on beside its model and its optimizer."""

    precision: str
    batch_size: int  # images of a step, or of each of its microbatches
    evaluation_size: int  # images of a call of an evaluation
    remat: bool = False
    data_bytes: int = 0  # of the decoded images; 0 where they lie on the device already
    num_replicas: int = 1
    waiting: int = 0  # gradients that are held beside the one that is made: sums of microbatches, parts of an exchange
    num_shares: int = 1  # of the moments, of which a process holds one
    backend: str = "torch"
    saves_beside: bool = False  # a checkpoint is written while steps are taken
    on_host: bool = True  # on a CPU: arrays of the host count, and what lies between them


@dataclass(frozen=True)
class Need:
    """The bytes of the largest peak of a training, by what takes them."""

    peak: str  # STEP, EVALUATION or SAVING
    state: int  # parameters and slots, and at this peak their gradients or copies
    activations: int
    data: int

    @property
    def total(self) -> int:
        return self.state + self.activations + self.data


@lru_cache(maxsize=1024)
def need(model: ModelSpec, optimizer: OptimizerSpec, work: Work) -> Need:
    """What a training needs at its largest peak."""
    return max(needs(model, optimizer, work), key=lambda one: one.total)


def needs(model: ModelSpec, optimizer: OptimizerSpec, work: Work) -> list[Need]:
    """What a training needs at each of its peaks.

    With work.on_host a state is held twice as it is loaded, in float64, and three times as a checkpoint is made: on
    the device, as arrays and as the bytes of a file.
    """
    facts = FACTS.get(work.backend, FACTS["torch"]) if work.on_host else ARRAYS_ALONE
    data = facts.data_copies * work.data_bytes
    in_step = facts.dropout if model.dropout else facts.step
    master, _ = _bytes(work.precision)
    params = work.num_replicas * sum(map(prod, shapes(model).values()))
    whole, state = (work.num_replicas * master * state_size(model, optimizer, n) for n in (1, work.num_shares))
    peaks = [
        Need(STEP, state, round(in_step * _step_bytes(model, work)), data),
        Need(EVALUATION, state, round(facts.evaluation * _evaluation_bytes(model, work)), data),
    ]
    if work.on_host:
        beside = peaks[0].activations if work.saves_beside else 0
        peaks.append(Need(SAVING, state + max(2 * whole, DRAWN * params), beside, data))
    return peaks


def _step_bytes(model: ModelSpec, work: Work) -> int:
    """Bytes beside the state: the largest of two moments of the backward pass.

    At its beginning there is all that layers keep, and the gradient of the widest layer; at its end the gradients of
    all parameters, each for itself and as one flat array.
    """
    master, working = _bytes(work.precision)
    gradients = 2 * master * count(model)
    casts = working * count(model) if working < master else 0
    image = master * model.image_size**2 * model.image_channels
    widest = (2 if model.dropout else 1) * working * _widest(model)
    batch = work.batch_size * (image + _kept_bytes(model, work) + widest)
    waiting = work.waiting * master * count(model)
    return work.num_replicas * (max(gradients, casts + batch) + waiting)


def _kept_bytes(model: ModelSpec, work: Work) -> int:
    """Bytes of one image that are kept for the backward pass.

    With remat these are what lies outside of blocks, of the largest block, and the blocks' inputs.
    """
    master, working = _bytes(work.precision)

    def kept_of(layer: Layer) -> int:
        mask = prod(layer.output) if layer.drops and model.dropout else 0  # a byte an element
        return mask + layer.kept * (master if layer.exact else working)

    outside, inputs, blocks = 0, 0, dict[str, int]()
    before = None
    for layer in layers(model):
        kept = kept_of(layer)
        if not layer.block or not work.remat:
            outside += kept
        else:
            if layer.block not in blocks and before is not None:
                inputs += working * prod(before.output)
            blocks[layer.block] = blocks.get(layer.block, 0) + kept
        before = layer
    return outside + inputs + max(blocks.values(), default=0)


def _evaluation_bytes(model: ModelSpec, work: Work) -> int:
    """Bytes beside the state of a forward pass.

    Counted are the images as bytes, as numbers and as patches, the stream of a residual block and its norm, and the
    widest output beside the value that it is made from.
    """
    master, working = _bytes(work.precision)
    stream = max((prod(layer.output) for layer in layers(model) if layer.branch), default=0)
    pixels = model.image_size**2 * model.image_channels
    images, blocks = (2 + master + working) * pixels, working * (2 * stream + 2 * _widest(model))
    return work.evaluation_size * (images + blocks)


def _widest(model: ModelSpec) -> int:
    """Numbers of the widest output of one image inside of a block."""
    return max((prod(layer.output) for layer in layers(model) if layer.block), default=0)


def _bytes(precision: str) -> tuple[int, int]:
    """Bytes of a number of the state, and of one in a product."""
    master = 8 if precision == "float64" else 4
    return master, 2 if precision == "bfloat16" else master
