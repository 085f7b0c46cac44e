"""Files of weights from elsewhere and of this project: .npz, .safetensors and .pth in, .npz and .safetensors out.

The project's own form, `mixlab`, is safetensors with canonical names, the model as metadata, and a checksum over both;
it holds every model, untied and grouped ones too. Pickles are never executed.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

import backends
from backends import parameters
from backends.contract import Array, ModelSpec, State
from backends.errors import MixlabError, choices
from backends.formats import FORMATS
from backends.weights import NotAModel, differences, from_canonical, recognise, to_canonical, unwrap
from experiments import checkpoint, files
from experiments.kept import evaluated
from experiments.spec import trial_from_json

OWN = "mixlab"
READABLE = (".npz", ".safetensors", ".pth", ".pt")
DEFAULT_FORMATS = {".npz": "official", ".safetensors": OWN}  # by the ending of the file to write
TARGETS = ("official", "timm", OWN)
SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, eq=False)
class Weights:
    """A model and its parameters by canonical name, in the type of the file."""

    format: str
    model: ModelSpec
    params: State


def read(path: Path) -> Weights:
    """The weights that a file holds.

    Raises: MixlabError: one sentence on what is wrong with the file and what is allowed.
    """
    _check_readable(path)
    try:
        arrays, metadata = _read_arrays(path)
        if checkpoint.CHECKSUMS.keys() & metadata.keys() and "mixlab" not in metadata:
            raise NotAModel("its header is damaged; convert or fetch it again")
        if "mixlab" in metadata:
            return _read_own(path, json.loads(metadata["mixlab"]))
        params = unwrap(arrays)
        return Weights(recognise(params).name, *to_canonical(params))
    except NotAModel as error:
        raise MixlabError(f"{path}: {error}") from None
    except MixlabError:
        raise
    except PermissionError:
        raise MixlabError(f"{path}: permission to read it is denied") from None
    except Exception as error:  # the readers of these forms document no common type
        why = (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
        raise MixlabError(
            f"{path}: it cannot be read as {path.suffix} ({why}); it is damaged or something else, fetch it again"
        ) from None


def write(path: Path, weights: Weights, target: str | None) -> tuple[str, list[str]]:
    """Write weights in a format, whole or not at all; gives the format and what its code computes otherwise.

    Args:   target: one of TARGETS; None: what is usual for the file's ending.
    Raises: MixlabError: the format has no such model, the ending no such format, or the file cannot be written.
    """
    target = target or DEFAULT_FORMATS.get(path.suffix, "")
    _check_writable(path, target)
    if target == OWN:
        content, notes = checkpoint.pack(weights.params, {"model": asdict(weights.model)}), []
    else:
        try:
            arrays = from_canonical(weights.model, weights.params, FORMATS[target])
        except NotAModel as error:
            raise MixlabError(f"{path}: {error}") from None
        content = save(arrays) if path.suffix == ".safetensors" else _npz(arrays)
        notes = differences(weights.model, FORMATS[target])
    try:
        files.replace(path, content)
    except OSError as error:
        raise MixlabError(f"{path}: it cannot be written ({error.strerror}); nothing was changed") from None
    return target, notes


def _check_readable(path: Path) -> None:
    if path.suffix not in READABLE:
        raise MixlabError(f"{path}: {path.suffix!r} is not a file of weights; {choices(path.suffix, READABLE)}")
    if path.is_file():
        return
    there = sorted(other.name for other in path.parent.glob("*") if other.suffix in READABLE)
    what = "it is a folder" if path.is_dir() else "there is no such file"
    raise MixlabError(f"{path}: {what}; {choices(path.name, there)}")


def _check_writable(path: Path, target: str) -> None:
    if path.suffix in (".pth", ".pt"):
        raise MixlabError(
            f"{path}: {path.suffix} is a pickle, which Mixlab reads and does not write; name the file "
            f"{path.with_suffix('.safetensors').name}, which torch programs read too"
        )
    if path.is_dir():
        raise MixlabError(f"{path}: it is a folder; name a file in it, such as {path / 'weights.safetensors'}")
    if path.suffix not in DEFAULT_FORMATS:
        raise MixlabError(f"{path}: {path.suffix!r} cannot be written; {choices(path.suffix, DEFAULT_FORMATS)}")
    if not path.parent.is_dir():
        raise MixlabError(f"{path}: there is no folder {path.parent}; make it first")
    if target == OWN and path.suffix != ".safetensors":
        raise MixlabError(
            f"{path}: the format {OWN!r} is a .safetensors file; name it {path.with_suffix('.safetensors').name}, or "
            f"choose --to official or timm"
        )


def _read_arrays(path: Path) -> tuple[State, dict[str, str]]:
    """Arrays and metadata."""
    if path.suffix == ".npz":
        return _read_npz(path), {}
    return _read_safetensors(path) if path.suffix == ".safetensors" else (backends.read_pickle(path), {})


def _read_npz(path: Path) -> State:
    arrays = {}
    with zipfile.ZipFile(path) as file:
        for member in file.namelist():  # read to its end, each is held against its checksum
            content = io.BytesIO(file.read(member))
            try:
                array = np.lib.format.read_array(content, allow_pickle=False)
            except ValueError as error:
                raise NotAModel(f"{member!r} is no array of numbers ({error}); allowed: arrays alone") from None
            arrays[member.removesuffix(".npy")] = _widened(array.view("<u2")) if array.dtype == "V2" else array
    return arrays


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    content = path.read_bytes()
    arrays = {}
    for name, entry in safetensors.deserialize(content):  # type: ignore[no-untyped-call]
        kind = entry["dtype"]
        if kind not in SAFETENSORS_TYPES:
            raise NotAModel(f"{name!r} holds {kind}; {choices(kind, SAFETENSORS_TYPES)}")
        array = np.frombuffer(entry["data"], SAFETENSORS_TYPES[kind]).reshape(entry["shape"])
        arrays[name] = _widened(array) if kind == "BF16" else array
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return arrays, header.get("__metadata__") or {}


def _widened(bits: Array) -> Array:
    """bfloat16 as float32, exactly; NumPy has no such type and stores its bits (in .npz: as bytes of no type, V2)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _read_own(path: Path, written: dict[str, Any]) -> Weights:
    """A file of the form `mixlab`, or the checkpoint of a trial with the trial's spec beside it."""
    try:
        if "model" not in written:
            return _read_checkpoint(path)
        model = ModelSpec(**written["model"])
        params, _ = checkpoint.read(path, parameters.shapes(model))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise NotAModel(f"what it says of its model cannot be used ({error}); convert it again") from None
    except checkpoint.CorruptCheckpoint as error:
        raise NotAModel(f"{error}; it is damaged, convert or fetch it again") from None
    return Weights(OWN, model, params)


def _read_checkpoint(path: Path) -> Weights:
    """The parameters that the trial would be evaluated with."""
    spec = path.with_name("spec.json")
    if not spec.is_file():
        raise NotAModel("it is the checkpoint of a trial, and the trial's spec.json is not beside it; put it there")
    trial = trial_from_json(json.loads(spec.read_text()))
    state, _ = checkpoint.read(path, parameters.state_shapes(trial.model, trial.optimizer))
    return Weights(OWN, trial.model, evaluated(trial, state))


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer, named = io.BytesIO(), dict[str, Any](arrays)
    np.savez(buffer, **named)
    return buffer.getvalue()
