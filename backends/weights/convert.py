"""Weights of public Mixers to canonical names and back; the formats are the tables of backends/weights/formats.py.

Nothing here reads a file; see experiments/weights/weight_files.py.
"""

import math
from collections.abc import Mapping

import numpy as np

from backends.arrays import Array, State
from backends.models import folds
from backends.models.mixer_spec import MixerSpec
from backends.specs import ModelSpec
from backends.weights.formats import Format, Layout
from backends.weights.recognition import NotAModel, recognise


def to_canonical(arrays: Mapping[str, Array]) -> tuple[MixerSpec, State]:
    """The model of arrays, and its parameters by canonical name, the same numbers in the same type.

    Args:   arrays: as backends/weights/recognition.py selects them.
    Raises: NotAModel: the names are of no known format, or the shapes do not make one model.
    """
    form = recognise(arrays)
    num_blocks = form.count_blocks(arrays)
    table = form.table(num_blocks)
    params = {canonical: _read(arrays[name], name, layout) for canonical, (name, layout) in table.items()}
    model = _model(form, params, num_blocks)
    for canonical, shape in folds.shapes(model).items():
        name, layout = table[canonical]
        if params[canonical].shape != shape:
            fits = layout.write(np.broadcast_to(np.float32(0), shape)).shape
            raise NotAModel(
                f"its shapes do not make one model: by {table['stem/kernel'][0]!r} and the first block, expected "
                f"{name!r} of {fits}, got {arrays[name].shape}"
            )
    return model, {name: params[name] for name in folds.shapes(model)}


def from_canonical(model: ModelSpec, params: Mapping[str, Array], form: Format) -> State:
    """Parameters under the names and in the layouts of a format, the same numbers.

    Raises: NotAModel: the format has no such model.
    """
    if why := unlike(model, form):
        raise NotAModel(f"{why}; write it in the format 'mixlab'")
    assert isinstance(model, MixerSpec)
    table = form.table(model.num_blocks)
    return {table[name][0]: np.ascontiguousarray(table[name][1].write(params[name])) for name in table}


def unlike(model: ModelSpec, form: Format) -> str:
    """What keeps a model from being written in a format, in words; empty where nothing does."""
    if not isinstance(model, MixerSpec):
        return f"its model is no Mixer, and the format {form.name!r} has Mixers alone"
    plain = {"token_mixing": "tied", "channel_mixing": "tied", "share_blocks": False, "position_embedding": "none"}
    plain["pre_head_norm"] = form.options.get("pre_head_norm", True)
    for name, allowed in plain.items():
        if getattr(model, name) != allowed:
            return (
                f"its model has {name} {getattr(model, name)!r}, and the format {form.name!r} holds models of {name} "
                f"{allowed!r} alone"
            )
    return ""


def differences(model: ModelSpec, form: Format) -> list[str]:
    """Differences between what the code of a format and the model compute: `activation gelu, here gelu_tanh`."""
    here = {name: getattr(model, name) for name in ("activation", "norm_epsilon")}
    there = form.options
    return [f"{name} {there[name]}, here {value}" for name, value in here.items() if there[name] != value]


def _read(array: Array, name: str, layout: Layout) -> Array:
    """An array as the canonical form has it.

    Raises: NotAModel: it is not of this layout, or holds what no parameter is.
    """
    if array.dtype.kind != "f":
        raise NotAModel(f"{name!r}: expected floating-point numbers, got {array.dtype}")
    if array.ndim != layout.axes or 0 in array.shape:
        raise NotAModel(f"{name!r}: expected {layout.axes} axes, none empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise NotAModel(f"{name!r}: expected finite numbers, got NaN or infinity")
    try:
        return layout.read(array)
    except ValueError as error:
        raise NotAModel(f"{name!r} has shape {array.shape}, which does not fit its layer: {error}") from error


def _model(form: Format, params: Mapping[str, Array], num_blocks: int) -> MixerSpec:
    """The spec with the sizes of the stem, the first block and the head.

    Raises: NotAModel: the tokens make no square image.
    """
    patch, _, channels, hidden = params["stem/kernel"].shape
    tokens, tokens_dim = params["MixerBlock_0/token_mixing/Dense_0/kernel"].shape
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise NotAModel(f"expected a square number of tokens (1, 4, 9, ...) in its token mixing, got {tokens}")
    return MixerSpec(
        image_size=side * patch,
        image_channels=channels,
        num_classes=params["head/bias"].shape[0],
        patch_size=patch,
        hidden_dim=hidden,
        num_blocks=num_blocks,
        tokens_mlp_dim=tokens_dim,
        channels_mlp_dim=params["MixerBlock_0/channel_mixing/Dense_0/bias"].shape[0],
        **form.options,
    )
