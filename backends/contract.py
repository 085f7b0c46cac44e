"""What a framework must answer: NumPy in, NumPy out. Nothing here imports a framework.

A backend is a folder `backends/<name>/` (or an installed entry point of the group `mixlab.backends`) whose package has
an attribute `BACKEND` that follows `Backend`. Everything that two frameworks could do differently by chance (weights,
data order, crops, masks, rates) is drawn outside and arrives in a `StepPlan`; see experiments/training/plan.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
State = dict[str, Array]

TOKEN_MIXING = ("tied", "untied", "grouped", "grouped_views")
CHANNEL_MIXING = ("tied", "untied")
POSITION_EMBEDDING = ("none", "learned")
ACTIVATION = ("gelu_tanh", "gelu", "relu")
OPTIMIZER = ("adamw", "sgd")
DECAY = ("kernels", "all")
LOSS = ("softmax", "sigmoid")
PRECISION = ("float64", "float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class ModelSpec:
    """One MLP-Mixer, every size known.

    Source: arXiv 2105.01601, section 2 and Table 1; the options are those of its appendix A and of public code.
    """

    image_size: int  # pixels a side
    image_channels: int  # 1 grey, 3 colour
    num_classes: int
    patch_size: int  # pixels a side
    hidden_dim: int  # C
    num_blocks: int
    tokens_mlp_dim: int  # D_S
    channels_mlp_dim: int  # D_C
    token_mixing: str = "tied"
    token_groups: int = 1  # G, of the two grouped forms
    channel_mixing: str = "tied"
    share_blocks: bool = False  # one set of weights for all blocks
    position_embedding: str = "none"
    activation: str = "gelu_tanh"
    norm_epsilon: float = 1e-6
    pre_head_norm: bool = True
    dropout: float = 0.0  # after the activation and after the second Dense of each MLP
    stochastic_depth: float = 0.0  # rate of the last block; rises linearly from 0 at the first
    rescale: bool = False  # timm's form of it: one rate for all blocks, a kept branch divided by its keep rate

    @property
    def num_tokens(self) -> int:
        """S, the number of patches."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def token_rows(self) -> int:
        """Inputs of the token-mixing MLP: S, or S times G where channels are grouped."""
        return self.num_tokens * (self.token_groups if self.token_mixing.startswith("grouped") else 1)

    def structure(self) -> "ModelSpec":
        """The part that a compiled program depends on: rates that arrive in the plan are set to 0."""
        return replace(self, dropout=0.0, stochastic_depth=0.0, rescale=False)


@dataclass(frozen=True)
class OptimizerSpec:
    """The loss and what one step does with its gradient.

    AdamW and SGD decay weights apart from the gradient (decoupled), scaled by the learning rate. Clipping multiplies
    the gradient by clip_norm / max(norm, clip_norm). The bias corrections of Adam come in the plan, in float64.
    """

    optimizer: str = "adamw"
    b1: float = 0.9
    b2: float = 0.999
    epsilon: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    decay: str = "kernels"
    clip_norm: float = 0.0  # 0: no clipping
    loss: str = "softmax"
    label_smoothing: float = 0.0
    ema_decay: float = 0.0  # 0: no average of the parameters is kept

    def structure(self) -> "OptimizerSpec":
        """The part that a compiled program depends on: a number becomes 0 or 1 where only its presence matters."""
        presence: dict[str, Any] = {name: float(value > 0) for name, value in self.scalars().items()}
        return replace(self, **presence)

    def scalars(self) -> dict[str, float]:
        """The numbers that may change without compiling again, by field name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.type in (float, "float")}


@dataclass(frozen=True)
class RunSpec:
    """Where and how a program runs; only `precision` can change a result by more than rounding."""

    device: str = "cpu"  # cpu, cuda, cuda:1, ...
    precision: str = "float32"
    compile: bool = False  # torch: through Inductor; jax always compiles
    remat: bool = False  # keep only the input of each block, and compute the block again for its gradient
    deterministic: bool = True
    threads: int = 1
    compile_cache: Path | None = None  # folder of compiled programs that later processes use again


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Training examples as arrays.

    images: uint8 (n, h, w, c), or float (n, h, w, c) already scaled.   labels: int32 (n,).
    pixel_order: int32 (h*w,), the source of each pixel of the permuted image, or None.
    """

    images: Array
    labels: Array
    pixel_order: Array | None = None


@dataclass(frozen=True, eq=False)
class StepPlan:
    """The arrays that describe n optimizer steps of b examples. None: that part is off.

    learning_rate       float64 (n,)
    moment_corrections  float64 (n, 2)    1 / (1 - b1^t), 1 / (1 - b2^t)
    examples            int32 (n, b)      indices into the data set
    crops               int32 (n, b, 2)   shift of rows and columns in pixels; what comes from outside is black
    flips               bool (n, b)       mirror left and right, before the crop
    mixup_partners      int32 (n, b)      position in the batch of the example that is mixed in
    mixup_weights       float64 (n,)      weight of the example itself
    branch_scales       float64 (n, num_blocks, 2, b)   factor of the token-mixing and channel-mixing branch
    dropout_keys        uint32 (n,)       key of the dropout hash, see parameters.dropout_site
    dropout_rate        float             probability of zeroing an element
    """

    first_step: int  # steps done before this plan
    learning_rate: Array
    moment_corrections: Array
    examples: Array
    crops: Array | None = None
    flips: Array | None = None
    mixup_partners: Array | None = None
    mixup_weights: Array | None = None
    branch_scales: Array | None = None
    dropout_keys: Array | None = None
    dropout_rate: float | None = None

    @property
    def num_steps(self) -> int:
        return len(self.learning_rate)

    def arrays(self) -> dict[str, Array]:
        """The per-step arrays that are on, by field name; the leading axis of each is the step."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, np.ndarray)}


@dataclass(frozen=True, eq=False)
class StepMetrics:
    """loss: float64 (n,), before the step's update.   gradient_norm: float64 (n,), before clipping."""

    loss: Array
    gradient_norm: Array


@dataclass(frozen=True, eq=False)
class Predictions:
    """logits: (b, num_classes).   features: (b, hidden_dim), the mean over tokens that enters the head."""

    logits: Array
    features: Array


class Program(Protocol):
    """One model on one device. Lists have an entry for each replica: trials that differ only in what their arrays hold.

    State names: `params/<name>`, and for each slot of the optimizer `<slot>/<name>`; see parameters.state_shapes.
    """

    compile_s: float  # seconds spent compiling for this program so far

    def load(self, states: Sequence[Mapping[str, Array]]) -> None: ...

    def states(self) -> list[State]: ...

    def train(self, plans: Sequence[StepPlan]) -> list[StepMetrics]:
        """Run plan.num_steps optimizer steps."""

    def gradients(self, plans: Sequence[StepPlan]) -> list[State]:
        """Gradient of the first step's loss, by parameter name, before clipping; the state stays as it is."""

    def activations(self, plans: Sequence[StepPlan]) -> list[State]:
        """Every value of the first step's forward pass, in float64, by the names of parameters.operations."""

    def predict(self, images: Array) -> list[Predictions]:
        """Forward pass without dropout or stochastic depth, with the average of the parameters where one is kept.

        Args:    images: as in ArrayDataset, before the input permutation.
        """

    def peak_memory_bytes(self) -> int | None:
        """Peak of the device's memory, since the program or (jax) the process began; None: the process's own counts."""


class Backend(Protocol):
    name: str

    def open(self, model: ModelSpec, optimizer: OptimizerSpec, dataset: ArrayDataset, run: RunSpec) -> Program:
        """Place the data on the device and make a program; what was compiled for an equal structure is used again."""

    def free_memory_bytes(self, run: RunSpec) -> int | None:
        """What the device has left now (jax: for this process alone); None where it uses the machine's own memory."""

    def about(self, run: RunSpec) -> dict[str, str]:
        """Versions, device, and every numerics flag that matters."""


class Measured(Protocol):
    """A model that `mixlab bench` times. Each call ends when the device has done its work."""

    def train(self, num_steps: int) -> None:
        """Forward, backward and AdamW, so many times."""

    def predict(self, num_batches: int) -> None:
        """The forward pass of one batch, so many times."""

    def peak_memory_bytes(self) -> int | None:
        """As that of Program."""


@dataclass(frozen=True)
class PeerInfo:
    """Somebody else's Mixer. Its function is ours where all options but the activation have their defaults."""

    activation: str
    how_to_get: str


class Bench(Protocol):
    """What `backends/<name>/bench.py` answers for `mixlab bench`, as its module's attributes."""

    PEERS: Mapping[str, PeerInfo]  # other people's Mixers by name

    def open_peer(
        self, name: str, model: ModelSpec, optimizer: OptimizerSpec, data: ArrayDataset, run: RunSpec, path: Path | None
    ) -> Measured:
        """A peer, unmodified, of the model's sizes, on one batch: all the examples of the data.

        Args:   path: a clone of its repository, where it is no package.
        Raises: MixlabError: it is not there, or has no such model or precision.
        """

    def product(self, run: RunSpec, size: int) -> Callable[[], None]:
        """A call that multiplies two square matrices of `size` rows."""

    def copy(self, run: RunSpec, num_bytes: int) -> Callable[[], None]:
        """A call that copies an array of so many bytes."""
