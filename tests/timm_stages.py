"""timm's weights of MetaFormers and ConvMixers under the names of this project, written apart from its readers.

The fixtures poolformer_v1_small, metaformer_pool_small and convmixer_small hold weights, images, labels, and what timm
1.0.29 (commit aa4b5850) made of them in float64 in eval mode: logits, features, loss, gradients.
"""

import re
from collections.abc import Mapping

import numpy as np

from backends.arrays import Array, State

EPSILON = 1e-5  # of timm's batch norms
META_NAMES = (  # one after the other
    (r"^stem\.(conv\.)?", "stem."),
    (r"^stem\.norm", "stem_norm"),
    (r"^head\.norm", "pre_head_layer_norm"),
    (r"^head\.fc", "head"),
    (r"^stages\.(\d+)\.downsample\.norm", r"Stage_\1.downsampling_norm"),
    (r"^stages\.(\d+)\.downsample\.conv", r"Stage_\1.downsampling"),
    (r"^stages\.(\d+)\.blocks\.(\d+)", r"Stage_\1.MetaFormerBlock_\2"),
    (r"norm1", "GroupNorm_0"),
    (r"norm2", "GroupNorm_1"),
    (r"(layer|res)_scale1", r"token_mixing.\1_scale"),
    (r"(layer|res)_scale2", r"channel_mixing.\1_scale"),
    (r"res_scale", "residual_scale"),
    (r"mlp\.fc1", "channel_mixing.Dense_0"),
    (r"mlp\.fc2", "channel_mixing.Dense_1"),
    (r"mlp\.act", "channel_mixing.activation"),
)
CONV_NAMES = {"0.fn.0": "token_mixing/depthwise", "1": "channel_mixing/Dense_0"}
BATCH_NORMS = {"0.fn.2": "token_mixing/affine", "3": "channel_mixing/affine"}


def below(file: Mapping[str, Array], group: str) -> State:
    """The arrays below `group/`, as float64."""
    return {name.removeprefix(f"{group}/"): x.astype(float) for name, x in file.items() if name.startswith(f"{group}/")}


def metaformer(state: State) -> State:
    """Weights of a MetaFormer, or their gradients."""
    renamed = {}
    for name, x in state.items():
        for pattern, ours in META_NAMES:
            name = re.sub(pattern, ours, name)
        layer, _, part = name.replace(".", "/").rpartition("/")
        if part == "weight":
            part, x = ("scale", x) if x.ndim == 1 else ("kernel", kernel(x, is_dense="Dense" in layer))
        renamed[f"{layer}/{part}"] = x
    return renamed


def convmixer(state: State) -> State:
    """Weights of a ConvMixer, batch norms folded."""
    renamed = {}
    for theirs, ours in _convmixer_layers(state):
        x = {part: state[f"{theirs}.{part}"] for part in ("weight", "bias")}
        if f"{theirs}.running_var" in state:
            scale = x["weight"] / np.sqrt(state[f"{theirs}.running_var"] + EPSILON)
            bias = x["bias"] - state[f"{theirs}.running_mean"] * scale
            renamed |= {f"{ours}/scale": scale, f"{ours}/bias": bias}
        else:
            renamed |= {f"{ours}/kernel": kernel(x["weight"], "Dense" in ours), f"{ours}/bias": x["bias"]}
    return renamed


def convmixer_gradients(gradients: State, state: State) -> State:
    """Gradients of a ConvMixer in eval mode, as those of its folded form.

    With u = (x - mean) / root, root the root of the variance, and g the gradient of weight u + bias: that of weight is
    the sum of g u, that of bias the sum of g, and that of the folded scale the sum of g x: root (g u) + mean g.
    """
    renamed = {}
    for theirs, ours in _convmixer_layers(state):
        weight, bias = gradients[f"{theirs}.weight"], gradients[f"{theirs}.bias"]
        if f"{theirs}.running_var" in state:
            root = np.sqrt(state[f"{theirs}.running_var"] + EPSILON)
            renamed[f"{ours}/scale"] = root * weight + state[f"{theirs}.running_mean"] * bias
        else:
            renamed[f"{ours}/kernel"] = kernel(weight, "Dense" in ours)
        renamed[f"{ours}/bias"] = bias
    return renamed


def kernel(x: Array, is_dense: bool) -> Array:
    """PyTorch's (out, in) or (out, in, h, w) as (in, out) or (h, w, in, out)."""
    if x.ndim == 2:
        return x.T
    return x[:, :, 0, 0].T if is_dense else x.transpose(2, 3, 1, 0)


def _convmixer_layers(state: State) -> list[tuple[str, str]]:
    """timm's name and ours of each layer with parameters."""
    pairs = [("stem.0", "stem"), ("stem.2", "stem_affine"), ("head", "head")]
    blocks = sorted({int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))})
    inner = [*CONV_NAMES.items(), *BATCH_NORMS.items()]
    return pairs + [(f"blocks.{i}.{theirs}", f"ConvMixerBlock_{i}/{ours}") for i in blocks for theirs, ours in inner]
