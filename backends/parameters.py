"""The parameters of a Mixer: names, shapes, counts, and initial values drawn in NumPy.

Names and layouts are those of the official checkpoints: kernels (in, out), stem (P, P, c, C). An untied token-mixing
kernel has the channel in front, (C, in, out); an untied channel-mixing kernel the token, (S, in, out).
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from backends.contract import Array, ModelSpec, OptimizerSpec, State

Shape = tuple[int, ...]
MIXINGS = ("token_mixing", "channel_mixing")

# Standard deviation of a unit normal cut at two sigma, so that the drawn kernels have the variance asked for.
# Source: jax.nn.initializers.lecun_normal, the default of the authors' Dense layers.
TRUNCATED_STD = 0.87962566103423978


@lru_cache(maxsize=1024)
def _shapes(spec: ModelSpec) -> dict[str, Shape]:
    c, s, patch = spec.hidden_dim, spec.num_tokens, spec.patch_size
    table: dict[str, Shape] = {"stem/kernel": (patch, patch, spec.image_channels, c), "stem/bias": (c,)}
    if spec.position_embedding == "learned":
        table["position_embedding"] = (s, c)
    for i in range(1 if spec.share_blocks else spec.num_blocks):
        for j, mixing in enumerate(MIXINGS):
            table |= {f"MixerBlock_{i}/LayerNorm_{j}/{part}": (c,) for part in ("scale", "bias")}
            table |= {f"MixerBlock_{i}/{mixing}/{name}": shape for name, shape in _mlp_shapes(spec, mixing).items()}
    if spec.pre_head_norm:
        table |= {f"pre_head_layer_norm/{part}": (c,) for part in ("scale", "bias")}
    return table | {"head/kernel": (c, spec.num_classes), "head/bias": (spec.num_classes,)}


def _mlp_shapes(spec: ModelSpec, mixing: str) -> dict[str, Shape]:
    if mixing == "token_mixing":
        rows, hidden = spec.token_rows, spec.tokens_mlp_dim
        copies: Shape = (spec.hidden_dim,) if spec.token_mixing == "untied" else ()
    else:
        rows, hidden = spec.hidden_dim, spec.channels_mlp_dim
        copies = (spec.num_tokens,) if spec.channel_mixing == "untied" else ()
    dense = {
        "Dense_0/kernel": (*copies, rows, hidden),
        "Dense_0/bias": (*copies, hidden),
        "Dense_1/kernel": (*copies, hidden, rows),
        "Dense_1/bias": (*copies, rows),
    }
    if mixing == "token_mixing" and spec.token_mixing == "grouped_views":
        return {"views/kernel": (spec.hidden_dim, spec.hidden_dim)} | dense
    return dense


def shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Shape of each parameter by canonical name, in the order of the forward pass."""
    return dict(_shapes(spec))


def state_shapes(model: ModelSpec, optimizer: OptimizerSpec) -> dict[str, Shape]:
    """Shape of each array of a training state: `params/<name>`, then `<slot>/<name>` for each slot."""
    groups = ("params", *slots(optimizer))
    return {f"{group}/{name}": shape for group in groups for name, shape in _shapes(model).items()}


def slots(optimizer: OptimizerSpec) -> tuple[str, ...]:
    """What is kept beside each parameter: moments, and the average where there is one."""
    moments = ("first_moment", "second_moment") if optimizer.optimizer == "adamw" else ("momentum",)
    return (*moments, "average") if optimizer.ema_decay else moments


def is_decayed(name: str, decay: str) -> bool:
    """Whether weight decay acts on a parameter: on kernels only, or on all."""
    return decay == "all" or name.endswith("kernel")


@lru_cache(maxsize=1024)
def count(spec: ModelSpec) -> int:
    """Number of trainable numbers, the head included."""
    return sum(math.prod(shape) for shape in _shapes(spec).values())


@lru_cache(maxsize=1024)
def forward_macs(spec: ModelSpec) -> int:
    """Multiply-accumulates of the forward pass of one image, in matrix products only.

    Training takes about 6 FLOPs a MAC. Tied, untied and grouped mixing cost the same; learned views add S C C a block.
    """
    s, c = spec.num_tokens, spec.hidden_dim
    block = 2 * s * c * (spec.tokens_mlp_dim + spec.channels_mlp_dim)
    if spec.token_mixing == "grouped_views":
        block += s * c * c
    stem = s * spec.patch_size**2 * spec.image_channels * c
    return stem + spec.num_blocks * block + c * spec.num_classes


@lru_cache(maxsize=1024)
def training_memory_bytes(
    model: ModelSpec, optimizer: OptimizerSpec, precision: str, batch_size: int, remat: bool = False
) -> int:
    """Estimate of the memory that a training step needs: state, gradients, and the activations kept for backward.

    Kept for each block: the inputs of both norms and both MLPs (4 S C), and each hidden layer before and after its
    activation (2 C D_S + 2 S D_C); everything else is made again or freed at once. With remat that is kept of one block
    at a time, and of the others their input.
    """
    master, working = _bytes(precision)
    state = count(model) * master * (2 + len(slots(optimizer)))
    s, c = model.num_tokens, model.hidden_dim
    block = 4 * s * c + 2 * c * model.tokens_mlp_dim + 2 * s * model.channels_mlp_dim
    blocks = model.num_blocks * s * c + block if remat else model.num_blocks * block
    return state + batch_size * working * (blocks + s * c + model.image_size**2 * model.image_channels)


def prediction_memory_bytes(model: ModelSpec, optimizer: OptimizerSpec, precision: str, batch_size: int) -> int:
    """The same of a forward pass of so many images: the state, and the widest layer before and after its activation."""
    master, working = _bytes(precision)
    state = count(model) * master * (1 + len(slots(optimizer)))
    s, c = model.num_tokens, model.hidden_dim
    widest = 2 * s * c + 2 * max(s * model.channels_mlp_dim, c * model.tokens_mlp_dim)
    return state + batch_size * (working * widest + master * model.image_size**2 * model.image_channels)


def _bytes(precision: str) -> tuple[int, int]:
    """Of a number of the state, and of one in a product."""
    master = 8 if precision == "float64" else 4
    return master, 2 if precision == "bfloat16" else master


def initial_state(model: ModelSpec, optimizer: OptimizerSpec, uniforms: Callable[[str, Shape], Array]) -> State:
    """Parameters as the authors draw them, moments zero, the average equal to the parameters.

    Kernels: normal cut at two sigma with variance 1 / fan_in; the head's kernel and all biases zero; scales one; the
    position embedding normal with standard deviation 0.02 before it is cut likewise.

    Args:    uniforms: (name, shape) -> float64 in [0, 1), drawn for this parameter.
    Returns: float64 arrays by state name; a backend rounds them to its precision.
    Source:  google-research/vision_transformer, models_mixer.py.
    """
    params = {name: _initial(name, shape, uniforms) for name, shape in _shapes(model).items()}
    state = {f"params/{name}": value for name, value in params.items()}
    for slot in slots(optimizer):
        state |= {f"{slot}/{name}": value if slot == "average" else 0 * value for name, value in params.items()}
    return state


def _initial(name: str, shape: Shape, uniforms: Callable[[str, Shape], Array]) -> Array:
    if name.endswith("scale"):
        return np.ones(shape)
    if name.endswith("bias") or name == "head/kernel":
        return np.zeros(shape)
    if name == "position_embedding":
        std = 0.02
    else:
        fan_in = math.prod(shape[:3]) if name == "stem/kernel" else shape[-2]
        std = math.sqrt(1 / fan_in) / TRUNCATED_STD
    from scipy.special import ndtr, ndtri  # a fifth of a second that planning does not need

    low, high = ndtr(-2.0), ndtr(2.0)
    return np.asarray(std * ndtri(low + (high - low) * uniforms(name, shape)))


def operations(spec: ModelSpec, dropout: bool, stochastic_depth: bool) -> list[str]:
    """Names of what a training step computes up to its loss, in order.

    `images` and `targets` are those after augmentation, `head` the logits. A block's `token_mixing` and
    `channel_mixing` are the sums after the skip-connections.

    Args: dropout, stochastic_depth: whether the step draws masks for them.
    """
    names = ["images", "targets", "patches", "stem"]
    names += ["position_embedding"] * (spec.position_embedding == "learned")
    for i in range(spec.num_blocks):
        for j, mixing in enumerate(MIXINGS):
            inner = ["views"] * (mixing == "token_mixing" and spec.token_mixing == "grouped_views")
            for k, layer in enumerate(("Dense_0", "Dense_1")):
                inner += [layer] + ["activation"] * (k == 0) + [f"dropout_{k}"]
            inner += ["stochastic_depth"] * stochastic_depth
            names += [f"MixerBlock_{i}/LayerNorm_{j}", *(f"MixerBlock_{i}/{mixing}/{name}" for name in inner)]
            names += [f"MixerBlock_{i}/{mixing}"]
    names += ["pre_head_layer_norm"] * spec.pre_head_norm
    return [*names, "features", "head", "loss"]


def dropout_site(block: int, mixing: int, layer: int) -> int:
    """Number of a place where dropout acts.

    The mask of a site is one 32-bit hash a element, the same in every backend:

        x = element * 0x9E3779B9 + key + site * 0x85EBCA6B      (mod 2^32)
        x = (x ^ x >> 16) * 0x21F0AAAD;  x = (x ^ x >> 15) * 0xD35A2D97;  x = x ^ x >> 15
        kept = (x >> 8) >= round(rate * 2^24);  a kept element is divided by 1 - rate

    where `element` counts the elements of the activation in row-major order, hidden units of token mixing laid out as
    (batch, D_S, columns) and those of channel mixing as (batch, tokens, D_C), and `key` is drawn for each step.

    Args:   mixing: 0 token, 1 channel.    layer: 0 after the activation, 1 after the second Dense.
    Source: the multipliers are those of the "lowbias32" family, github.com/skeeto/hash-prospector.
    """
    return 4 * block + 2 * mixing + layer
