"""Readers of torch.save's files, of both forms, as NumPy arrays: without torch, and without running what is in them.

The form of today is a zip: a pickle `data.pkl` that tells of tensors, and a member `data/<key>` for each storage. The
form before torch 1.6 is five pickles, the fourth of them the object, then the storages one after another.
"""

import io
import math
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from backends.arrays import Array
from experiments.weights import pickles
from experiments.weights.file_content import BFLOAT16, Content, NotWeights, widened
from experiments.weights.pickles import Call, Damaged, Reference, Tree

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_EXPANDED_BYTES = 2**28  # of a tensor whose axes of stride 0 make it larger than its storage
MAX_VISITS = 10**6  # dicts that hold each other many times over would take for ever
KINDS = {  # of the elements of a storage, by the name of its class
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "BFloat16": "u2",  # the bits: NumPy does not swap the bytes of a bfloat16
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "?",
    "ComplexFloat": "c8",
    "ComplexDouble": "c16",
    "Untyped": "u1",
}
MAPPINGS = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict")
REBUILD = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
PARAMETER = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
TYPED = ("torch._tensor._rebuild_from_type", "torch._tensor._rebuild_from_type_v2")
NUMPY = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
CODED = "_codecs.encode"  # bytes, as protocol 2 writes them
PARTS = (
    "numpy.dtype",
    CODED,
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "builtins.set",
    "__builtin__.set",
)
SETTINGS = ("args", "hyper_parameters", "hparams", "config")  # where training scripts put what they were told


def read_zip(file: zipfile.ZipFile) -> Content:
    """Read the form of today.

    Raises: NotWeights: it is a program of TorchScript.   Damaged, zipfile.BadZipFile, pickles.Harmful.
    """
    members = {name.partition("/")[2]: name for name in file.namelist()}  # below one folder of any name
    if "constants.pkl" in members or any(name.startswith("code/") for name in members):
        raise NotWeights(
            "it is a program of TorchScript, which Mixlab does not run; save its weights where it was made, as in "
            "torch.save(model.state_dict(), 'weights.pth')"
        )
    content = {name: file.read(member) for name, member in members.items()}  # each is held against its checksum
    order = ">" if content.get("byteorder", b"little") == b"big" else "<"
    tree = pickles.read(io.BytesIO(content["data.pkl"]))
    return _content(tree, lambda key: content[f"data/{key}"], order)


def read_stream(file: BinaryIO) -> Content:
    """Read the form before torch 1.6, or a plain pickle of NumPy arrays.

    Raises: Damaged, pickles.Harmful.
    """
    tree = pickles.read(file)
    if tree.value != LEGACY_MAGIC:
        return _content(tree, lambda key: b"", "<")
    _, about, tree, keys = (pickles.read(file) for _ in range(4))
    order = "<" if about.value.get("little_endian", True) else ">"
    ids = {storage_id[2]: storage_id for storage_id in map(_storage_id, tree.references)}
    storages = {}
    for key in keys.value:
        if _kind(ids[key]) not in KINDS:
            raise Damaged(f"it holds numbers of the kind {_kind(ids[key])!r}, whose size is not known here")
        size = np.dtype(KINDS[_kind(ids[key])]).itemsize * int(ids[key][4])
        file.read(8)  # the number of elements, which the references tell too
        storages[key] = file.read(size)
        if len(storages[key]) < size:
            raise Damaged("it ends before its last storage")
    return _content(tree, storages.__getitem__, order)


def _storage_id(reference: Reference) -> Any:
    """The storage that a reference names: ('storage', class, key, location, number of elements, ...)."""
    if not (isinstance(reference.key, tuple) and len(reference.key) >= 5 and reference.key[0] == "storage"):
        raise Damaged("it refers to something that is no storage")
    return reference.key


def _kind(storage_id: Any) -> str:
    return str(storage_id[1]).rpartition(".")[2].removesuffix("Storage")


def _content(tree: Tree, storage: Callable[[Any], bytes], order: str) -> Content:
    reader = _Reader(storage, order)
    arrays = dict(reader.walk(tree.value, "", ()))
    understood = {*MAPPINGS, *REBUILD, *PARAMETER, *TYPED, *NUMPY, *PARTS}
    skipped = Counter(str(call) for call in tree.calls if str(call) not in understood or id(call) in reader.unread)
    return Content(arrays, {}, dict(skipped), _settings(tree.value))


@dataclass
class _Reader:
    storage: Callable[[Any], bytes]
    order: str
    unread: set[int] = field(default_factory=set)  # ids of calls that make an array of a kind that is not read
    visits: int = 0

    def walk(self, value: Any, path: str, above: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
        """Arrays with their names: those in mappings and lists, and the parameters and buffers of a whole module."""
        self.visits += 1
        if id(value) in above or self.visits > MAX_VISITS:
            raise Damaged("it holds itself")
        if isinstance(value, Call) and (array := self._array(value)) is not None:
            yield path, array
            return
        if isinstance(value, Call) and _is_module(value.state):
            yield from self._module(value.state, f"{path}/" if path else "", (*above, id(value)))
        held = enumerate(value) if isinstance(value, list | tuple) else _mapping(value).items()
        for key, inner in held:
            if isinstance(inner, dict | list | tuple | Call):
                yield from self.walk(inner, f"{path}/{key}" if path else str(key), (*above, id(value)))

    def _module(self, state: Any, prefix: str, above: tuple[int, ...]) -> Iterator[tuple[str, Array]]:
        """Arrays of a module, named as in its state_dict."""
        if len(above) > 100:
            raise Damaged("it holds itself")
        passing = _values(state.get("_non_persistent_buffers_set"))
        for kind in ("_parameters", "_buffers"):
            for key, inner in _mapping(state.get(kind)).items():
                if isinstance(inner, Call) and key not in passing and (array := self._array(inner)) is not None:
                    yield f"{prefix}{key}", array
        for key, inner in _mapping(state["_modules"]).items():
            if isinstance(inner, Call) and _is_module(inner.state):
                yield from self._module(inner.state, f"{prefix}{key}.", (*above, id(inner)))

    def _array(self, call: Call) -> Array | None:
        """The array that a call makes; None: it makes none, or one of a kind that is not read."""
        name, arguments = str(call.function), call.arguments
        if name in PARAMETER:
            return self._array(arguments[0])
        if name in TYPED:  # (function, class, arguments, state)
            return self._array(Call(arguments[0], arguments[2]))
        if name in REBUILD:
            array = self._tensor(*arguments[:4])
            self.unread |= set() if array is not None else {id(call)}
            return array
        return _numpy_array(call) if name in NUMPY else None

    def _tensor(self, reference: Any, offset: int, shape: Any, strides: Any) -> Array | None:
        storage_id = _storage_id(reference)
        kind = _kind(storage_id)
        if kind not in KINDS:
            return None
        view = storage_id[5] if len(storage_id) > 5 else None
        if view is not None:
            raise Damaged("its storages are views of others, which torch has not written for years; save it again")
        return _strided(self.storage(storage_id[2]), kind, self.order, offset, tuple(shape), tuple(strides))


def _strided(
    buffer: bytes, kind: str, order: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> Array:
    """A view of a storage in the machine's order of bytes; NumPy checks that it lies inside.

    Raises: Damaged.
    """
    dtype = np.dtype(order + KINDS[kind])
    if min(strides, default=0) < 0:
        raise Damaged("a tensor has negative strides, which torch never writes")
    if math.prod(shape) * dtype.itemsize > max(len(buffer), MAX_EXPANDED_BYTES):
        raise Damaged("a tensor is larger than its storage")
    steps = [stride * dtype.itemsize for stride in strides]
    if 0 in shape:
        return np.empty(shape, dtype.newbyteorder("="))
    array: Array = np.ndarray(shape, dtype, buffer, offset * dtype.itemsize, steps)
    array = array.astype(dtype.newbyteorder("="), copy=False)
    return widened(array.view(BFLOAT16)) if kind == "BFloat16" else array


def _numpy_array(call: Call) -> Array | None:
    if not (isinstance(call.state, tuple) and len(call.state) == 5):
        return None
    _, shape, dtype, fortran, data = call.state
    if not (isinstance(dtype, Call) and str(dtype) == "numpy.dtype" and isinstance(dtype.state, tuple)):
        return None
    kind = str(dtype.arguments[0])
    if isinstance(data, Call) and str(data) == CODED:
        data = data.arguments[0]
    if kind[:1] not in "fiub" or not isinstance(data, bytes | str):
        return None
    content = data.encode("latin-1") if isinstance(data, str) else data
    array = np.frombuffer(content, np.dtype(kind).newbyteorder(">" if dtype.state[1] == ">" else "<"))
    return array.reshape(shape, order="F" if fortran else "C").astype(array.dtype.newbyteorder("="), copy=False)


def _is_module(state: Any) -> bool:
    return isinstance(state, dict) and "_parameters" in state and "_modules" in state


def _mapping(value: Any) -> Mapping[Any, Any]:
    """The items of a dict, or of an object that is filled like one."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, Call):
        return {}
    pairs = value.arguments[0] if str(value.function) in MAPPINGS and value.arguments else ()
    filled = {pair[0]: pair[1] for pair in pairs if len(pair) == 2} if isinstance(pairs, list | tuple) else {}
    return {**filled, **value.items}


def _values(value: Any) -> set[Any]:
    """The texts in a set; protocol 2 writes it as a call."""
    if isinstance(value, Call):
        value = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else ()
    return {one for one in value or () if isinstance(one, str)}


def _settings(value: Any) -> dict[str, Any]:
    """The plain values in the first of SETTINGS that the file has."""
    for key in SETTINGS:
        held = _mapping(value).get(key)
        settings = held.state if isinstance(held, Call) and isinstance(held.state, dict) else _mapping(held)
        plain = {
            str(name): one for name, one in settings.items() if isinstance(one, bool | int | float | str | list | tuple)
        }
        if plain:
            return plain
    return {}
