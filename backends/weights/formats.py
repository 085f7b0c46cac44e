"""Public formats of Mixer weights: each is a table of its names for the layers, and what its code computes.

Sizes are read from shapes. What shapes cannot tell (activation, epsilon of the norms, final norm, dropout) comes with
the format.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.arrays import Array

LAYERS = (
    "stem",
    "MixerBlock_{block}/LayerNorm_0",
    "MixerBlock_{block}/token_mixing/Dense_0",
    "MixerBlock_{block}/token_mixing/Dense_1",
    "MixerBlock_{block}/LayerNorm_1",
    "MixerBlock_{block}/channel_mixing/Dense_0",
    "MixerBlock_{block}/channel_mixing/Dense_1",
    "pre_head_layer_norm",
    "head",
)


@dataclass(frozen=True)
class Layout:
    """The layout of a layer's kernels: their number of axes, and functions to (in, out) or HWIO and back."""

    axes: int
    read: Callable[[Array], Array]
    write: Callable[[Array], Array]


def _read_patches(kernel: Array) -> Array:
    """Turn (C, P P c) into (P, P, c, C). At most one of c = 3 and c = 1 makes P a whole number."""
    hidden, pixels = kernel.shape
    for channels in (3, 1):
        side = math.isqrt(pixels // channels)
        if side * side * channels == pixels:
            return kernel.T.reshape(side, side, channels, hidden)
    raise ValueError(f"{pixels} inputs are no square patch of 3 or 1 channels")


VECTOR = Layout(1, lambda x: x, lambda x: x)
DENSE = Layout(2, lambda x: x, lambda x: x)
HWIO = Layout(4, lambda x: x, lambda x: x)
LINEAR = Layout(2, np.transpose, np.transpose)  # (out, in)
CONV1D = Layout(3, lambda x: x.squeeze(2).T, lambda x: x.T[:, :, None])  # (out, in, 1)
CONV2D = Layout(4, lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # (out, in, h, w)
PATCHES = Layout(2, _read_patches, lambda x: x.reshape(-1, x.shape[3]).T)  # (C, P P c)


@dataclass(frozen=True, eq=False)
class Format:
    """A public form of Mixer weights.

    layers: its name for each of LAYERS, in their order; "" where it has no such layer. {block} counts from
    `first_block`, {end} is the number after the last block's, {end_2} two more.
    """

    name: str
    source: str
    layers: tuple[str, ...]
    options: Mapping[str, Any]  # fields of MixerSpec
    parts: Mapping[str, str] = field(default_factory=lambda: {"kernel": ".weight", "scale": ".weight", "bias": ".bias"})
    stem: Layout = CONV2D
    tokens: Layout = LINEAR
    dense: Layout = LINEAR
    first_block: int = 0

    def table(self, num_blocks: int) -> dict[str, tuple[str, Layout]]:
        """The format's name and layout of each parameter, by canonical name."""
        rows: dict[str, tuple[str, Layout]] = {}
        end = self.first_block + num_blocks
        for canonical, own in zip(LAYERS, self.layers, strict=True):
            for i in range(num_blocks if "{block}" in canonical else 1) if own else ():
                layer = own.format(block=i + self.first_block, end=end, end_2=end + 2)
                for part in ("scale", "bias") if "norm" in canonical.lower() else ("kernel", "bias"):
                    layout = self._layout(canonical) if part == "kernel" else VECTOR
                    rows[f"{canonical.format(block=i)}/{part}"] = (layer + self.parts[part], layout)
        return rows

    def count_blocks(self, names: Collection[str]) -> int:
        """The number of blocks that have a first norm among the names."""
        own = re.escape(self.layers[1] + self.parts["scale"]).replace(re.escape("{block}"), r"\d+")
        return sum(re.fullmatch(own, name) is not None for name in names)

    def _layout(self, canonical: str) -> Layout:
        if canonical == "stem":
            return self.stem
        return self.tokens if "token_mixing" in canonical else self.dense


FORMATS = {
    form.name: form
    for form in (
        Format(
            "official",
            "google-research/vision_transformer",
            LAYERS,
            {"activation": "gelu_tanh", "norm_epsilon": 1e-6},
            parts={"kernel": "/kernel", "scale": "/scale", "bias": "/bias"},
            stem=HWIO,
            tokens=DENSE,
            dense=DENSE,
        ),
        Format(
            "timm",
            "huggingface/pytorch-image-models",
            (
                "stem.proj",
                "blocks.{block}.norm1",
                "blocks.{block}.mlp_tokens.fc1",
                "blocks.{block}.mlp_tokens.fc2",
                "blocks.{block}.norm2",
                "blocks.{block}.mlp_channels.fc1",
                "blocks.{block}.mlp_channels.fc2",
                "norm",
                "head",
            ),
            {"activation": "gelu", "norm_epsilon": 1e-6},
        ),
        Format(
            "lucidrains",
            "lucidrains/mlp-mixer-pytorch",
            (
                "1",
                "{block}.0.norm",
                "{block}.0.fn.0",
                "{block}.0.fn.3",
                "{block}.1.norm",
                "{block}.1.fn.0",
                "{block}.1.fn.3",
                "{end}",
                "{end_2}",
            ),
            {"activation": "gelu", "norm_epsilon": 1e-5},
            stem=PATCHES,
            tokens=CONV1D,
            first_block=2,
        ),
        Format(
            "lavish619",
            "lavish619/MLP-Mixer-PyTorch",
            (
                "patch_breaker",
                "mixer_layers.{block}.token_mixer.layer_norm",
                "mixer_layers.{block}.token_mixer.mlp_block.fc1",
                "mixer_layers.{block}.token_mixer.mlp_block.fc2",
                "mixer_layers.{block}.channel_mixer.layer_norm",
                "mixer_layers.{block}.channel_mixer.mlp_block.fc1",
                "mixer_layers.{block}.channel_mixer.mlp_block.fc2",
                "",
                "final_fc",
            ),
            {"activation": "gelu", "norm_epsilon": 1e-5, "pre_head_norm": False, "dropout": 0.5},
        ),
        Format(
            "einops",
            "the Mixer of the einops tutorials",
            (
                "to_embedding.0",
                "mixer_blocks.{block}.token_mixer.0",
                "mixer_blocks.{block}.token_mixer.2.net.0",
                "mixer_blocks.{block}.token_mixer.2.net.3",
                "mixer_blocks.{block}.channel_mixer.0",
                "mixer_blocks.{block}.channel_mixer.1.net.0",
                "mixer_blocks.{block}.channel_mixer.1.net.3",
                "layer_normal",
                "mlp_head.0",
            ),
            {"activation": "gelu", "norm_epsilon": 1e-5},
        ),
        Format(
            "jeonsworld",
            "jeonsworld/MLP-Mixer-Pytorch",
            (
                "stem",
                "layer.{block}.pre_norm",
                "layer.{block}.token_mlp_block.fc0",
                "layer.{block}.token_mlp_block.fc1",
                "layer.{block}.post_norm",
                "layer.{block}.channel_mlp_block.fc0",
                "layer.{block}.channel_mlp_block.fc1",
                "pre_head_ln",
                "head",
            ),
            {"activation": "gelu", "norm_epsilon": 1e-6},
        ),
        Format(
            "rishikksh20",
            "rishikksh20/MLP-Mixer-pytorch",
            (
                "to_patch_embedding.0",
                "mixer_blocks.{block}.token_mix.0",
                "mixer_blocks.{block}.token_mix.2.net.0",
                "mixer_blocks.{block}.token_mix.2.net.3",
                "mixer_blocks.{block}.channel_mix.0",
                "mixer_blocks.{block}.channel_mix.1.net.0",
                "mixer_blocks.{block}.channel_mix.1.net.3",
                "layer_norm",
                "mlp_head.0",
            ),
            {"activation": "gelu", "norm_epsilon": 1e-5},
        ),
    )
}
