"""A Mixer that begins from the weights of one for smaller images, with the same patches.

Token mixing is expanded: the K x K sub-images of the large image are each mixed as the small one was, until training
joins them. The kernels become block-diagonal, up to the order of tokens: D_S' = K^2 D_S, S' = K^2 S.
Source: arXiv 2105.01601, appendix C. A learned position embedding is interpolated as in the authors' code.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np

from backends.arrays import Array
from backends.models import folds
from backends.models.family import Change, Misfit
from backends.models.mixer_spec import MixerSpec
from backends.models.mixing import WITH_D_S

# What the shapes of parameters follow from beside the resolution; and what gives the same shapes another meaning.
ALIKE = ("patch_size", "image_channels", "hidden_dim", "num_blocks", "channels_mlp_dim", "pyramid", "channel_mixing")
MEANING = ("token_mixing", "token_groups", "num_heads")
OF_MLP = {
    "Dense_0/kernel": ("in", "hidden"),
    "Dense_0/bias": ("hidden",),
    "Dense_1/kernel": ("hidden", "out"),
    "Dense_1/bias": ("out",),
}
AXES: dict[str, dict[str, tuple[str, ...]]] = {  # of an operator's parameters; see _axes
    **dict.fromkeys(WITH_D_S, OF_MLP),
    "linear": {"Dense_0/kernel": ("in", "out"), "Dense_0/bias": ("out",)},
    "gating": {"gate/kernel": ("in", "out"), "gate/bias": ("out",)},
    "random": {"random/matrix": ("out", "in")},
}
Places = tuple[Array, ...]  # of the axes of one sub-image's array in the large one, by sub-image: int (K^2, n)


def rules(before: MixerSpec, after: MixerSpec) -> dict[str, Change]:
    """What becomes of the parameters that follow from the resolution, by name. Raises: Misfit."""
    for name in (*ALIKE, *MEANING):
        here, there = getattr(after, name), getattr(before, name)
        if here != there:
            raise Misfit(f"model.{name}: expected {_told(there)}, as the weights have, got {_told(here)}")
    if before.num_patches == after.num_patches:
        return {}
    return {**dict(_position(before, after)), **dict(_expansions(before, after))}


def _told(value: object) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else str(value)


def _position(before: MixerSpec, after: MixerSpec) -> Iterator[tuple[str, Change]]:
    if (before.position_embedding, after.position_embedding) != ("learned", "learned"):
        return
    first, sides = before.num_positions - before.num_patches, (_side(before, 0), _side(after, 0))
    if first != after.num_positions - after.num_patches:
        raise Misfit(f"model.cls_position: expected {before.cls_position}, as the weights have")
    how = f"interpolated from {sides[0]} x {sides[0]} to {sides[1]} x {sides[1]}"
    yield "position_embedding", Change(how, lambda table: interpolated(table, sides[1], first))


def interpolated(table: Array, side: int, first: int = 0) -> Array:
    """A position embedding (first + n n, C) for another grid: (first + side side, C), bilinear, corners on corners.

    Args:   first: rows before those of the grid, such as the class token's, which stay as they are.
    Source: google-research/vision_transformer, checkpoint.py, interpolate_posembed; big_vision, models/vit.py,
            resample_posemb (scipy.ndimage.zoom of order 1). timm interpolates bicubically.
    """
    grid, old = table[first:], round((len(table) - first) ** 0.5)
    at = np.arange(side) * ((old - 1) / max(1, side - 1))  # where the new rows lie among the old ones
    low = np.minimum(at.astype(int), max(0, old - 2))
    line = np.zeros((side, old))
    line[np.arange(side), low] += 1 - (at - low)
    line[np.arange(side), np.minimum(low + 1, old - 1)] += at - low
    new = np.einsum("im,jn,mnc->ijc", line, line, grid.reshape(old, old, -1))
    return np.concatenate([table[:first], new.reshape(side * side, -1)])


def _expansions(before: MixerSpec, after: MixerSpec) -> Iterator[tuple[str, Change]]:
    """The parameters whose axes are tokens, or units of a token MLP."""
    names = [name for name in folds.shapes(after) if name.startswith("MixerBlock_")]
    found = [(name, _axes(after, name)) for name in names]
    found = [(name, axes) for name, axes in found if axes]
    if not found:
        return
    factor = _factor(before, after)
    how = f"expanded block-diagonally, K = {factor}"
    for name, axes in found:
        yield name, Change(how, _maker(before, int(name.split("/")[0].removeprefix("MixerBlock_")), axes, factor))


def _axes(spec: MixerSpec, name: str) -> tuple[str, ...]:
    """What the last axes of a block's parameter are, of those that follow from the resolution; empty: none does.

    `in`, `out`: tokens that come into the block, and go out; `hidden`: units of the token MLP; `each`: an index of
    tokens along which the weights are repeated; `same`: an axis that stays as it is.
    """
    block, branch, *inner = name.split("/")
    operator, part = spec.mixing_of(int(block.removeprefix("MixerBlock_"))), "/".join(inner)
    if branch == "channel_mixing" and spec.channel_mixing == "untied" and part.startswith("Dense_"):
        return ("each", "same", "same") if part.endswith("kernel") else ("each", "same")
    if branch != "token_mixing":
        return ()
    return AXES.get(operator, {}).get(part, ())


def _factor(before: MixerSpec, after: MixerSpec) -> int:
    """K. Raises: Misfit: the small image is no part of the large one, or the token MLP has another width."""
    factor, rest = divmod(after.image_size, before.image_size)
    operator = next((one for one in after.operators if one in AXES), "untied channel mixing")
    if rest or factor < 1:
        raise Misfit(
            f"data.image_size: {operator} of weights for {before.image_size} pixels can be expanded to a multiple of "
            f"them alone, got {after.image_size}"
        )
    if after.pool == "cls":
        raise Misfit(f"model.pool: a class token is in no sub-image, and {operator} cannot be expanded; expected mean")
    wanted = factor**2 * before.tokens_mlp_dim
    if set(WITH_D_S) & set(after.operators) and after.tokens_mlp_dim != wanted:
        raise Misfit(
            f"model.tokens_mlp_dim: at K = {factor} times the side of the image the token MLP is {factor**2} of the "
            f"weights' MLPs, of D_S {before.tokens_mlp_dim}; expected {wanted}, got {after.tokens_mlp_dim}"
        )
    return factor


def _maker(before: MixerSpec, i: int, axes: tuple[str, ...], factor: int) -> Callable[[Array], Array]:
    """What expands an array of block i."""
    grouped = before.token_groups if before.mixing_of(i) in ("grouped", "grouped_views") else 1
    hidden = np.arange(factor**2 * before.tokens_mlp_dim).reshape(factor**2, -1)
    places = {
        "in": sub_images(_side(before, i), factor, grouped),
        "out": sub_images(_side(before, i + 1), factor, grouped),
        "each": sub_images(_side(before, i + 1), factor),
        "hidden": hidden,
    }
    if axes[0] == "each":
        return lambda array: _repeated(array, places["each"])
    return lambda array: expanded(array, tuple(places[axis] for axis in axes))


def _side(spec: MixerSpec, i: int) -> int:
    """Tokens a side of what comes into block i."""
    return math.isqrt(spec.tokens_before(i) - (spec.pool == "cls"))


def sub_images(side: int, factor: int, groups: int = 1) -> Array:
    """Where the tokens of each sub-image lie in the large image, both in raster order: int (K^2, side side groups).

    Args: side: tokens a side of a sub-image.   groups: rows that each token has, one after the other.
    """
    large = np.arange((factor * side) ** 2 * groups).reshape(factor, side, factor, side, groups)
    return large.transpose(0, 2, 1, 3, 4).reshape(factor**2, -1)


def expanded(array: Array, places: Places) -> Array:
    """An array whose last axes are those of `places`, K^2 times along the diagonal of a larger one, zero elsewhere."""
    copies = array.shape[: array.ndim - len(places)]
    large = np.zeros((*copies, *(place.size for place in places)))
    for own in zip(*places, strict=True):
        large[(..., *np.ix_(*own))] = array
    return large


def _repeated(array: Array, places: Array) -> Array:
    """An array whose first axis is tokens, the same for each sub-image."""
    large = np.zeros((places.size, *array.shape[1:]))
    for own in places:
        large[own] = array
    return large
