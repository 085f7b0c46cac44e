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
    """The model, and its parameters by canonical name, the same numbers in the same type.

    Args:   arrays: as backends/weights/recognition.py selects them.
    Raises: NotAModel: the names are of no known format, or the shapes do not make one model.
    """
    known = recognise(arrays)
    num_blocks = known.count_blocks(arrays)
    table = known.table(num_blocks)
    params = {canonical: _read(arrays[name], name, layout) for canonical, (name, layout) in table.items()}
    model = _model(known, params, num_blocks)
    for canonical, shape in folds.shapes(model).items():
        name, layout = table[canonical]
        if params[canonical].shape != shape:
            fits = layout.write(np.broadcast_to(np.float32(0), shape)).shape
            raise NotAModel(
                f"its shapes do not make one model: {name!r} has {arrays[name].shape}, and the sizes in "
                f"{table['stem/kernel'][0]!r} and the first block ask for {fits}"
            )
    return model, {name: params[name] for name in folds.shapes(model)}


def from_canonical(model: ModelSpec, params: Mapping[str, Array], known: Format) -> State:
    """The same numbers under the names and in the layouts of a format.

    Raises: NotAModel: the format has no such model.
    """
    if not isinstance(model, MixerSpec):
        raise NotAModel(f"its model is no Mixer, and the format {known.name!r} has Mixers alone; save it as 'mixlab'")
    plain = {"token_mixing": "tied", "channel_mixing": "tied", "share_blocks": False, "position_embedding": "none"}
    plain["pre_head_norm"] = known.options.get("pre_head_norm", True)
    for name, allowed in plain.items():
        if getattr(model, name) != allowed:
            raise NotAModel(
                f"its model has {name} {getattr(model, name)!r}, and the format {known.name!r} has models of "
                f"{name} {allowed!r} alone; allowed for it: the format 'mixlab'"
            )
    table = known.table(model.num_blocks)
    return {table[name][0]: np.ascontiguousarray(table[name][1].write(params[name])) for name in table}


def differences(model: ModelSpec, known: Format) -> list[str]:
    """What the code of a format computes otherwise than the model, in words: `activation gelu, here gelu_tanh`."""
    here = {name: getattr(model, name) for name in ("activation", "norm_epsilon")}
    there = known.options
    return [f"{name} {there[name]}, here {value}" for name, value in here.items() if there[name] != value]


def _read(array: Array, name: str, layout: Layout) -> Array:
    """One array as the canonical form has it.

    Raises: NotAModel: it is not of this layout, or holds what no parameter is.
    """
    if array.dtype.kind != "f":
        raise NotAModel(f"{name!r} holds {array.dtype}, where floating-point numbers are allowed")
    if array.ndim != layout.axes or 0 in array.shape:
        raise NotAModel(f"{name!r} has shape {array.shape}, where {layout.axes} axes, none empty, are allowed")
    if not np.isfinite(array).all():
        raise NotAModel(f"{name!r} holds NaN or infinity, where finite numbers are allowed")
    try:
        return layout.read(array)
    except ValueError as error:
        raise NotAModel(f"{name!r} has shape {array.shape}, which does not fit its layer: {error}") from None


def _model(known: Format, params: Mapping[str, Array], num_blocks: int) -> MixerSpec:
    """The sizes that the stem, the first block and the head have.

    Raises: NotAModel: the tokens make no square image.
    """
    patch, _, channels, hidden = params["stem/kernel"].shape
    tokens, tokens_dim = params["MixerBlock_0/token_mixing/Dense_0/kernel"].shape
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise NotAModel(f"its token mixing is over {tokens} tokens, which make no square image; allowed: 1, 4, 9, ...")
    return MixerSpec(
        image_size=side * patch,
        image_channels=channels,
        num_classes=params["head/bias"].shape[0],
        patch_size=patch,
        hidden_dim=hidden,
        num_blocks=num_blocks,
        tokens_mlp_dim=tokens_dim,
        channels_mlp_dim=params["MixerBlock_0/channel_mixing/Dense_0/bias"].shape[0],
        **known.options,
    )
