"""Weights from elsewhere and of this project: many forms in (array_files.py), .npz and .safetensors out.

The project's own form, `mixlab`, is safetensors with canonical names, the model as metadata, and a checksum over both;
it holds every model, untied and grouped ones too. Pickles are never executed.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from backends.arrays import Array, State
from backends.errors import MixlabError, choices
from backends.models import folds, read_spec
from backends.specs import ModelSpec
from backends.state import state_shapes
from backends.weights.convert import differences, from_canonical, to_canonical, written_as
from backends.weights.form import Format, NotAModel
from backends.weights.recognition import Origin, recognise, select
from experiments import files
from experiments.results import checkpoint
from experiments.results.kept import evaluated
from experiments.spec.trial import trial_from_json
from experiments.weights import array_files
from experiments.weights.file_content import Content, NotWeights
from experiments.weights.pickles import Harmful

OWN = "mixlab"
# Usual endings of files of weights; the content decides what a file is.
READABLE = (".npz", ".safetensors", ".msgpack", ".pth", ".pt", ".ckpt", ".bin", ".tar")
DEFAULT_FORMATS = {".npz": "official", ".safetensors": OWN}  # by the ending of the file to write
TARGETS = ("official", "timm", OWN)
NOTED = "mixlab_model"  # in the metadata of a public format: what its names and shapes cannot tell, as JSON
PART_OF_SEVERAL = re.compile(r".*-\d{5}-of-\d{5}\.\w+")


@dataclass(frozen=True, eq=False)
class Weights:
    """A model and its parameters by canonical name, in the type of the file.

    classes: names of the classes in the order of the logits, where the file tells them.   origin: their place in it.
    skipped: objects in the file that are no arrays, counted by kind.   settings: what the training script was told.
    assumed: fields of the model that neither the file nor the user tells, and why each has its value.
    """

    format: str
    model: ModelSpec
    params: State
    classes: tuple[str, ...] | None = None
    origin: Origin = field(default_factory=Origin)
    skipped: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    assumed: Mapping[str, str] = field(default_factory=dict)


def read(path: Path, ema: bool = False, group: str | None = None, told: Mapping[str, Any] | None = None) -> Weights:
    """The weights that a file holds.

    Args:   ema: take the average of the weights that lies beside them.   group: take the model below this prefix.
            told: fields of the model that the file may not tell.
    Raises: MixlabError: one sentence on what is wrong with the file and what is allowed.
    """
    _check_readable(path)
    try:
        return _weights(path, array_files.read(path), ema, group, told or {})
    except (NotAModel, NotWeights) as error:
        part = "; it is one file of several, join them first" if PART_OF_SEVERAL.fullmatch(path.name) else ""
        raise MixlabError(f"{path}: {error}{part}") from error
    except Harmful as error:
        raise MixlabError(
            f"{path}: it is a pickle that asks for {error}, which no weights need; nothing of it was run, and no other "
            f"program should open it"
        ) from error
    except MixlabError:
        raise
    except PermissionError as error:
        raise MixlabError(f"{path}: permission to read it is denied") from error
    except Exception as error:  # the readers of these forms document no common type
        raise _unreadable(path, error) from error


def _weights(path: Path, content: Content, ema: bool, group: str | None, told: Mapping[str, Any]) -> Weights:
    metadata = content.metadata
    if checkpoint.CHECKSUMS.keys() & metadata.keys() and "mixlab" not in metadata:
        raise NotAModel("its header is damaged; convert or fetch it again")
    if "mixlab" in metadata:
        given = ["ema"] * ema + ["group"] * (group is not None) + list(told)
        if given:
            raise NotAModel(
                f"--{given[0].replace('_', '-')}: a file of the form {OWN!r} holds one model alone and tells all of "
                f"it; leave the option out"
            )
        return _read_own(path, json.loads(metadata["mixlab"]))
    params, origin = select(content.arrays, ema, group)
    noted = json.loads(metadata.get(NOTED, "{}"))
    options = {name: tuple(x) if isinstance(x, list) else x for name, x in noted.get("options", {}).items()}
    found, canonical = to_canonical(params, told, options)
    classes = _classes({"model": asdict(found.model), "classes": noted.get("classes")})
    name, settings = recognise(params).name, metadata or content.settings
    return Weights(name, found.model, canonical, classes, origin, content.skipped, settings, found.assumed)


def noted_content(weights: Weights, form: Format) -> bytes:
    """Safetensors in a public format, which notes for `read` what the format cannot tell; the same bytes each time.

    Raises: NotAModel: the format has no such model.
    """
    options = {name: getattr(weights.model, name) for name in (*form.options, *form.asks)}
    classes = {} if weights.classes is None else {"classes": list(weights.classes)}
    arrays = from_canonical(weights.model, weights.params, form)
    return bytes(save(arrays, metadata={NOTED: json.dumps({"options": options, **classes})}))


def _unreadable(path: Path, error: Exception) -> MixlabError:
    if isinstance(error, array_files.Unknown) and path.suffix not in READABLE:
        return MixlabError(f"{path}: expected a file of weights, got {path.suffix!r}; {choices(path.suffix, READABLE)}")
    if isinstance(error, zipfile.BadZipFile) and "CRC" in str(error):
        return MixlabError(f"{path}: a checksum does not match its content ({error}); it is damaged, fetch it again")
    why = (str(error).splitlines() or [""])[0].rstrip(".")[:120] or type(error).__name__
    return MixlabError(
        f"{path}: it cannot be read as {path.suffix or 'weights'} ({why}); it is damaged or something else, fetch it "
        f"again"
    )


def write(path: Path, weights: Weights, target: str | None) -> tuple[str, list[str]]:
    """Write weights in a format, whole or not at all; gives the format and what its code computes differently.

    Args:   target: one of TARGETS; None: the usual one for the file's ending.
    Raises: MixlabError: the format has no such model, the ending no such format, or the file cannot be written.
    """
    target = target or DEFAULT_FORMATS.get(path.suffix, "")
    _check_writable(path, target)
    if target == OWN:
        classes = {"classes": list(weights.classes)} if weights.classes is not None else {}
        content, notes = checkpoint.pack(weights.params, {"model": asdict(weights.model), **classes}), []
    else:
        form = written_as(weights.model, target)
        try:
            arrays = from_canonical(weights.model, weights.params, form)
        except NotAModel as error:
            raise MixlabError(f"{path}: {error}") from error
        content = save(arrays) if path.suffix == ".safetensors" else _npz(arrays)
        target, notes = form.name, differences(weights.model, form)
    try:
        files.replace(path, content)
    except OSError as error:
        raise MixlabError(f"{path}: it cannot be written ({error.strerror}); nothing was changed") from error
    return target, notes


def _check_readable(path: Path) -> None:
    if path.is_file():
        return
    folder = path if path.is_dir() else path.parent
    there = sorted(other.name for other in folder.glob("*") if other.suffix in READABLE)
    what = "it is a folder" if path.is_dir() else "there is no such file"
    raise MixlabError(f"{path}: {what}; {choices(path.name, there) if there else f'{folder} holds no weights'}")


def _check_writable(path: Path, target: str) -> None:
    if path.suffix in (".pth", ".pt", ".ckpt", ".bin"):
        raise MixlabError(
            f"{path}: {path.suffix} is a pickle, which Mixlab reads but does not write; name the file "
            f"{path.with_suffix('.safetensors').name}, which torch programs read too"
        )
    if path.is_dir():
        raise MixlabError(f"{path}: it is a folder; name a file in it, such as {path / 'weights.safetensors'}")
    if path.suffix not in DEFAULT_FORMATS:
        raise MixlabError(
            f"{path}: expected a file that can be written, got {path.suffix!r}; {choices(path.suffix, DEFAULT_FORMATS)}"
        )
    if not path.parent.is_dir():
        raise MixlabError(f"{path}: there is no folder {path.parent}; make it first")
    if target == OWN and path.suffix != ".safetensors":
        raise MixlabError(
            f"{path}: the format {OWN!r} is a .safetensors file; name it {path.with_suffix('.safetensors').name}, or "
            f"choose --to official or timm"
        )


def _read_own(path: Path, written: dict[str, Any]) -> Weights:
    """Read a file of the form `mixlab`, or the checkpoint of a trial with the trial's spec beside it."""
    try:
        if "model" not in written:
            return _read_checkpoint(path)
        model, classes = read_spec(written["model"]), _classes(written)
        params, _ = checkpoint.read(path, folds.shapes(model))
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise NotAModel(f"its description of the model cannot be used ({error}); convert it again") from error
    except checkpoint.CorruptCheckpoint as error:
        raise NotAModel(f"{error}; it is damaged, convert or fetch it again") from error
    return Weights(OWN, model, params, classes)


def _classes(written: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names of classes. Raises: ValueError: they are not one for each class of the model."""
    if written.get("classes") is None:
        return None
    classes = tuple(map(str, written["classes"]))
    if len(classes) != written["model"]["num_classes"]:
        raise ValueError(f"{len(classes)} names for {written['model']['num_classes']} classes")
    return classes


def _read_checkpoint(path: Path) -> Weights:
    """Read the parameters of a checkpoint that an evaluation of its trial would use."""
    spec = path.with_name("spec.json")
    if not spec.is_file():
        raise NotAModel("it is the checkpoint of a trial, and the trial's spec.json is not beside it; put it there")
    trial = trial_from_json(json.loads(spec.read_text()))
    state, _ = checkpoint.read(path, state_shapes(trial.model, trial.optimizer))
    return Weights(OWN, trial.model, evaluated(trial, state))


def _npz(arrays: Mapping[str, Array]) -> bytes:
    buffer, named = io.BytesIO(), dict[str, Any](arrays)
    np.savez(buffer, **named)
    return buffer.getvalue()
