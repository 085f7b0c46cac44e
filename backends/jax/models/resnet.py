"""ResNet in Flax.

b batch   h w pixels   c channels   k classes
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from backends.jax.convolution import convolution, group_norm, max_pool
from backends.jax.layers import Chance, dense, dense_channels, stochastic_depth, tap
from backends.models.resnet_spec import ResnetSpec, Unit


class ResidualUnit(nn.Module):
    """The branch of some convolutions, and its sum with the skip-connection."""

    spec: ResnetSpec
    unit: Unit

    @nn.compact
    def __call__(self, x_bhwc: Array, name: str, chance: Chance) -> Array:
        return (unit_v1 if self.spec.is_v1 else unit_v2)(self, x_bhwc, name, chance)


def unit_v1(module: ResidualUnit, x_bhwc: Array, name: str, chance: Chance) -> Array:
    """Convolution, norm and ReLU, the last ReLU behind the sum.  Source: big_vision, models/bit.py, ResidualUnit."""
    unit, spec, y_bhwc = module.unit, module.spec, x_bhwc
    for i, window in enumerate(unit.windows, 1):
        y_bhwc = tap(convolution(module, f"conv{i}", window, y_bhwc, by=spec.by), f"{name}/conv{i}", chance)
        y_bhwc = tap(norm(module, f"gn{i}", spec, y_bhwc), f"{name}/gn{i}", chance)
        if i < len(unit.windows):
            y_bhwc = tap(nn.relu(y_bhwc), f"{name}/relu{i}", chance)
    y_bhwc = stochastic_depth(y_bhwc, f"{name}/stochastic_depth", chance)
    if unit.projection is not None:
        x_bhwc = convolution(module, "conv_proj", unit.projection, x_bhwc, by=spec.by)
        x_bhwc = tap(norm(module, "gn_proj", spec, tap(x_bhwc, f"{name}/conv_proj", chance)), f"{name}/gn_proj", chance)
    return tap(nn.relu(tap(x_bhwc + y_bhwc, f"{name}/sum", chance)), f"{name}/relu", chance)


def unit_v2(module: ResidualUnit, x_bhwc: Array, name: str, chance: Chance) -> Array:
    """Norm, ReLU and convolution.  Source: big_vision, models/bit_paper.py, ResidualUnit."""
    unit, spec, y_bhwc = module.unit, module.spec, x_bhwc
    for i, window in enumerate(unit.windows, 1):
        y_bhwc = tap(norm(module, f"gn{i}", spec, y_bhwc), f"{name}/gn{i}", chance)
        y_bhwc = tap(nn.relu(y_bhwc), f"{name}/relu{i}", chance)
        if i == 1 and unit.projection is not None:
            x_bhwc = convolution(module, "conv_proj", unit.projection, y_bhwc, by=spec.by)
            x_bhwc = tap(x_bhwc, f"{name}/conv_proj", chance)
        y_bhwc = tap(convolution(module, f"conv{i}", window, y_bhwc, by=spec.by), f"{name}/conv{i}", chance)
    y_bhwc = stochastic_depth(y_bhwc, f"{name}/stochastic_depth", chance)
    return tap(x_bhwc + y_bhwc, f"{name}/sum", chance)


def norm(module: nn.Module, name: str, spec: ResnetSpec, x_bhwc: Array) -> Array:
    """The norm over groups of channels, as the spec has it."""
    return group_norm(module, name, spec.norm_groups, spec.norm_epsilon, x_bhwc)


class Stage(nn.Module):
    """The units whose parameters lie below one name."""

    spec: ResnetSpec
    units: tuple[Unit, ...]
    remat: bool = False

    @nn.compact
    def __call__(self, x_bhwc: Array, chance: Chance) -> Array:
        kind = nn.remat(ResidualUnit, static_argnums=(2,)) if self.remat else ResidualUnit
        for unit in self.units:
            x_bhwc = kind(self.spec, unit, name=unit.part)(x_bhwc, unit.name, chance)
        return x_bhwc


class Resnet(nn.Module):
    """Images (b, h, w, channels) to logits (b, k) and features (b, c), both in at least float32."""

    spec: ResnetSpec
    remat: bool = False

    @nn.compact
    def __call__(self, images_bhwc: Array, chance: Chance, dtype: DTypeLike) -> tuple[Array, Array]:
        spec = self.spec
        x_bhwc = convolution(self, "conv_root", spec.root_window, images_bhwc.astype(dtype), by=spec.by)
        x_bhwc = tap(x_bhwc, "conv_root", chance)
        if spec.is_v1:
            x_bhwc = tap(norm(self, "gn_root", spec, x_bhwc), "gn_root", chance)
            x_bhwc = tap(nn.relu(x_bhwc), "relu_root", chance)
        if spec.pool_window is not None:
            x_bhwc = tap(max_pool(spec.pool_window, x_bhwc), "pool_root", chance)
        for units in spec.stages:
            x_bhwc = Stage(spec, units, self.remat, name=units[0].block)(x_bhwc, chance)
        if not spec.is_v1:
            x_bhwc = tap(norm(self, "pre_head_group_norm", spec, x_bhwc), "pre_head_group_norm", chance)
            x_bhwc = tap(nn.relu(x_bhwc), "pre_head_relu", chance)
        features_bc = tap(x_bhwc.astype(jnp.promote_types(dtype, jnp.float32)).mean((1, 2)), "features", chance)
        return tap(dense(self, "head", dense_channels, features_bc), "head", chance), features_bc
