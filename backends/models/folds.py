"""The parameters of a Mixer: names, shapes, counts, and initial values drawn in NumPy.

Names and layouts are those of the official checkpoints: kernels (in, out), stem (P, P, c, C). An untied token-mixing
kernel has the channel in front, (C, in, out); an untied channel-mixing kernel the token, (S, in, out).
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from backends.arrays import Array, Shape
from backends.specs import ModelSpec

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


def initial(name: str, shape: Shape, uniforms: Callable[[str, Shape], Array]) -> Array:
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
