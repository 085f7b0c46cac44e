"""ResNet in PyTorch.

b batch   h w pixels   c channels   k classes
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backends.models.resnet_spec import ResnetSpec, Unit
from backends.torch.convolution import convolution, group_norm, max_pool
from backends.torch.layers import Chance, Weights, again, dense, dense_channels, stochastic_depth, tap, weights


class ResidualUnit(Weights):
    """The branch of some convolutions, and its sum with the skip-connection."""

    spec: ResnetSpec

    def __init__(self, spec: ResnetSpec, unit: Unit):
        super().__init__(spec, unit.name)
        self.unit = unit

    def forward(self, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
        return (unit_v1 if self.spec.is_v1 else unit_v2)(self, x_bhwc, name, chance)


def unit_v1(module: ResidualUnit, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
    """Convolution, norm and ReLU, the last ReLU behind the sum.  Source: big_vision, models/bit.py, ResidualUnit."""
    unit, spec, y_bhwc = module.unit, module.spec, x_bhwc
    for i, window in enumerate(unit.windows, 1):
        y_bhwc = tap(convolution(module, f"conv{i}", window, y_bhwc, by=spec.by), f"{name}/conv{i}", chance)
        y_bhwc = tap(norm(module, f"gn{i}", spec, y_bhwc), f"{name}/gn{i}", chance)
        if i < len(unit.windows):
            y_bhwc = tap(F.relu(y_bhwc), f"{name}/relu{i}", chance)
    y_bhwc = stochastic_depth(y_bhwc, f"{name}/stochastic_depth", chance)
    if unit.projection is not None:
        x_bhwc = convolution(module, "conv_proj", unit.projection, x_bhwc, by=spec.by)
        x_bhwc = tap(norm(module, "gn_proj", spec, tap(x_bhwc, f"{name}/conv_proj", chance)), f"{name}/gn_proj", chance)
    return tap(F.relu(tap(x_bhwc + y_bhwc, f"{name}/sum", chance)), f"{name}/relu", chance)


def unit_v2(module: ResidualUnit, x_bhwc: Tensor, name: str, chance: Chance) -> Tensor:
    """Norm, ReLU and convolution.  Source: big_vision, models/bit_paper.py, ResidualUnit."""
    unit, spec, y_bhwc = module.unit, module.spec, x_bhwc
    for i, window in enumerate(unit.windows, 1):
        y_bhwc = tap(norm(module, f"gn{i}", spec, y_bhwc), f"{name}/gn{i}", chance)
        y_bhwc = tap(F.relu(y_bhwc), f"{name}/relu{i}", chance)
        if i == 1 and unit.projection is not None:
            x_bhwc = convolution(module, "conv_proj", unit.projection, y_bhwc, by=spec.by)
            x_bhwc = tap(x_bhwc, f"{name}/conv_proj", chance)
        y_bhwc = tap(convolution(module, f"conv{i}", window, y_bhwc, by=spec.by), f"{name}/conv{i}", chance)
    y_bhwc = stochastic_depth(y_bhwc, f"{name}/stochastic_depth", chance)
    return tap(x_bhwc + y_bhwc, f"{name}/sum", chance)


def norm(module: nn.Module, name: str, spec: ResnetSpec, x_bhwc: Tensor) -> Tensor:
    """The norm over groups of channels, as the spec has it."""
    return group_norm(module, name, spec.norm_groups, spec.norm_epsilon, x_bhwc)


class Stage(nn.Module):
    """The units whose parameters lie below one name."""

    def __init__(self, spec: ResnetSpec, units: tuple[Unit, ...], remat: bool):
        super().__init__()
        self.units, self.remat = units, remat
        for unit in units:
            self.add_module(unit.part, ResidualUnit(spec, unit))

    def forward(self, x_bhwc: Tensor, chance: Chance) -> Tensor:
        for unit in self.units:
            module = self.get_submodule(unit.part)
            x_bhwc = again(module, x_bhwc, unit.name, chance) if self.remat else module(x_bhwc, unit.name, chance)
        return x_bhwc


class Resnet(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    def __init__(self, spec: ResnetSpec, remat: bool = False):
        super().__init__()
        self.spec = spec
        self.conv_root = Weights(spec, "conv_root")
        if spec.is_v1:
            self.gn_root = Weights(spec, "gn_root")
        for units in spec.stages:
            self.add_module(units[0].block, Stage(spec, units, remat))
        if not spec.is_v1:
            self.pre_head_group_norm = Weights(spec, "pre_head_group_norm")
        self.head = Weights(spec, "head")

    def forward(self, images_bhwc: Tensor, chance: Chance, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        spec = self.spec
        x_bhwc = convolution(self, "conv_root", spec.root_window, images_bhwc.to(dtype), by=spec.by)
        x_bhwc = tap(x_bhwc, "conv_root", chance)
        if spec.is_v1:
            x_bhwc = tap(norm(self, "gn_root", spec, x_bhwc), "gn_root", chance)
            x_bhwc = tap(F.relu(x_bhwc), "relu_root", chance)
        if spec.pool_window is not None:
            x_bhwc = tap(max_pool(spec.pool_window, x_bhwc), "pool_root", chance)
        for units in spec.stages:
            x_bhwc = self.get_submodule(units[0].block)(x_bhwc, chance)
        if not spec.is_v1:
            x_bhwc = tap(norm(self, "pre_head_group_norm", spec, x_bhwc), "pre_head_group_norm", chance)
            x_bhwc = tap(F.relu(x_bhwc), "pre_head_relu", chance)
        features_bc = tap(x_bhwc.to(weights(self, "head").kernel.dtype).mean((1, 2)), "features", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
