"""Layers of convolutional networks in PyTorch: one function for each of backends/models/convolution.py.

b batch   h w pixels   c channels   q channels of a group   o channels that come out
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backends.models.convolution import Standardisation, Window
from backends.torch.layers import weights


def convolution(
    module: nn.Module, name: str, window: Window, x_bhwc: Tensor, groups: int = 1, by: Standardisation | None = None
) -> Tensor:
    """A convolution, with a bias where there is one, in the precision of x.   by: how its kernel is standardised."""
    layer = weights(module, name)
    kernel_hwqo = layer.kernel if by is None else standardised(layer.kernel, by)
    kernel_oqhw = kernel_hwqo.to(x_bhwc.dtype).permute(3, 2, 0, 1)
    x_bchw, padding = _padded(x_bhwc, window, 0.0)
    y_bchw = F.conv2d(x_bchw, kernel_oqhw, None, window.stride, padding, groups=groups)
    y_bhwc = y_bchw.permute(0, 2, 3, 1)
    if (bias_o := getattr(layer, "bias", None)) is not None:
        y_bhwc += bias_o.to(x_bhwc.dtype)
    return y_bhwc


def standardised(kernel_hwqo: Tensor, by: Standardisation) -> Tensor:
    """The kernel with mean 0 and variance 1 for each output channel, in the precision of the parameters."""
    centred_hwqo = kernel_hwqo - kernel_hwqo.mean((0, 1, 2), keepdim=True)
    variance_111o = centred_hwqo.square().mean((0, 1, 2), keepdim=True)
    if by.in_root:
        return centred_hwqo * torch.rsqrt(variance_111o + by.epsilon)
    return centred_hwqo / (variance_111o.sqrt() + by.epsilon)


def group_norm(module: nn.Module, name: str, groups: int, epsilon: float, x_bhwc: Tensor) -> Tensor:
    """Normalisation over the image and groups of neighbouring channels; statistics in at least float32."""
    layer, dtype = weights(module, name), x_bhwc.dtype
    x_bhwc = x_bhwc.to(layer.scale.dtype)
    # Centred here: far from zero PyTorch's kernel, which takes E[x^2] - E[x]^2 of images that lie channels last, loses
    # digits. What is taken off changes neither the result nor its gradient.
    mean_bg1 = x_bhwc.detach().mean((1, 2)).unflatten(1, (groups, -1)).mean(2, keepdim=True)
    mean_b11c = mean_bg1.expand(-1, -1, x_bhwc.shape[3] // groups).flatten(1)[:, None, None]
    x_bchw = (x_bhwc - mean_b11c).permute(0, 3, 1, 2)
    y_bchw = F.group_norm(x_bchw, groups, layer.scale, getattr(layer, "bias", None), epsilon)
    return y_bchw.permute(0, 2, 3, 1).to(dtype)


def max_pool(window: Window, x_bhwc: Tensor) -> Tensor:
    """The largest number of each window; of equal ones the first has the gradient."""
    x_bchw, padding = _padded(x_bhwc, window, -torch.inf)
    return F.max_pool2d(x_bchw, window.size, window.stride, padding).permute(0, 2, 3, 1)


def _padded(x_bhwc: Tensor, window: Window, value: float) -> tuple[Tensor, tuple[int, int]]:
    """Images (b, c, h, w), and the pixels a side that are still to pad; uneven ones are padded here."""
    x_bchw = x_bhwc.permute(0, 3, 1, 2)  # a view, which PyTorch's kernels take as it lies
    (top, bottom), (left, right) = window.pads(x_bchw.shape[2]), window.pads(x_bchw.shape[3])
    if (top, left) == (bottom, right):
        return x_bchw, (top, left)
    return F.pad(x_bchw, (left, right, top, bottom), value=value), (0, 0)
