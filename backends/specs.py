"""What a program is made from: the model, the optimizer, and where and how it runs."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

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
