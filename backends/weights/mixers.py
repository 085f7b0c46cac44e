"""Public formats of Mixers: each is a list of its names for the layers, and what its code computes."""

from collections.abc import Iterator, Mapping
from typing import Any

from backends.weights.form import Format, Found, Reading, Rule
from backends.weights.isotropic import of_tokens
from backends.weights.layouts import CONV1D, CONV2D, DENSE, HWIO, LINEAR, PATCHES, VECTOR, Layout

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
TORCH = {"kernel": ".weight", "scale": ".weight", "bias": ".bias"}
FLAX = {"kernel": "/kernel", "scale": "/scale", "bias": "/bias"}


def layer(canonical: str, own: str, kernel: Layout | None = None, parts: Mapping[str, str] = TORCH) -> list[Rule]:
    """The rules of a Dense layer or a convolution with this layout; of a norm, where there is none.

    Args: parts: what a format adds to the name of a layer for each of its arrays.
    """
    first = ("scale", VECTOR) if kernel is None else ("kernel", kernel)
    return [Rule((f"{canonical}/{part}",), (own + parts[part],), layout) for part, layout in (first, ("bias", VECTOR))]


def _mixer(
    name: str,
    source: str,
    layers: tuple[str, ...],
    options: Mapping[str, Any],
    *,
    parts: Mapping[str, str] = TORCH,
    stem: Layout = CONV2D,
    tokens: Layout = LINEAR,
    dense: Layout = LINEAR,
) -> Format:
    """A format of Mixers. Args: layers: its name for each of LAYERS, in their order; "" where it has no such layer."""

    def rules() -> Iterator[Rule]:
        for canonical, own in zip(LAYERS, layers, strict=True):
            kernel = stem if canonical == "stem" else tokens if "token_mixing" in canonical else dense
            if own:
                yield from layer(canonical, own, None if "norm" in canonical.lower() else kernel, parts)

    code = name if name in ("official", "timm") else ""
    return Format(name, source, tuple(rules()), _spec, options, code=code)


def _spec(form: Format, reading: Reading) -> Found:
    tokens, tokens_dim = reading.params["MixerBlock_0/token_mixing/Dense_0/kernel"].shape
    return of_tokens(form, reading, tokens, "token mixing", tokens_mlp_dim=tokens_dim)


FORMATS = (
    _mixer(
        "official",
        "google-research/vision_transformer",
        LAYERS,
        {"activation": "gelu_tanh", "norm_epsilon": 1e-6},
        parts=FLAX,
        stem=HWIO,
        tokens=DENSE,
        dense=DENSE,
    ),
    _mixer(
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
    _mixer(
        "lucidrains",
        "lucidrains/mlp-mixer-pytorch",
        (
            "1",
            "{block_2}.0.norm",
            "{block_2}.0.fn.0",
            "{block_2}.0.fn.3",
            "{block_2}.1.norm",
            "{block_2}.1.fn.0",
            "{block_2}.1.fn.3",
            "{blocks_2}",
            "{blocks_4}",
        ),
        {"activation": "gelu", "norm_epsilon": 1e-5},
        stem=PATCHES,
        tokens=CONV1D,
    ),
    _mixer(
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
    _mixer(
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
    _mixer(
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
    _mixer(
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
