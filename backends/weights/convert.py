"""Weights of public models to canonical names and back; see backends/weights/formats.py.

Nothing here reads a file; see experiments/weights/weight_files.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any

import numpy as np

from backends.arrays import Array, Shape, State
from backends.models import family_of, folds, name_of
from backends.specs import ModelSpec
from backends.weights.form import Format, Found, NotAModel, Row
from backends.weights.formats import FORMATS
from backends.weights.recognition import recognise, some
from backends.weights.told import check_told, in_words, option

# Fields that change nothing of what a model computes from its weights, and those that two codes may compute
# differently with the same weights.
IDLE = ("family", "dropout", "stochastic_depth", "rescale", "init")
FUNCTIONS = ("activation", "norm_epsilon")


def to_canonical(
    arrays: Mapping[str, Array], told: Mapping[str, Any] | None = None, noted: Mapping[str, Any] | None = None
) -> tuple[Found, State]:
    """The model of arrays, and its parameters by canonical name, the same numbers.

    Args:   arrays: as backends/weights/recognition.py selects them.
            told: fields of the spec that the user says.   noted: those that the file says.
    Raises: NotAModel: the names are of no known format, or the shapes do not make one model, or not what is told.
    """
    form, told, noted = recognise(arrays), told or {}, noted or {}
    check_told(told)
    rows = form.table(arrays)
    params = {name: x for row in rows for name, x in zip(row.canonical, _read(row, arrays), strict=True)}
    found = form.spec(form, form.reading(params, arrays, {**noted, **told}))
    own = {name: value for name, value in noted.items() if name in form.options}
    model = replace(found.model, **own)
    _check_told(form, model, told)
    _check_shapes(rows, model, arrays)
    return replace(found, model=model), {name: params[name] for name in folds.shapes(model)}


def from_canonical(model: ModelSpec, params: Mapping[str, Array], form: Format) -> State:
    """Parameters under the names and in the layouts of a format, the same numbers.

    Raises: NotAModel: the format has no such model.
    """
    if why := unlike(model, form):
        raise NotAModel(f"{why}; write it in the format 'mixlab'")
    return _written(model, params, form)


def _written(model: ModelSpec, params: Mapping[str, Array], form: Format) -> State:
    rows = form.table(params, canonical=True)
    return {
        name: np.asarray(x, order="C")
        for row in rows
        for name, x in zip(row.own, row.layout.write(model, *(params[name] for name in row.canonical)), strict=True)
    }


def written_as(model: ModelSpec, code: str) -> Format:
    """The format in which a code has a model: the first that has it, else the nearest of the model's family."""
    of_code = [form for form in FORMATS.values() if code in (form.code, form.name)]
    own = [form for form in of_code if form.family == name_of(model)] or of_code
    plain = family_of(model).plain(model)
    alike = [form for form in own if not unlike(model, form)]
    nearest: Format = min(alike[:1] or own, key=lambda form: len(list(_differing(plain, form))))
    return nearest


def unlike(model: ModelSpec, form: Format) -> str:
    """What keeps a model from being written in a format, in words; empty where nothing does."""
    if (family := name_of(model)) != form.family:
        return f"its model is of the family {family!r}, and the format {form.name!r} holds {form.family!r} alone"
    model = family_of(model).plain(model)
    for name, allowed in _differing(model, form):
        return (
            f"its model has {name} {getattr(model, name)!r}, and the format {form.name!r} holds models of {name} "
            f"{allowed!r} alone"
        )
    return _lost(model, form)


def _differing(model: ModelSpec, form: Format) -> Iterator[tuple[str, Any]]:
    """Options that are not those which all models of a format have, with what they have."""
    for f in fields(model):
        name, allowed = f.name, form.options.get(f.name, f.default)
        if name in (*IDLE, *FUNCTIONS, *form.reads, *form.asks) or allowed is MISSING:  # a size, which arrays tell
            continue
        same = getattr(model, name) == allowed or (name == "layer_scale" and getattr(model, name) > 0 < allowed)
        if not same:
            yield name, allowed


def _lost(model: ModelSpec, form: Format) -> str:
    """What of a model is not there when the format is read again, in words; empty where it is the same.

    Two of its blocks tell it; all of them would be as many arrays as there are weights.
    """
    model = family_of(model).shallow(model, 2)
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in folds.shapes(model).items()}
    told = {name: getattr(model, name) for name in form.asks}
    noted = {name: getattr(model, name) for name in form.options}
    try:
        again = to_canonical(_written(model, empty, form), told, noted)[0].model
    except (NotAModel, KeyError) as error:
        return f"its model has no place in the format {form.name!r}: {error}"
    others = (f.name for f in fields(model) if f.name not in (*IDLE, "layer_scale"))
    lost = [name for name in others if getattr(again, name) != getattr(model, name)]
    return f"the format {form.name!r} does not keep its {lost[0]} {getattr(model, lost[0])!r}" if lost else ""


def differences(model: ModelSpec, form: Format) -> list[str]:
    """Differences between what the code of a format and the model compute: `activation gelu, here gelu_tanh`."""
    here = {name: getattr(model, name) for name in FUNCTIONS if name in form.options}
    return [f"{name} {form.options[name]}, here {value}" for name, value in here.items() if form.options[name] != value]


def _read(row: Row, arrays: Mapping[str, Array]) -> tuple[Array, ...]:
    """The parameters of a row.

    Raises: NotAModel: its arrays are not of this layout, or hold what no parameter is.
    """
    own = [arrays[name] for name in row.own]
    for name, array, axes in zip(row.own, own, row.layout.axes, strict=True):
        _check_array(name, array, axes)
    try:
        return row.layout.read(*own)
    except ValueError as error:
        shapes = ", ".join(f"{name!r} has shape {x.shape}" for name, x in zip(row.own, own, strict=True))
        raise NotAModel(f"{shapes}, which does not fit its layer: {error}") from error


def _check_array(name: str, array: Array, axes: int) -> None:
    if array.dtype.kind not in ("f" if axes else "fiu"):  # without an axis: a count
        raise NotAModel(f"{name!r}: expected floating-point numbers, got {array.dtype}")
    if array.ndim != axes or 0 in array.shape:
        raise NotAModel(f"{name!r}: expected {axes} axes, none empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise NotAModel(f"{name!r}: expected finite numbers, got NaN or infinity")


def _check_told(form: Format, model: ModelSpec, told: Mapping[str, Any]) -> None:
    for name, value in told.items():
        own = getattr(model, name, None)
        if own != value and not (isinstance(value, tuple) and set(value) == {own}):
            says = f"its arrays say {in_words(own)}" if own is not None else "its model has no such thing"
            raise NotAModel(f"{option(name)}: {says}, got {in_words(value)}; leave it out")


def _check_shapes(rows: list[Row], model: ModelSpec, arrays: Mapping[str, Array]) -> None:
    """Check that the arrays are those of the model, all of them.

    Raises: NotAModel: names the first array that is not.
    """
    shapes: Mapping[str, Shape] = folds.shapes(model)
    known = {name for row in rows for name in row.canonical}
    if strange := [row.own[0] for row in rows if not shapes.keys() >= set(row.canonical)]:
        raise NotAModel(f"its arrays do not make one model: by the first block, it has {some(strange)} besides")
    if missing := sorted(shapes.keys() - known):
        raise NotAModel(f"its arrays do not make one model: by the first block, it lacks {some(missing)}")
    for row in rows:
        empty = [np.broadcast_to(np.float32(0), shapes[name]) for name in row.canonical]
        for name, expected in zip(row.own, row.layout.write(model, *empty), strict=True):
            if arrays[name].shape != expected.shape:
                raise NotAModel(
                    f"its shapes do not make one model: by {rows[0].own[0]!r} and the first block, expected "
                    f"{name!r} of {expected.shape}, got {arrays[name].shape}"
                )
