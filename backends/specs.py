"""What a program is made from: the model, the optimizer, and where and how it runs."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from backends.microbatches import ALONE, Group

OPTIMIZER = ("adamw", "sgd")
DECAY = ("kernels", "all")
LOSS = ("softmax", "sigmoid")
PRECISION = ("float64", "float32", "tf32", "bfloat16")


def option(
    default: Any,
    *,
    low: float | None = None,
    high: float | None = None,
    allowed: tuple[str, ...] = (),
    path: bool = False,
    word: bool = False,
    before: Any = ...,
) -> Any:
    """A field that YAML may set, with its default and range.

    Args:   low, high: both are included.    allowed: the words that it may be.
            path: a path or a command, in which variables of the environment and `~` are expanded.
            word: the field holds one of some words that other code lists, such as the name of a backend.
            before: of a field that came later, the value that all trials had before it was there. A trial that has
                this value keeps its id: it is what that trial always was. It never changes, whatever the default does.
    """
    metadata = {"low": low, "high": high, "allowed": allowed, "path": path, "word": word or bool(allowed)}
    return field(default=default, metadata=metadata | ({} if before is ... else {"before": before}))


@dataclass(frozen=True, kw_only=True)
class DropoutRate:
    """The rate at which numbers are dropped while a model trains; the choices of each step arrive in its plan."""

    dropout: float = option(0.0, low=0.0, high=0.95)  # rate


@dataclass(frozen=True, kw_only=True)
class BranchRates:
    """The rate at which residual branches are dropped while a model trains; the choices arrive in the plan."""

    stochastic_depth: float = option(0.0, low=0.0, high=0.95)  # rate at the last block, rising linearly from 0
    rescale: bool = option(False)  # timm's form: one rate for all blocks, kept branches divided by the keep rate

    def drops_none_of(self, num_blocks: int) -> bool:
        """Whether all branches of so many blocks are always kept: without `rescale` the first block's rate is 0."""
        return not self.stochastic_depth or (num_blocks == 1 and not self.rescale)


@dataclass(frozen=True, kw_only=True)
class Rates(BranchRates, DropoutRate):
    """Both rates; a family of models without dropout has the first alone."""


@dataclass(frozen=True)
class ModelSpec(Rates):
    """What every model has; a family of models adds its own sizes and options. See backends/models/."""

    image_size: int  # pixels a side
    image_channels: int  # 1 grey, 3 colour
    num_classes: int
    patch_size: int  # pixels a side of the parts that an image is cut into
    family: str = field(default="mixer", kw_only=True, metadata={"before": "mixer"})  # see backends/models/

    def structure(self) -> Self:
        """The part that a compiled program depends on: rates that arrive in the plan are set to 0."""
        return replace(self, dropout=0.0, stochastic_depth=0.0, rescale=False)


@dataclass(frozen=True)
class OptimizerSpec:
    """The loss, and what one step does with its gradient.

    AdamW and SGD decay weights apart from the gradient (decoupled), scaled by the learning rate. Clipping multiplies
    the gradient by clip_norm / max(norm, clip_norm). The bias corrections of Adam come in the plan, in float64.
    """

    optimizer: str = option("adamw", allowed=OPTIMIZER)  # its arithmetic is the same in each backend
    b1: float = option(0.9, low=0.0, high=0.999999)  # decay of AdamW's first moment
    b2: float = option(0.999, low=0.0, high=0.99999999)  # decay of AdamW's second moment
    epsilon: float = option(1e-8, low=0.0, high=1.0)  # AdamW: added to the root of the second moment
    momentum: float = option(0.9, low=0.0, high=0.999999)  # of SGD
    nesterov: bool = option(False)  # SGD with Nesterov's momentum
    weight_decay: float = option(0.0, low=0.0, high=1e3)  # decoupled, times the learning rate
    decay: str = option("kernels", allowed=DECAY)  # which parameters weight_decay acts on
    clip_norm: float = option(1.0, low=0.0)  # of the gradient of all parameters together; 0: off
    loss: str = option("softmax", allowed=LOSS)  # sigmoid: summed over the classes
    label_smoothing: float = option(0.0, low=0.0, high=0.99)  # spread evenly over all classes
    ema_decay: float = option(0.0, low=0.0, high=0.99999999)  # average of the parameters used to evaluate; 0: off

    def structure(self) -> "OptimizerSpec":
        """The part that a compiled program depends on: a number becomes 0 or 1 where only its presence matters."""
        presence: dict[str, Any] = {name: float(value > 0) for name, value in self.scalars().items()}
        return replace(self, **presence)

    def scalars(self) -> dict[str, float]:
        """The numbers that may change without compiling again, by field name."""
        return {f.name: getattr(self, f.name) for f in fields(OptimizerSpec) if f.type in (float, "float")}


@dataclass(frozen=True)
class RunSpec:
    """Where and how a program runs; only `precision` can change a result by more than rounding."""

    device: str = "cpu"  # see devices.py
    precision: str = "float32"
    compile: bool = False  # torch: through Inductor; jax always compiles
    remat: bool = False  # keep only the input of each block, and compute the block again for its gradient
    deterministic: bool = True
    threads: int = 1
    compile_cache: Path | None = None  # folder of compiled programs that later processes use again
    microbatches: int = 1  # parts of a step's batch, see microbatches.py
    group: Group = ALONE
    shares_optimizer: bool = False  # each process of the group holds its share of the optimizer's moments, and no more
