"""The layers of an MLP-Mixer, and of every model that is its block with other token mixing.

Source: arXiv 2105.01601, section 2.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from backends.arrays import Shape
from backends.models import mixing
from backends.models.family import ZEROS, CutNormal, Layer, Normal, Param, lecun, xavier
from backends.models.layers import (
    KERNEL_HINT,
    addition,
    affine,
    dense,
    layer_norm,
    layer_scale,
    mlp,
    rms_norm,
    stochastic_depth,
)
from backends.models.mixer_spec import MixerSpec

POSITION_STD = 0.02  # of the position embedding, before the cut.  Source: google-research/vision_transformer
NORMS: dict[str, Callable[[str, Shape], Layer]] = {"layer": layer_norm, "affine": affine, "rms": rms_norm}
POOL_HINT = {"mean": "the mean over tokens", "cls": "which token is the class token"}
NORM_NAMES = {"layer": "LayerNorm", "affine": "Affine", "rms": "RMSNorm"}  # in a block; _0 and _1 are added
PRE_HEAD = {"layer": "pre_head_layer_norm", "affine": "pre_head_affine", "rms": "pre_head_rms_norm"}


def layers(spec: MixerSpec) -> list[Layer]:
    """Every layer, in the order of the forward pass.

    Names and layouts are those of the official checkpoints: kernels (in, out), stem (P, P, c, C).
    Source: google-research/vision_transformer, models_mixer.py; initial values are its defaults, the head's are zero.
    """
    channels, last = spec.hidden_dim, (spec.tokens_before(spec.num_blocks), spec.hidden_dim)
    return [
        *_stem(spec),
        *_first_tokens(spec),
        *(layer for i in range(spec.num_blocks) for layer in _block(spec, i)),
        *[NORMS[spec.norm](PRE_HEAD[spec.norm], last)] * spec.pre_head_norm,
        Layer("pooled" if spec.representation else "features", (channels,), hint=POOL_HINT[spec.pool]),
        *_representation(spec),
        dense("head", channels, spec.num_classes, (spec.num_classes,), init=ZEROS),
    ]


def _stem(spec: MixerSpec) -> list[Layer]:
    tokens, channels, side = spec.num_patches, spec.hidden_dim, spec.stem_size
    pixels = side**2 * spec.image_channels
    kernel = Param((side, side, spec.image_channels, channels), lecun(pixels), decayed=True)
    params = {"kernel": kernel, "bias": Param((channels,), ZEROS)}
    hint = "the order of patches, or of pixels in a patch" if spec.stem == "patches" else "what lies outside"
    return [
        Layer("patches", (tokens, pixels), hint=hint),
        Layer(
            "stem", (tokens, channels), params, macs=tokens * pixels * channels, kept=tokens * pixels, hint=KERNEL_HINT
        ),
    ]


def _first_tokens(spec: MixerSpec) -> list[Layer]:
    """The class token and the position embedding, in the order in which they come."""
    channels, positions = spec.hidden_dim, spec.num_positions
    std = Normal(1 / math.sqrt(channels)) if spec.init == "vit" else CutNormal(POSITION_STD)
    table = {"": Param((positions, channels), std)} if spec.position_embedding == "learned" else {}
    position = Layer("position_embedding", (positions, channels), table, hint="the order of tokens")
    token = Layer("cls_token", (spec.num_tokens, channels), {"": Param((channels,), ZEROS)}, hint="its place")
    added = [position] * (spec.position_embedding != "none")
    if spec.pool != "cls":
        return added
    return [token, *added] if positions == spec.num_tokens else [*added, token]


def _representation(spec: MixerSpec) -> list[Layer]:
    """A Dense layer and tanh before the head.  Source: google-research/big_vision, models/vit.py, rep_size."""
    if not spec.representation:
        return []
    channels, init = spec.hidden_dim, xavier(spec.hidden_dim, spec.hidden_dim) if spec.init == "vit" else None
    product = dense("representation", channels, channels, (channels,), init=init)
    return [product, Layer("features", (channels,), kept=channels, hint="tanh")]


def _block(spec: MixerSpec, i: int) -> list[Layer]:
    """The layers of one block; where blocks share their weights, the first one holds the parameters."""
    name, place = f"MixerBlock_{i}", mixing.Place(spec, spec.tokens_before(i), spec.tokens_before(i + 1))
    operator = spec.mixing_of(i)
    inner = mixing.OPERATORS[operator](place, f"{name}/token_mixing")
    declared = _branch(spec, f"{name}/token_mixing", 0, inner, place.tokens, place.outputs)
    if not mixing.is_alone(spec, operator):
        inner = _channel_mixing(spec, f"{name}/channel_mixing", place.outputs)
        declared += _branch(spec, f"{name}/channel_mixing", 1, inner, place.outputs, place.outputs)
    return [replace(_shared(spec, layer, i), block=name) for layer in declared]


def _branch(spec: MixerSpec, name: str, i: int, inner: list[Layer], tokens: int, outputs: int) -> list[Layer]:
    """A residual branch around some layers, with its norm before them, or behind the sum."""
    before, after = (tokens, spec.hidden_dim), (outputs, spec.hidden_dim)
    block = name.rpartition("/")[0]
    is_post, norm = spec.norm_place == "post", f"{block}/{NORM_NAMES[spec.norm]}_{i}"
    return [
        *[NORMS[spec.norm](norm, before)] * (not is_post),
        *inner,
        *[layer_scale(f"{name}/layer_scale", after, spec.layer_scale)] * (spec.layer_scale > 0),
        stochastic_depth(f"{name}/stochastic_depth", after),
        *[Layer(f"{name}/skip", after, hint="the mean over 2 x 2 tokens")] * (tokens != outputs),
        addition(name, after),
        *[NORMS[spec.norm](norm, after)] * is_post,
    ]


def _shared(spec: MixerSpec, layer: Layer, i: int) -> Layer:
    """The layer with the weights of the first block, where it shares them."""
    parts = layer.name.split("/")
    inner = len(parts) > 2 and parts[2] != "layer_scale"
    shares = {"token_mixing": spec.share_token_mixing, "channel_mixing": spec.share_channel_mixing}
    if not i or not layer.params or not (spec.share_blocks or (inner and shares.get(parts[1], False))):
        return layer
    return replace(layer, params={}, weights="/".join(("MixerBlock_0", *parts[1:])))


def _channel_mixing(spec: MixerSpec, name: str, tokens: int) -> list[Layer]:
    """One MLP over the channels for all tokens, or one for each token, whose kernels are (S, in, out)."""
    channels, hidden = spec.hidden_dim, spec.channels_mlp_dim
    copies = (tokens,) if spec.channel_mixing == "untied" else ()
    shape, is_vit = lambda units: (tokens, units), spec.init == "vit"
    return mlp(name, channels, hidden, tokens, shape, spec.activation, copies=copies, vit=is_vit)
