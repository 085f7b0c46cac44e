"""The layers of a MetaFormer.

Kernels are (h, w, in, out) and (in, out). In timm's names, of block j in stage i:

stem, stem_norm                             stem.conv, stem.norm
Stage_i/downsampling_norm, .../downsampling stages.i.downsample.norm, .../conv
Stage_i/MetaFormerBlock_j/GroupNorm_0, _1   stages.i.blocks.j.norm1, norm2
.../token_mixing/layer_scale/scale          .../layer_scale1.scale, that of channel_mixing layer_scale2
.../token_mixing/residual_scale/scale       .../res_scale1.scale, that of channel_mixing res_scale2
.../channel_mixing/Dense_0, Dense_1         .../mlp.fc1, fc2
.../channel_mixing/activation/{scale,bias}  .../mlp.act
pre_head_layer_norm, head                   head.norm, head.fc
"""

from collections.abc import Mapping
from dataclasses import replace

from backends.arrays import Shape
from backends.models.convolution import Window, convolution, group_norm, image_of
from backends.models.family import ONES, ZEROS, Init, Layer, Normal, Param
from backends.models.layers import addition, dense, layer_norm, layer_scale, mlp, stochastic_depth
from backends.models.metaformer_spec import MetaFormerSpec

STD = 0.02  # of all kernels at the beginning.  Source: timm, models/metaformer.py, _init_weights
RATIO = 4  # hidden units of a channel MLP for each channel
DOWNSAMPLING = Window(3, stride=2, padding=1)
EPSILON = 1e-6  # of all norms but a PoolFormer's GroupNorm.  Source: timm, layers/norm.py
GROUP_EPSILON: Mapping[str, float] = {"poolformer": 1e-5, "baseline": 1e-6}


def layers(spec: MetaFormerSpec) -> list[Layer]:
    """Every layer, in the order of the forward pass."""
    declared = _reduction(spec, "stem", "stem_norm", stem(spec), image_of(spec), spec.dims[0])
    for stage in range(spec.num_stages):
        image = declared[-1].output
        if spec.is_halved(stage):
            name, norm = f"Stage_{stage}/downsampling", f"Stage_{stage}/downsampling_norm"
            declared += _reduction(spec, name, norm, DOWNSAMPLING, image, spec.dims[stage])
            image = declared[-1].output
        for i in range(spec.depths[stage]):
            declared += _block(spec, stage, f"Stage_{stage}/MetaFormerBlock_{i}", image)
    last = spec.dims[-1:]
    return [
        *declared,
        Layer("pooled", last, hint="the mean over the image"),
        layer_norm("pre_head_layer_norm", last),
        dense("head", last[0], spec.num_classes, (spec.num_classes,), init=Normal(STD)),
    ]


def stem(spec: MetaFormerSpec) -> Window:
    """The stem's window: 7 pixels, stride 4, padding 2 in public code, and so on for other strides."""
    return Window(2 * spec.patch_size - 1, stride=spec.patch_size, padding=spec.patch_size // 2)


def _reduction(spec: MetaFormerSpec, name: str, norm: str, window: Window, image: Shape, channels: int) -> list[Layer]:
    """A convolution with a stride; the baselines have a norm behind that of the stem and before the others."""
    convolved = convolution(name, window, image, channels, init=Normal(STD))
    if not spec.is_baseline:
        return [convolved]
    is_stem = name == "stem"
    normed = _without_bias(layer_norm(norm, convolved.output if is_stem else image))
    return [convolved, normed] if is_stem else [normed, convolved]


def _block(spec: MetaFormerSpec, stage: int, name: str, image: Shape) -> list[Layer]:
    """The layers of one block, which takes and gives images of this shape."""
    mixing = [Layer(f"{name}/token_mixing/pooling", image, hint="places outside, or the identity")]
    tokens = _branch(spec, stage, f"{name}/token_mixing", 0, mixing * (spec.mixers[stage] == "pooling"), image)
    inner = _channel_mixing(spec, f"{name}/channel_mixing", image)
    return [
        replace(layer, block=name)
        for layer in (*tokens, *_branch(spec, stage, f"{name}/channel_mixing", 1, inner, image))
    ]


def _branch(spec: MetaFormerSpec, stage: int, name: str, i: int, inner: list[Layer], image: Shape) -> list[Layer]:
    """A residual branch around some layers, and the factors of its end and of its skip-connection."""
    factors = replace(layer_scale(f"{name}/residual_scale", image, 1.0), hint="the place of the factors")
    norm = group_norm(f"{name.rpartition('/')[0]}/GroupNorm_{i}", image, bias=not spec.is_baseline)
    return [
        norm,
        *inner,
        *[layer_scale(f"{name}/layer_scale", image, spec.layer_scale)] * (spec.layer_scale > 0),
        stochastic_depth(f"{name}/stochastic_depth", image),
        *[factors] * (stage in spec.scaled_stages),
        addition(name, image),
    ]


def _channel_mixing(spec: MetaFormerSpec, name: str, image: Shape) -> list[Layer]:
    """The MLP over channels; that of the baselines has no biases, and StarReLU with a factor and a summand."""
    (height, width, channels), kernel = image, Normal(STD)
    declared = mlp(name, channels, RATIO * channels, height * width, lambda units: (height, width, units), "gelu")
    if not spec.is_baseline:
        return [_begun(layer, kernel) for layer in declared]
    scalars = {"scale": Param((1,), ONES), "bias": Param((1,), ZEROS)}
    return [
        replace(layer, params=scalars, hint="StarReLU: its square, its factor, or its summand")
        if layer.name.endswith("/activation")
        else _without_bias(_begun(layer, kernel))
        for layer in declared
    ]


def _begun(layer: Layer, kernel: Init) -> Layer:
    """The layer with these initial values of its kernel, where it has one."""
    params = {part: replace(param, init=kernel) if part == "kernel" else param for part, param in layer.params.items()}
    return replace(layer, params=params)


def _without_bias(layer: Layer) -> Layer:
    return replace(layer, params={part: param for part, param in layer.params.items() if part != "bias"})
