"""Files of arrays, recognised by their content: .npz, safetensors, Flax's msgpack, and both forms of torch.save.

The ending of a file's name decides nothing here. A known form without weights is refused, with the way to them.
"""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import safe_open

from backends.arrays import Array, State
from experiments.weights import torch_files
from experiments.weights.file_content import BFLOAT16, Content, NotWeights, widened

FLOATS = ("F64", "F32", "F16", "BF16")  # of safetensors, that weights may be
MSGPACK_MAPS = (*range(0x80, 0x90), 0xDE, 0xDF)  # first bytes of a msgpack file that holds a mapping
CHUNKED = "__msgpack_chunked_array__"  # Flax cuts arrays of more than a GiB
# How files begin that are no weights, and what to do about it.
STRANGERS = (
    (b"version https://git-lfs", "it is a pointer of Git LFS and not the file itself; fetch that with: git lfs pull"),
    (b"<!DOCTYPE", "it is a web page, saved in place of the file; fetch the file itself"),
    (b"<html", "it is a web page, saved in place of the file; fetch the file itself"),
    (
        b"\x89HDF",
        "it is HDF5, which Mixlab does not read; save the arrays with numpy.savez under the names of a known format",
    ),
    (b"\x93NUMPY", "it is one array without a name; save all arrays of the model with numpy.savez"),
    (b"\x1f\x8b", "it is compressed by gzip; unpack it first"),
    (b"BZh", "it is compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ", "it is compressed by xz; unpack it first"),
)


class Unknown(ValueError):
    """The error that the content is of no form that is read."""


def read(path: Path) -> Content:
    """The arrays of a file and what lies beside them.

    Raises: Unknown; NotWeights; others of the readers of each form.
    """
    with path.open("rb") as file:
        start = file.read(4096)
        file.seek(0)
        if not any(start):
            raise NotWeights(
                f"it {'begins with zeros' if start else 'is empty'}, like a download that broke off; fetch it again"
            )
        for first, sentence in STRANGERS:
            if start.lower().startswith(first.lower()):
                raise NotWeights(sentence)
        if start.startswith(b"PK"):
            return _read_zip(path)
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:
            return _read_safetensors(path)
        if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return torch_files.read_stream(file)
        if start[257:262] == b"ustar" or _is_old_tar(path):
            raise NotWeights(_tar_sentence(path))
        if start[:1] == b"{":
            raise NotWeights(_json_sentence(path))
        if start and start[0] in MSGPACK_MAPS:
            return Content(_read_msgpack(file))
    raise Unknown("its first bytes are those of no file of arrays")


def _read_zip(path: Path) -> Content:
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
        if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
            return torch_files.read_zip(file)
        if not names or any(name.endswith(".npy") for name in names):
            return Content(_read_npz(file))
        if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
            return torch_files.read_zip(file)
    raise NotWeights(f"it is a zip of other files ({', '.join(map(repr, names[:3]))}); unpack it, and name the weights")


def _read_npz(file: zipfile.ZipFile) -> State:
    arrays = {}
    for member in file.namelist():  # read to its end, each is held against its checksum
        content = io.BytesIO(file.read(member))
        try:
            array = np.lib.format.read_array(content, allow_pickle=False)
        except ValueError as error:
            raise NotWeights(f"expected arrays of numbers alone, but {member!r} is none ({error})") from error
        arrays[member.removesuffix(".npy")] = widened(array.view(BFLOAT16) if array.dtype == "V2" else array)
    return arrays


def _read_safetensors(path: Path) -> Content:
    with safe_open(path, framework="numpy") as file:
        arrays = {name: _tensor(file, name) for name in file.keys()}  # noqa: SIM118
        return Content(arrays, file.metadata() or {})


def _tensor(file: Any, name: str) -> Array:
    """An array of any type that NumPy has: a counter or a mask may lie beside weights.

    Raises: NotWeights: it is of another, such as float8.
    """
    try:
        return widened(file.get_tensor(name))
    except (AttributeError, TypeError) as error:  # safe_open looks the type up in NumPy
        kind = file.get_slice(name).get_dtype()
        raise NotWeights(f"{name!r}: expected {', '.join(FLOATS)}, got {kind}") from error


def _read_msgpack(file: BinaryIO) -> State:
    """Read what flax.serialization.to_bytes writes: nested mappings, arrays as an extension of shape, type, bytes."""
    import msgpack

    tree = msgpack.unpackb(file.read(), ext_hook=_msgpack_array, raw=False, strict_map_key=False)
    return _flat(tree, "")


def _msgpack_array(code: int, data: bytes) -> Any:
    import msgpack

    if code not in (1, 3):  # an array, a NumPy scalar
        return None
    shape, kind, content = msgpack.unpackb(data, raw=False)
    dtype = BFLOAT16 if kind == "bfloat16" else np.dtype(kind).newbyteorder("<")
    return widened(np.frombuffer(content, dtype).reshape(shape))


def _flat(tree: Any, prefix: str) -> State:
    if isinstance(tree, np.ndarray):
        return {prefix: tree}
    if not isinstance(tree, dict):
        return {}
    if tree.get(CHUNKED):
        chunks = tree["chunks"]
        parts = [chunks[str(i)] for i in range(len(chunks))]
        return {prefix: np.concatenate(parts).reshape([tree["shape"][str(i)] for i in range(len(tree["shape"]))])}
    arrays: State = {}
    for key, value in tree.items():
        arrays |= _flat(value, f"{prefix}/{key}" if prefix else str(key))
    return arrays


def _is_old_tar(path: Path) -> bool:
    """Tell whether it is a tar of the form before 1988, which has no mark; a compressed one does not count."""
    try:
        with tarfile.open(path, "r:"):
            return True
    except tarfile.TarError:
        return False


def _tar_sentence(path: Path) -> str:
    with tarfile.open(path, "r:") as file:
        names = file.getnames()
    if {"storages", "tensors", "pickle"} <= set(names):
        return "it is of torch before 0.1.10, which Mixlab does not read; load it with an old torch and save it again"
    return f"it is a tar of other files ({', '.join(map(repr, names[:3]))}); unpack it, and name the weights in it"


def _json_sentence(path: Path) -> str:
    try:
        parts = sorted(set(json.loads(path.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "it is text and holds no arrays; name the file of weights itself"
    return (
        f"it is the index of a model in {len(parts)} files ({', '.join(map(repr, parts[:3]))}), which are not read "
        f"apart; join them first, as in model.save_pretrained(folder, max_shard_size='100GB')"
    )
