"""Files of safetensors from elsewhere: types that are read, types that are refused, and damage of each kind."""

import copy
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from backends.errors import MixlabError
from backends.weights import recognition
from experiments.weights import array_files, weight_files

TIMM = Path(__file__).parent / "fixtures" / "timm_small.npz"
Header = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A whole file of weights."""
    file = tmp_path / "model.safetensors"
    save_file(weights(), file)
    assert weight_files.read(file).format == "timm"
    return file


def weights() -> dict[str, np.ndarray]:
    """The arrays of a small model, by timm's names."""
    with np.load(TIMM) as file:
        return recognition.select(dict(file))[0]


def parts(path: Path) -> tuple[Header, bytes]:
    """Header and numbers of a file. Source: github.com/huggingface/safetensors, README, "Format"."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def join(path: Path, header: Header, numbers: bytes, length: Callable[[int], int] = lambda length: length) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(length(len(text)).to_bytes(8, "little") + text + numbers)


def refusal(path: Path) -> str:
    with pytest.raises(MixlabError) as caught:
        weight_files.read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 300
    return text.removeprefix(f"{path}: ")


def test_bfloat16_is_read_as_float32_bit_for_bit(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    save_file({"all": bits.view(ml_dtypes.bfloat16).reshape(256, 256)}, tmp_path / "m.safetensors")
    array = array_files.read(tmp_path / "m.safetensors").arrays["all"]
    assert array.dtype == np.float32 and array.shape == (256, 256)
    same = array.view(np.uint32).ravel() == bits.astype(np.uint32) << 16
    assert (same | np.isnan(array.ravel())).all()  # a NaN may become a quiet one
    assert np.isnan(array).sum() == 2 * 127


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "uint64", "uint16", "int8", "bool"])
def test_arrays_keep_the_types_that_numpy_has(tmp_path: Path, kind: str) -> None:
    arrays = {"x": np.ones((2, 3), kind), "scalar": np.ones((), kind), "none": np.ones((0, 4), kind)}
    save_file(arrays, tmp_path / "m.safetensors", metadata={"format": "pt"})
    content = array_files.read(tmp_path / "m.safetensors")
    assert content.metadata == {"format": "pt"} and set(content.arrays) == set(arrays)
    for name, array in arrays.items():
        assert content.arrays[name].dtype == kind and np.array_equal(content.arrays[name], array)


@pytest.mark.parametrize("kind", ["float8_e4m3fn", "float8_e5m2"])
def test_float8_is_refused_by_the_name_of_its_array(tmp_path: Path, kind: str) -> None:
    arrays = weights()
    arrays["head.bias"] = arrays["head.bias"].astype(getattr(ml_dtypes, kind))
    save_file(arrays, tmp_path / "m.safetensors")
    text = refusal(tmp_path / "m.safetensors")
    assert "'head.bias': expected F64, F32, F16, BF16, got F8_E" in text


@pytest.mark.parametrize("kept", [4, 8, 100, -1])
def test_a_file_that_ends_early_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    assert "fetch it again" in refusal(path)


def test_a_file_with_more_than_its_header_tells_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")
    assert "fetch it again" in refusal(path)


LENGTHS: dict[str, Callable[[int], int]] = {
    "zero": lambda length: 0,
    "short": lambda length: length - 20,
    "into the numbers": lambda length: length + 64,
    "beyond the file": lambda length: length + 10**6,
    "of 64 bits": lambda length: 2**63,
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=list(LENGTHS))
def test_a_header_of_another_length_than_it_says_is_refused(path: Path, length: Callable[[int], int]) -> None:
    join(path, *parts(path), length)
    assert "fetch it again" in refusal(path)


def _moved(header: Header) -> None:
    first, second = header["head.bias"], header["head.weight"]
    size = second["data_offsets"][1] - second["data_offsets"][0]
    second["data_offsets"] = [first["data_offsets"][0], first["data_offsets"][0] + size]


CHANGES: dict[str, Callable[[Header], Any]] = {
    "unknown type": lambda header: header["head.bias"].update(dtype="F99"),
    "two arrays at one place": _moved,
    "numbers of no array": lambda header: header.pop("head.bias"),
    "place beyond the file": lambda header: header["head.bias"].update(data_offsets=[10**9, 10**9 + 28]),
    "end before its beginning": lambda header: header["head.bias"]["data_offsets"].reverse(),
    "shape of another size": lambda header: header["head.bias"].update(shape=[3]),
    "negative shape": lambda header: header["head.bias"].update(shape=[-7]),
    "shape of 2^80": lambda header: header["head.bias"].update(shape=[2**40, 2**40]),
    "no place": lambda header: header["head.bias"].pop("data_offsets"),
    "metadata that is no text": lambda header: header.update(__metadata__={"format": 3}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_a_header_that_contradicts_the_numbers_is_refused(path: Path, change: Callable[[Header], Any]) -> None:
    header, numbers = parts(path)
    changed = copy.deepcopy(header)
    change(changed)
    assert changed != header
    join(path, changed, numbers)
    assert "it cannot be read as .safetensors" in refusal(path)


@pytest.mark.parametrize("place", [1, 12, -1], ids=["length", "header", "numbers"])
def test_a_changed_byte_of_the_own_form_is_refused(path: Path, place: int) -> None:
    own = path.with_name("own.safetensors")
    weight_files.write(own, weight_files.read(path), "mixlab")
    content = bytearray(own.read_bytes())
    content[place] ^= 1
    own.write_bytes(content)
    assert "damaged" in refusal(own)


def test_reading_takes_the_memory_of_the_arrays_once(tmp_path: Path) -> None:
    size = 4 * 2**20
    save_file({name: np.ones(size // 4, np.float32) for name in "abcd"}, tmp_path / "m.safetensors")
    tracemalloc.start()
    try:
        content = array_files.read(tmp_path / "m.safetensors")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(content.arrays) == 4 and 4 * size <= peak < 4.5 * size
