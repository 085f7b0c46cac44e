"""The layers of a ConvMixer, whose batch norms are folded to a scale and a bias for each channel.

At prediction a batch norm is weight * (x - mean) / sqrt(variance + 1e-5) + bias with stored statistics: the affine of
scale weight / sqrt(variance + 1e-5) and bias bias - mean * scale. Such an affine is what stands here, in training too:
no statistics of a batch are taken, so that examples do not depend on each other and the two frameworks can agree. To
train it is another model than the paper's: nothing brings the values back to mean 0 and variance 1, and the rate that
batch norms allow may be too high.

Kernels are (h, w, in, out) and (in, out). In timm's names:

stem, stem_affine                                       stem.0, stem.2 folded
ConvMixerBlock_i/token_mixing/depthwise, .../affine     blocks.i.0.fn.0, .2 folded
ConvMixerBlock_i/channel_mixing/Dense_0, .../affine     blocks.i.1, .3 folded
head                                                    head
"""

from dataclasses import replace

from backends.arrays import Shape
from backends.models.convmixer_spec import ConvMixerSpec
from backends.models.convolution import Window, convolution, image_of
from backends.models.family import ZEROS, Layer
from backends.models.layers import activation, addition, affine, dense, dropout, stochastic_depth


def layers(spec: ConvMixerSpec) -> list[Layer]:
    """Every layer, in the order of the forward pass.

    Initial kernels are the Mixer's, not PyTorch's, whose variance is a third of theirs: no batch norm undoes it.
    """
    channels, window = spec.hidden_dim, stem(spec)
    convolved = convolution("stem", window, image_of(spec), channels)
    image = convolved.output
    return [
        convolved,
        activation("stem_activation", spec.activation, image),
        affine("stem_affine", image),
        *(layer for i in range(spec.num_blocks) for layer in _block(spec, f"ConvMixerBlock_{i}", image)),
        Layer("pooled", (channels,), hint="the mean over the image"),
        dropout("features", (channels,)),
        dense("head", channels, spec.num_classes, (spec.num_classes,), init=ZEROS),
    ]


def stem(spec: ConvMixerSpec) -> Window:
    """The stem's window: the patches."""
    return Window(spec.patch_size, stride=spec.patch_size, padding=0)


def depthwise(spec: ConvMixerSpec) -> Window:
    """The window of token mixing; as many places come out as go in."""
    return Window(spec.kernel_size)


def _block(spec: ConvMixerSpec, name: str, image: Shape) -> list[Layer]:
    """A depthwise convolution beside a skip-connection, and a product over channels without one."""
    tokens, channels, width = f"{name}/token_mixing", f"{name}/channel_mixing", spec.hidden_dim
    declared = [
        convolution(f"{tokens}/depthwise", depthwise(spec), image, width, groups=width),
        activation(f"{tokens}/activation", spec.activation, image),
        affine(f"{tokens}/affine", image),
        stochastic_depth(f"{tokens}/stochastic_depth", image),
        addition(tokens, image),
        dense(f"{channels}/Dense_0", width, width, image, positions=image[0] * image[1]),
        activation(f"{channels}/activation", spec.activation, image),
        affine(f"{channels}/affine", image),
    ]
    return [replace(layer, block=name) for layer in declared]
