"""Files in which well-known data sets are handed on: what is read of them, and what is refused."""

import gzip
import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.arrays import Array
from experiments import data
from experiments.data.readers import cifar
from tests.conftest import fresh_cache
from tests.reading import SIDE, WHERE, cifar_batch, given, noise, png, read, refusal, said, write_cifar10, write_tar

cache = fresh_cache


# CIFAR


def in_rows(planes: Array) -> Array:
    return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("protocol", range(6))
def test_cifar10_pickles_of_every_protocol_are_read(tmp_path: Path, cache: Path, protocol: int) -> None:
    folder = write_cifar10(tmp_path / "set", protocol, str if protocol % 2 else bytes)
    images, labels, splits = read(folder, cache)
    planes = np.concatenate([noise(6, 3072, seed=1), noise(3, 3072, seed=2), noise(3, 3072, seed=3)])
    assert np.array_equal(images, in_rows(planes)) and splits.test.tolist() == [9, 10, 11]
    assert images[0, 0, 1].tolist() == planes[0, [1, 1025, 2049]].tolist()
    assert labels == [0, 1, 2] * 4


def test_a_pickle_as_an_older_python_wrote_it_is_read(tmp_path: Path) -> None:
    """Text of Python 2 is bytes, also the array's; its array module has another name."""
    array = noise(1, 3072)
    content = array.tobytes()
    raw = b"\x80\x02}(U\x06labels]K\x01aU\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    raw += b"U\x01b\x87R(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
    raw += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    raw += b"\x89T" + struct.pack("<i", len(content)) + content + b"tbu."
    (tmp_path / "data_batch_1").write_bytes(raw)
    held = cifar._unpickled(tmp_path / "data_batch_1", WHERE)
    assert held["labels"] == [1] and np.array_equal(held["data"], array)


def test_torchvisions_folder_beside_its_archive_gives_names_of_classes(tmp_path: Path, cache: Path) -> None:
    folder = write_cifar10(tmp_path / "root" / "cifar-10-batches-py")
    names = [b"plane", b"car", b"bird"]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names, b"num_cases_per_batch": 6}, 2))
    (tmp_path / "root" / "cifar-10-python.tar.gz").write_bytes(b"not looked at")
    config = given(tmp_path / "root")
    facts = data.facts(config, data.describe(config, cache, WHERE), cache)
    assert facts.classes == ("plane", "car", "bird")
    assert "1 other file ignored: cifar-10-python.tar.gz" in facts.notes


def write_cifar100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, num in (("train", 8), ("test", 4)):
        labels = {b"fine_labels": [row % 4 for row in range(num)], b"coarse_labels": [row % 2 for row in range(num)]}
        (folder / name).write_bytes(pickle.dumps({b"data": noise(num, 3072), **labels}, 2))
    names = {b"fine_label_names": [b"a", b"b", b"c", b"d"], b"coarse_label_names": [b"x", b"y"]}
    (folder / "meta").write_bytes(pickle.dumps(names, 2))
    return folder


def test_cifar100_has_fine_classes_or_coarse_ones(tmp_path: Path, cache: Path) -> None:
    folder = write_cifar100(tmp_path / "set")
    assert read(folder, cache)[1] == [0, 1, 2, 3] * 3
    assert read(folder, cache, label_column="coarse")[1] == [0, 1] * 6
    assert "allowed: fine, coarse" in refusal(folder, cache, label_column="middle")


@pytest.mark.parametrize("hundred", [False, True])
def test_the_binary_version_is_read(tmp_path: Path, cache: Path, hundred: bool) -> None:
    folder, planes = tmp_path / "set", noise(8, 3072)
    folder.mkdir()
    heads = np.array([[9, row % 2] for row in range(8)], np.uint8)[:, 0 if hundred else 1 :]
    rows = np.concatenate([heads, planes], axis=1)
    train, test = ("train.bin", "test.bin") if hundred else ("data_batch_1.bin", "test_batch.bin")
    (folder / train).write_bytes(rows.tobytes())
    (folder / test).write_bytes(rows[:2].tobytes())
    (folder / ("fine_label_names.txt" if hundred else "batches.meta.txt")).write_text("cat\ndog\n")
    images, labels, _ = read(folder, cache)
    assert labels == [0, 1] * 5 and np.array_equal(images[:8], in_rows(planes))
    (folder / test).write_bytes(rows.tobytes()[:-1])
    assert "fetch the whole file" in refusal(folder, cache)


class Evil:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_holds_more_than_numbers_is_refused_and_never_run(
    tmp_path: Path, cache: Path, protocol: int
) -> None:
    folder = write_cifar10(tmp_path / "set")
    touched = tmp_path / "touched"
    (folder / "data_batch_2").write_bytes(pickle.dumps({**cifar_batch(3, 2), b"more": Evil(touched)}, protocol))
    message = refusal(folder, cache)
    assert "data_batch_2 cannot be read as a pickle of numbers: it holds " in message and "no number" in message
    assert not touched.exists()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({b"data": noise(3, 3072).astype(np.float32)}, "no array 'data' of bytes"),
        ({b"data": noise(3, 3071)}, "no array 'data' of bytes"),
        ({b"labels": [0, 1]}, "no list 'labels' of 3 numbers"),
        ({b"labels": [0, 1, 0.5]}, "other things than whole numbers"),
    ],
)
def test_a_batch_that_is_none_of_cifars_is_refused(
    tmp_path: Path, cache: Path, changed: dict[bytes, Any], why: str
) -> None:
    folder = write_cifar10(tmp_path / "set")
    (folder / "test_batch").write_bytes(pickle.dumps({**cifar_batch(3, 3), **changed}, 2))
    assert why in refusal(folder, cache)
    (folder / "test_batch").write_bytes(pickle.dumps(cifar_batch(3, 3), 2)[:-100])
    assert "cannot be read as a pickle of numbers" in refusal(folder, cache)


# IDX


def idx(array: Array, kind: int = 8) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, packed: bool = False, before: str = "", dash: str = "-", first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, num in (("train", 6), ("t10k" if not before else "test", 4)):
        labels = np.arange(num, dtype=np.uint8) % 2 + first
        for what, array in (("images", noise(num, SIDE, SIDE, seed=num)), ("labels", labels)):
            name = f"{before}{split}-{what}{dash}idx{array.ndim}-ubyte"
            content = idx(array)
            (folder / (f"{name}.gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return folder


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dash", ["-", "."])
def test_mnists_idx_files_are_read(tmp_path: Path, cache: Path, packed: bool, dash: str) -> None:
    write_mnist(tmp_path / "set" / "MNIST" / "raw", packed, dash=dash)
    images, labels, splits = read(tmp_path / "set", cache)
    right = np.concatenate([noise(6, SIDE, SIDE, seed=6), noise(4, SIDE, SIDE, seed=4)])
    assert np.array_equal(images[..., 0], right) and labels == [0, 1] * 5 and len(splits.test) == 4


def test_a_file_that_lies_there_packed_too_is_read_once(tmp_path: Path, cache: Path) -> None:
    write_mnist(tmp_path / "set", packed=True)
    write_mnist(tmp_path / "set")
    assert read(tmp_path / "set", cache)[1] == [0, 1] * 5 and said(tmp_path / "set", cache) == ()


def test_of_emnists_sets_one_is_chosen(tmp_path: Path, cache: Path) -> None:
    for name in ("letters", "balanced"):
        write_mnist(tmp_path / "set", before=f"emnist-{name}-", first=int(name == "letters"))
    assert "data.subset" in refusal(tmp_path / "set", cache) and "letters" in refusal(tmp_path / "set", cache)
    assert read(tmp_path / "set", cache, subset="letters")[1] == [0, 1] * 5  # 1 and 2 in the file
    notes = " ".join(said(tmp_path / "set", cache, subset="letters"))
    assert "on their side" in notes and "numbered anew" in notes


def test_idx_files_that_do_not_fit_are_refused(tmp_path: Path, cache: Path) -> None:
    folder = write_mnist(tmp_path / "set")
    images, labels = folder / "train-images-idx3-ubyte", folder / "train-labels-idx1-ubyte"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    assert "train-images-idx3-ubyte ends too early" in refusal(folder, cache)
    images.write_bytes(b"<html>" + whole)
    assert "no IDX file" in refusal(folder, cache)
    images.write_bytes(idx(np.zeros((6, SIDE, SIDE), ">f4"), 13))
    assert "expected images, rows and columns of bytes" in refusal(folder, cache)
    images.write_bytes(whole)
    labels.write_bytes(idx(np.zeros(5, np.uint8)))
    assert "holds 6 images and train-labels-idx1-ubyte 5 labels" in refusal(folder, cache)
    labels.write_bytes(idx(np.zeros((6, 8), ">i4"), 12))
    assert "2 dimensions" in refusal(folder, cache)


def test_images_without_labels_are_an_unlabelled_split(tmp_path: Path, cache: Path) -> None:
    folder = write_mnist(tmp_path / "set")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert len(read(folder, cache)[1]) == 6
    assert "split 'test' has no classes and is left out" in said(folder, cache)


# Arrays


def medmnist(num_labels: int = 1, channels: tuple[int, ...] = (3,)) -> dict[str, Array]:
    arrays = {}
    for seed, (split, num) in enumerate((("train", 6), ("val", 2), ("test", 4))):
        arrays[f"{split}_images"] = noise(num, SIDE, SIDE, *channels, seed=seed)
        arrays[f"{split}_labels"] = (np.arange(num)[:, None] + np.zeros(num_labels, np.int64)).astype(np.uint8) % 2
    return arrays


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("packed", [False, True])
def test_medmnists_splits_are_read(tmp_path: Path, cache: Path, channels: tuple[int, ...], packed: bool) -> None:
    arrays = medmnist(channels=channels)
    (np.savez_compressed if packed else np.savez)(tmp_path / "bloodmnist.npz", **arrays)
    images, labels, splits = read(tmp_path / "bloodmnist.npz", cache)
    right = np.concatenate([arrays["train_images"], arrays["test_images"]])
    assert np.array_equal(images, right.reshape(images.shape)) and labels == [0, 1] * 5 and len(splits.test) == 4
    assert len(read(tmp_path / "bloodmnist.npz", cache, test_split="val")[2].test) == 2


def test_kerass_arrays_are_read(tmp_path: Path, cache: Path) -> None:
    x, y = noise(6, SIDE, SIDE), np.array([0, 1, 2] * 2)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:3], y_test=y[:3].astype(np.float64))
    images, labels, splits = read(tmp_path / "mnist.npz", cache)
    assert np.array_equal(images[:6, ..., 0], x) and labels == [0, 1, 2] * 3 and len(splits.test) == 3


def test_arrays_of_16_bits_scale_by_their_range(tmp_path: Path, cache: Path) -> None:
    pixels = np.full((6, SIDE, SIDE), 4095, np.uint16)
    pixels[0] = 2048
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(6) % 2)
    images, _, _ = read(tmp_path / "set.npz", cache)
    assert images[:2, 0, 0, 0].tolist() == [128, 255]
    assert any("0 to 4,095 is their range" in note for note in said(tmp_path / "set.npz", cache))


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        (medmnist(num_labels=14), "train_labels gives each image 14 labels"),
        (medmnist(channels=(SIDE,)), "three-dimensional images are not read"),
        (
            {"x": np.zeros((4, 3, SIDE, SIDE), np.uint8), "y": np.arange(4)},
            "channels lie first: save it as images.transpose(0, 2, 3, 1)",
        ),
        ({**medmnist(), "train_images": noise(6, SIDE, SIDE) / 255}, "of float64; expected uint8 or uint16"),
        ({**medmnist(), "train_labels": np.array([0.5] * 6)}, "train_labels holds fractions"),
        ({**medmnist(), "train_labels": np.zeros((5, 1), np.uint8)}, "expected whole numbers (6,)"),
        ({**medmnist(), "train_labels": np.array([{}] * 6, object)}, "expected whole numbers (6,)"),
        ({"arr_0": noise(6, SIDE, SIDE)}, "holds the arrays arr_0 6x5x5 of uint8; expected train_images"),
    ],
)
def test_arrays_that_are_no_images_with_a_class_are_refused(
    tmp_path: Path, cache: Path, arrays: dict[str, Array], why: str
) -> None:
    (tmp_path / "set").mkdir()
    np.savez(tmp_path / "set" / "chestmnist.npz", **arrays)
    message = refusal(tmp_path / "set", cache)
    assert why in message and "chestmnist.npz" in message


def test_a_damaged_or_a_second_file_of_arrays_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "set").mkdir()
    np.savez(tmp_path / "set" / "a.npz", **medmnist())
    content = (tmp_path / "set" / "a.npz").read_bytes()
    (tmp_path / "set" / "a.npz").write_bytes(content[:-30])
    assert "cannot be read as .npz" in refusal(tmp_path / "set", cache)
    (tmp_path / "set" / "b.npz").write_bytes(content)
    assert "several data sets: a.npz, b.npz; name one file" in refusal(tmp_path / "set", cache)
    assert len(read(tmp_path / "set" / "b.npz", cache)[1]) == 10


# WebDataset


def samples(num: int, first: int = 0, **others: Any) -> list[tuple[str, bytes]]:
    """Image i is all of the value i; the others are made of i."""
    found = []
    for row in range(first, first + num):
        found.append((f"{row:04d}.png", png(row)))
        for kind, make in others.items():
            found.append(
                (f"{row:04d}.{kind}", make(row) if isinstance(make(row), bytes) else json.dumps(make(row)).encode())
            )
    return found


def test_the_class_is_what_cls_holds(tmp_path: Path, cache: Path) -> None:
    cls = {"cls": lambda row: str(row % 3).encode(), "json": lambda row: {"label": row % 2, "width": 5}}
    write_tar(tmp_path / "set" / "train-0000.tar", samples(4, **cls))
    write_tar(tmp_path / "set" / "train-0001.tar", samples(2, 4, **cls))
    write_tar(tmp_path / "set" / "test-0000.tar", samples(3, 6, **cls))
    images, labels, splits = read(tmp_path / "set", cache)
    assert images[:, 0, 0, 0].tolist() == list(range(9)) and labels == [0, 1, 2] * 3
    assert splits.test.tolist() == [6, 7, 8]


def test_the_class_is_a_field_of_json(tmp_path: Path, cache: Path) -> None:
    fields = {"json": lambda row: {"label": "ab"[row % 2], "width": row % 3, "caption": f"image {row}"}}
    write_tar(tmp_path / "set" / "0000.tar", samples(10, **fields))
    assert sorted(read(tmp_path / "set", cache)[1]) == [0] * 5 + [1] * 5
    assert read(tmp_path / "set", cache, label_column="width")[1] == [0, 1, 2] * 3 + [0]


def test_two_fields_that_can_be_the_class_are_a_question(tmp_path: Path, cache: Path) -> None:
    fields = {"json": lambda row: {"label": row % 2, "class_name": ["cat", "dog", "cow"][row % 3]}}
    source = write_tar(tmp_path / "set.tar", samples(12, **fields))
    message = refusal(source, cache)
    assert "data.label_column" in message and "label (0, 1)" in message and "class_name (cat, dog, cow" in message
    assert read(source, cache, label_column="class_name")[1] == [0, 2, 1] * 4  # cat, cow, dog


def test_samples_without_a_class_or_an_image_are_refused(tmp_path: Path, cache: Path) -> None:
    source = write_tar(tmp_path / "a.tar", samples(6, txt=lambda row: f"a photo of {row}".encode()))
    assert "samples without a class; put it into a file .cls" in refusal(source, cache)
    lacking = [one for one in samples(6, cls=lambda row: str(row % 2).encode()) if one[0] != "0003.png"]
    assert "1 sample without an image: 0003; remove them" in refusal(write_tar(tmp_path / "b.tar", lacking), cache)
    lacking = [one for one in samples(6, cls=lambda row: str(row % 2).encode()) if one[0] != "0003.cls"]
    assert "1 of 6 examples" in refusal(write_tar(tmp_path / "c.tar", lacking), cache)
    damaged = write_tar(tmp_path / "d.tar", samples(6, cls=lambda row: str(row % 2).encode()))
    damaged.write_bytes(damaged.read_bytes()[:4000])
    assert "damaged" in refusal(damaged, cache)


def test_packed_tars_and_mixed_kinds_of_images_are_read(tmp_path: Path, cache: Path) -> None:
    members = samples(8, cls=lambda row: str(row % 2).encode())
    jpeg = io.BytesIO()
    Image.new("L", (SIDE, SIDE), 200).save(jpeg, "JPEG")
    members[2] = ("0001.jpg", jpeg.getvalue())
    source = write_tar(tmp_path / "train.tar.gz", members, "w:gz")
    images, labels, _ = read(source, cache)
    assert images[:, 0, 0, 0].tolist() == [0, 200, *range(2, 8)] and labels == [0, 1] * 4


def test_several_images_a_sample_are_a_question(tmp_path: Path, cache: Path) -> None:
    members = samples(6, cls=lambda row: str(row % 2).encode())
    members = [
        more for one in members for more in ([one, (one[0][:4] + ".seg.png", png(99))] if "png" in one[0] else [one])
    ]
    source = write_tar(tmp_path / "set.tar", members)
    assert "data.image_column: several columns hold images: png, seg.png" in refusal(source, cache)
    assert read(source, cache, image_column="seg.png")[0].min() == 99


# Rows of pixels


def write_rows(path: Path, names: list[str] | None, columns: list[Array]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.stack(columns, axis=1)
    lines = [",".join(map(str, row)) for row in table.tolist()]
    path.write_text("\n".join([*([",".join(names)] if names else []), *lines]) + "\n")
    return path


PIXELS = noise(6, SIDE**2)
CLASSES = np.array([3, 5, 3, 5, 3, 5])
NAMES = {
    "pixel0": [f"pixel{row}" for row in range(SIDE**2)],
    "pixel1": [f"pixel_{row}" for row in range(1, SIDE**2 + 1)],
    "0": [str(row) for row in range(SIDE**2)],
    "0_0": [f"pixel_{row}_{column}" for row in range(SIDE) for column in range(SIDE)],
    "1x1": [f"{row}x{column}" for row in range(1, SIDE + 1) for column in range(1, SIDE + 1)],
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("last", [False, True])
def test_rows_of_pixels_are_images(tmp_path: Path, cache: Path, names: str, last: bool) -> None:
    heads, columns = ["label", *NAMES[names]], [CLASSES, *PIXELS.T]
    if last:
        heads, columns = [*heads[1:], heads[0]], [*columns[1:], columns[0]]
    write_rows(tmp_path / "set" / "train.csv", heads, columns)
    write_rows(tmp_path / "set" / "test.csv", heads, [column[:2] for column in columns])
    images, labels, splits = read(tmp_path / "set", cache)
    assert np.array_equal(images[:6].reshape(6, -1), PIXELS) and labels == [0, 1] * 4 and len(splits.test) == 2


def test_kaggles_test_file_has_no_classes(tmp_path: Path, cache: Path) -> None:
    write_rows(tmp_path / "set" / "train.csv", ["label", *NAMES["pixel0"]], [CLASSES, *PIXELS.T])
    write_rows(tmp_path / "set" / "test.csv", NAMES["pixel0"], list(PIXELS.T))
    (tmp_path / "set" / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    assert len(read(tmp_path / "set", cache)[1]) == 6
    notes = " ".join(said(tmp_path / "set", cache))
    assert "split 'test' has no classes" in notes and "1 other file ignored: sample_submission.csv" in notes


@pytest.mark.parametrize("last", [False, True])
def test_without_a_header_a_border_tells_the_class_from_a_pixel(tmp_path: Path, cache: Path, last: bool) -> None:
    pixels = PIXELS.copy()
    pixels[:, [0, -1]] = 0
    columns = [*pixels.T, CLASSES] if last else [CLASSES, *pixels.T]
    source = write_rows(tmp_path / "mnist_train.csv", None, columns)
    images, labels, _ = read(source, cache)
    assert np.array_equal(images.reshape(6, -1), pixels) and labels == [0, 1] * 3


def test_without_a_header_and_a_border_the_class_is_a_question(tmp_path: Path, cache: Path) -> None:
    source = write_rows(tmp_path / "rows.csv", None, [CLASSES, *PIXELS.T])
    message = refusal(source, cache)
    assert "data.label_column" in message and "column 0 or 25" in message and "write a header" in message
    images, labels, _ = read(source, cache, label_column="0")
    assert np.array_equal(images.reshape(6, -1), PIXELS) and labels == [0, 1] * 3


def test_a_table_of_features_and_image_files_is_no_image(tmp_path: Path, cache: Path) -> None:
    """Twenty columns of numbers beside the name of each image, in the words of pixels and in others."""
    for word in ("p", "attribute"):
        folder = tmp_path / word
        folder.mkdir()
        rows = ["file,kind," + ",".join(f"{word}{column}" for column in range(20))]
        for row in range(6):
            (folder / f"{row}.png").write_bytes(png(row))
            rows.append(f"{row}.png,{'ab'[row % 2]}," + ",".join("7" * 20))
        (folder / "table.csv").write_text("\n".join(rows) + "\n")
        images, labels, _ = read(folder, cache, label_column="kind")
        assert images[:, 0, 0, 0].tolist() == list(range(6)) and labels == [0, 1] * 3


def test_counts_and_values_that_are_no_image_are_refused(tmp_path: Path, cache: Path) -> None:
    colour = [f"pixel{row}" for row in range(3 * SIDE**2)]
    source = write_rows(tmp_path / "colour.csv", ["label", *colour], [CLASSES, *noise(6, 3 * SIDE**2).T])
    assert "75 columns of pixels, 5 x 5 pixels of three colours, in an order" in refusal(source, cache)
    source = write_rows(tmp_path / "odd.csv", ["label", *colour[:26]], [CLASSES, *noise(6, 26).T])
    assert "26 columns of pixels, no square" in refusal(source, cache)
    source = write_rows(tmp_path / "fractions.csv", ["label", *colour[:25]], [CLASSES, *(PIXELS / 255).T])
    assert "fractions" in refusal(source, cache)
    source = write_rows(tmp_path / "minus.csv", ["label", *colour[:25]], [CLASSES, *(PIXELS.astype(int) - 300).T])
    assert "expected 0 to 255" in refusal(source, cache)
