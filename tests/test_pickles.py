"""Pickles are taken apart and never run; what they say of tensors is read as torch reads it, without torch."""

import argparse
import builtins
import collections
import datetime
import io
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.weights import array_files, pickles
from experiments.weights.pickles import Call, Damaged, Harmful, Name

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Reducing:
    """An object whose pickle makes a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None):
        self.made = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made


def taken_apart(content: bytes) -> Any:
    return pickles.read(io.BytesIO(content)).value


# --- Nothing is run -------------------------------------------------------------------------------------------------


def attacks(marker: Path) -> dict[str, bytes]:
    """Pickles, in several ways to write one, that make the marker when they are run."""
    call = f"{marker}\n".encode()
    nested = pickle.dumps(Reducing(os.mkdir, str(marker)), 2)
    code = f"__import__('os').mkdir({str(marker)!r})"
    return {
        "reduce": nested,
        "eval": pickle.dumps(Reducing(builtins.eval, code), 4),
        "exec": pickle.dumps(Reducing(builtins.exec, code), 2),
        "instance": b"(V" + call + b"ios\nmkdir\n.",
        "object": b"(cos\nmkdir\nV" + call + b"o.",
        "stack": b"\x80\x04\x8c\x05posix\x8c\x05mkdir\x93V" + call + b"\x85R.",
        "dotted": b"\x80\x04\x8c\x05torch\x8c\x08os.mkdir\x93V" + call + b"\x85R.",
        "by getattr": b"c__builtin__\ngetattr\n(cos\npath\nVos\ntRV" + call + b"\x85R.",
        "reduce within a value": pickle.dumps({"state_dict": {"a": Reducing(os.mkdir, str(marker))}}, 2),
    }


def runs(content: bytes, marker: Path) -> bool:
    """Whether the pickle does what it is here for, so that the test could fail."""
    pickle.loads(content)
    made = marker.exists()
    if made:
        marker.rmdir()
    return made


@pytest.mark.parametrize("attack", attacks(Path("x")))
def test_a_pickle_that_attacks_is_refused_and_does_nothing(tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "marker"
    content = attacks(marker)[attack]
    if attack not in ("by getattr", "dotted"):
        assert runs(content, marker)
    with pytest.raises(Harmful, match=r"mkdir|eval|exec|os\.path"):
        taken_apart(content)
    assert not marker.exists()


def test_a_name_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing alone runs a module; so do the modules of torch that a file may name."""
    (tmp_path / "marking.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'marker')!r}).mkdir()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    for content in (b"cmarking\nanything\n.", b"\x80\x04\x8c\x07marking\x8c\x05a.b.c\x93)R."):
        taken_apart(content)
    assert "marking" not in sys.modules and set(sys.modules) == before and not (tmp_path / "marker").exists()


def test_a_call_is_a_record_of_its_function_and_arguments() -> None:
    content = pickle.dumps(Reducing(datetime.timedelta, 3, state={"a": [1]}), 2)
    call = taken_apart(content)
    assert isinstance(call, Call) and isinstance(call.function, Name)
    assert (str(call), call.arguments, call.state) == ("datetime.timedelta", (3,), {"a": [1]})


def test_a_state_changes_nothing_but_a_record() -> None:
    """BUILD sets attributes of whatever is on the stack: of a class of ours, say, if one could come there."""
    content = b"cexperiments.pickles\nCall\n}(V__init__\nV1\nuN}(V__init__\nV1\nu\x86b."
    before = dict(vars(Call))
    taken_apart(b"\x80\x02" + content[:-1] + b"b.")
    assert dict(vars(Call)) == before


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_come_back_as_they_were(protocol: int) -> None:
    shared = [1, 2.5, None]
    value = {
        "text": "é\n'\"\\",
        "numbers": [0, -1, 255, 65536, 2**40, -(2**80), 1e-300, float("inf"), True, False],
        "nested": {"a": (1,), "b": (), "c": (1, 2, 3, 4), 5: shared, "again": shared, "empty": [{}, []]},
    }
    found = taken_apart(pickle.dumps(value, protocol))
    assert found == value and found["nested"][5] is found["nested"]["again"]
    if protocol >= 4:
        assert taken_apart(pickle.dumps({b"\xff": {1, 2}, "f": frozenset((3,))}, protocol)) == {
            b"\xff": {1, 2},
            "f": frozenset((3,)),
        }


def test_what_is_no_pickle_is_damaged() -> None:
    whole = pickle.dumps({"a": [1, 2], "b": argparse.Namespace(c=3)}, 2)
    for cut in range(len(whole)):
        with pytest.raises(Damaged):
            taken_apart(whole[:cut])
    for content in (b"\x82\x01.", b"\x97.", b"(.", b"R.", b"u.", b"h\x07."):
        with pytest.raises(Damaged):
            taken_apart(content)


# --- Tensors --------------------------------------------------------------------------------------------------------


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
    return {
        "whole": base,
        "transposed": base.t(),
        "strided": base[1:3, ::2],
        "offset": base[2],
        "expanded": torch.ones(1, 4).expand(3, 4),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base + 0.5),
        **{str(kind): (base / 7).to(kind) for kind in kinds},
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors_are_those_of_torch_in_both_forms(tmp_path: Path, legacy: bool) -> None:
    given, path = tensors(), tmp_path / "file"
    torch.save({"outer": given, "list": [given["whole"]]}, path, _use_new_zipfile_serialization=not legacy)
    found = array_files.read(path).arrays
    assert set(found) == {"list/0", *(f"outer/{name}" for name in given)}
    loaded = torch.load(path, weights_only=True)["outer"]
    for name, tensor in loaded.items():
        expected = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
        array = found[f"outer/{name}"]
        assert array.dtype == expected.dtype and array.shape == expected.shape, name
        np.testing.assert_array_equal(array, expected, err_msg=name)


def test_a_file_of_a_big_endian_machine_is_read(tmp_path: Path) -> None:
    given, path, swapped = tensors(), tmp_path / "file", tmp_path / "swapped"
    one_each = {name: tensor.clone() for name, tensor in given.items()}
    torch.save(one_each, path)
    keys = {}
    for call in pickles.read(io.BytesIO(zipfile.ZipFile(path).read("file/data.pkl"))).references:
        keys[f"file/data/{call.key[2]}"] = str(call.key[1])
    sizes = {"Float": 4, "Double": 8, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Byte": 1, "Bool": 1}
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(swapped, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name in keys:
                size = sizes[keys[name].removeprefix("torch.").removesuffix("Storage")]
                content = np.frombuffer(content, np.uint8).reshape(-1, size)[:, ::-1].tobytes()
            target.writestr(name, b"big" if name == "file/byteorder" else content)
    first, second = array_files.read(path).arrays, array_files.read(swapped).arrays
    assert set(first) == set(second) == set(given)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (7,), (1,)), (4, (3,), (1,)), (0, (2, 2), (5, 1)), (-1, (2,), (1,)), (0, (2**40,), (0,)), (5, (2,), (-1,))],
)
def test_a_tensor_never_reaches_beyond_its_storage(
    tmp_path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    path = tmp_path / "file"
    torch.save({"a": torch.zeros(6)}, path)
    tree = {"a": Reducing(torch._utils._rebuild_tensor_v2, Stored(), offset, shape, strides, False, {})}
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 2)
    pickler.persistent_id = lambda one: ("storage", torch.FloatStorage, "0", "cpu", 6) if one == Stored() else None
    pickler.dump(tree)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "bad", "w") as target:
        for name in source.namelist():
            target.writestr(name, buffer.getvalue() if name.endswith("data.pkl") else source.read(name))
    with pytest.raises((ValueError, TypeError)):
        array_files.read(tmp_path / "bad")


class Stored(str):
    """Stands for the storage of a tensor."""

    __slots__ = ()

    def __new__(cls) -> "Stored":
        return super().__new__(cls, "stored")


@pytest.mark.parametrize("legacy", [False, True])
def test_what_is_no_array_is_skipped_and_counted(tmp_path: Path, legacy: bool) -> None:
    state = {
        "args": argparse.Namespace(lr=0.1, mean=(0.5,), when=datetime.date(2026, 1, 1), out=Path("x")),
        "more": [argparse.Namespace(), np.float64(3.0), collections.Counter("ab")],
        "model": collections.OrderedDict(a=torch.ones(2)),
        "float8": torch.ones(2).to(torch.float8_e4m3fn) if not legacy else None,
    }
    torch.save(state, tmp_path / "file", _use_new_zipfile_serialization=not legacy)
    content = array_files.read(tmp_path / "file")
    assert set(content.arrays) == {"model/a"}
    skipped = dict(content.skipped)
    assert skipped.pop("argparse.Namespace") == 2 and skipped.pop("datetime.date") == 1
    assert any(name.startswith("pathlib.") for name in skipped) and "collections.Counter" in skipped
    assert any("scalar" in name for name in skipped) and ("float8" in str(skipped) or "_v3" in str(skipped)) != legacy
    assert content.settings == {"lr": 0.1, "mean": (0.5,)}


def test_a_module_that_was_saved_whole_gives_its_state_dict(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.BatchNorm1d(3)))
    module.register_buffer("passing", torch.ones(1), persistent=False)
    torch.save({"model": module, "epoch": 3}, tmp_path / "file")
    found = array_files.read(tmp_path / "file").arrays
    assert {name: x.tolist() for name, x in found.items()} == {
        f"model/{name}": x.tolist() for name, x in module.state_dict().items()
    }


def test_numpy_arrays_in_a_pickle_are_read(tmp_path: Path) -> None:
    given = {"a": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(3, 2))}
    given["big"] = np.arange(3, dtype=">f4")
    for protocol in (2, 3, 4):
        (tmp_path / "file").write_bytes(pickle.dumps(given, protocol))
        found = array_files.read(tmp_path / "file").arrays
        for name, array in given.items():
            np.testing.assert_array_equal(found[name], array)


def test_values_that_hold_themselves_end_in_a_sentence(tmp_path: Path) -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    laughs: dict[str, Any] = {}
    for _ in range(40):
        laughs = {"a": laughs, "b": laughs}
    for value in (loop, laughs):
        torch.save(value, tmp_path / "file")
        with pytest.raises(Damaged, match="holds itself"):
            array_files.read(tmp_path / "file")
