"""The contract that a framework answers: NumPy in, NumPy out. Nothing here imports a framework.

A backend is a folder `backends/<name>/` (or an installed entry point of the group `mixlab.backends`) whose package has
an attribute `BACKEND` that follows `Backend`. Everything that two frameworks could do differently by chance (weights,
data order, crops, masks, rates) is drawn outside and arrives in a `StepPlan`; see experiments/training/plan.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from backends.arrays import Array, State
from backends.microbatches import Group
from backends.plan import StepPlan
from backends.specs import ModelSpec, OptimizerSpec, RunSpec

PREDICT_BATCH = 256  # images in a call of `predict` of an evaluation
MAX_PIXEL_STEPS = 32  # of StepPlan.pixels


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Training examples as arrays.

    images: uint8 (n, h, w, c), or float (n, h, w, c) already scaled; (0, h, w, c): they come with each plan.
    labels: int32 (n,).
    pixel_order: int32 (h*w,), the source of each pixel of the permuted image, or None.
    """

    images: Array
    labels: Array
    pixel_order: Array | None = None


@dataclass(frozen=True)
class DataSize:
    """The sizes of an ArrayDataset, as far as the model does not say them."""

    num_examples: int
    dtype: str  # of the images: uint8, float32, ...
    has_pixel_order: bool
    pixel_steps: int = 0  # k of StepPlan.pixels, where images come with each plan; 0: they are in the data set


@dataclass(frozen=True, eq=False)
class StepMetrics:
    """What n steps of one replica measured.

    loss: float64 (n,), before the step's update.   gradient_norm: float64 (n,), before clipping.
    """

    loss: Array
    gradient_norm: Array


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a forward pass of b images gives.

    logits: (b, num_classes).   features: (b, hidden_dim), the mean over tokens that enters the head.
    """

    logits: Array
    features: Array


class Trainer(Protocol):
    """What trains a model, on one device or on those of a group.

    Lists have an entry for each replica: trials that differ only in what their arrays hold.

    State names: `params/<name>`, and for each slot of the optimizer `<slot>/<name>`; see state.state_shapes.
    """

    @property
    def compile_s(self) -> float:
        """Seconds spent compiling for this program so far, by Backend.memory_bytes too."""

    @property
    def exchange_s(self) -> float:
        """Seconds of steps in which gradients were exchanged with its group, waiting for others included."""

    def load(self, states: Sequence[Mapping[str, Array]]) -> None:
        """Put a state for each replica on the device, rounded to the precision that parameters are kept in."""

    def states(self, wanted: bool = True) -> list[State]:
        """The state of each replica, in copies that later steps leave as they are.

        With RunSpec.shares_optimizer all processes of the group call it, one of them or more to get it.

        Args: wanted: False: this process gives what it holds, and gets an empty list.
        """

    def train(self, plans: Sequence[StepPlan]) -> list[StepMetrics]:
        """Take the optimizer steps of the plans, one plan for each replica; all have as many steps.

        The processes of a group all call it, with the plan of the whole batch; see microbatches.py.

        With pixels they have MAX_PIXEL_STEPS at most. The arrays may be written again once it has returned.
        """

    def predict(self, images: Array) -> list[Predictions]:
        """The forward pass without dropout or stochastic depth, with the average of the parameters where one is kept.

        Args:    images: uint8 or scaled float (b, h, w, channels), before the input permutation.
        """

    def peak_memory_bytes(self) -> int | None:
        """Peak of the device's memory in bytes since the program (jax: the process) began.

        None on a CPU, where the peak of the process is what counts.
        """


class Program(Trainer, Protocol):
    """A model on one device, and what can be seen inside of a step."""

    def gradients(self, plans: Sequence[StepPlan]) -> list[State]:
        """The gradient of the first step's loss, by parameter name, before clipping; the state stays as it is."""

    def activations(self, plans: Sequence[StepPlan]) -> list[State]:
        """The values of the first step's forward pass, in float64, by the names of folds.operations.

        They are of the whole batch, also where each process of a group computes some of its rows.
        """


class Backend(Protocol):
    """A framework that trains models."""

    name: str

    def join(self, group: Group, address: str, timeout_s: float) -> None:
        """Become one of the processes that train a trial together; before anything else is asked of the backend.

        It returns once all have exchanged something.

        Args: address: host:port, free, where process 0 waits for the others.    timeout_s: for them, and for each
              exchange later on.
        """

    def open(self, model: ModelSpec, optimizer: OptimizerSpec, dataset: ArrayDataset, run: RunSpec) -> Program:
        """Place the data on the device and make a program; what was compiled for an equal structure is used again.

        Raises: MixlabError: the device is not there, or does not have the precision.
        """

    def free_memory_bytes(self, run: RunSpec) -> int | None:
        """Bytes that are free on the device now (jax: for this process alone); None where it does not say, as on a CPU.

        Raises: MixlabError: the device is not there.
        """

    def memory_bytes(
        self,
        model: ModelSpec,
        optimizer: OptimizerSpec,
        data: DataSize,
        plan: StepPlan,
        run: RunSpec,
        num_replicas: int = 1,
    ) -> int | None:
        """Bytes that a training needs at its peak, before anything is allocated; None: the backend does not know.

        They are of the device's memory, with the data set; on a CPU of the process's, with what the host holds beside
        it. What is compiled to know it is used again by `open`, whose program counts the seconds as its own.

        Args:   plan: of one step.
        Raises: MixlabError: the device is not there, or does not have the precision.
        """

    def about(self, run: RunSpec) -> dict[str, str]:
        """Versions, device, and every numerics flag that matters, by name."""
