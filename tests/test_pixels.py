"""What pixels become: transparency, 16 bits, frames, colour modes, damage. Right values are computed by hand."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.arrays import Array
from backends.errors import MixlabError
from experiments import data
from experiments.data import pictures
from experiments.data.raw import RawSource, Split
from experiments.spec.config import DataConfig

WHERE = "trial.yaml"
SIDE = 4


def decode(raws: list[Any], **fields: Any) -> tuple[list[Array], tuple[str, ...]]:
    """The decoded images of a training split, and the notes."""
    split = Split("train", np.arange(len(raws), dtype=np.int32) % 2, lambda: iter(raws))
    decoder = pictures.Decoder(RawSource(("a", "b"), split, None), DataConfig(source="set", **fields), WHERE)
    return list(decoder.images()), decoder.notes()


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(pixels: Array, kind: int, depth: int = 16, transparent: tuple[int, ...] | None = None) -> bytes:
    """A PNG written by hand: Pillow writes no colour of 16 bits. kind: 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA."""
    rows = pixels.astype(">u2" if depth == 16 else np.uint8).reshape(len(pixels), -1)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, kind, 0, 0, 0)
    trns = b"" if transparent is None else chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + trns + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def full(*colour: int) -> Array:
    """An image (SIDE, SIDE, channels) of one colour."""
    return np.broadcast_to(np.array(colour), (SIDE, SIDE, len(colour))).copy()


def corner(image: Array) -> Any:
    """The first pixel, as a number or a list of three."""
    pixel = image[0, 0].tolist()
    return pixel[0] if len(pixel) == 1 else pixel


# Transparency

HALF = 51  # of 255: a fifth


@pytest.mark.parametrize(
    ("mode", "pixel", "background", "right"),
    [
        ("RGBA", (200, 100, 50, HALF), "black", [40, 20, 10]),
        ("RGBA", (200, 100, 50, HALF), "white", [244, 224, 214]),
        ("RGBA", (255, 255, 255, 200), "black", [200, 200, 200]),
        ("RGBA", (200, 100, 50, HALF), "100", [120, 100, 90]),
        ("RGBA", (200, 100, 50, HALF), "#0000ff", [40, 20, 214]),
        ("LA", (200, HALF), "black", 40),
        ("LA", (200, HALF), "255", 244),
        ("LA", (200, HALF), "red", [244, 40, 40]),
        ("RGBA", (200, 100, 50, 0), "black", [0, 0, 0]),
    ],
)
def test_transparent_pixels_show_the_background(mode: str, pixel: Any, background: str, right: Any) -> None:
    image = Image.new(mode, (SIDE, SIDE), pixel)
    images, notes = decode([encoded(image), encoded(Image.new("L", (SIDE, SIDE), 9))], background=background)
    assert corner(images[0]) == right
    assert corner(images[1]) == (9 if isinstance(right, int) else [9, 9, 9])
    said = f"1 of 2 images have transparent pixels, which show data.background ({background})"
    assert notes == (said,)


def palette_image(transparency: Any) -> bytes:
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((3, 3), 0)
    return encoded(image, transparency=transparency)


def test_transparency_of_a_palette_and_of_a_declared_colour_is_seen() -> None:
    by_index = palette_image(1)
    by_share = palette_image(bytes([255, HALF]))
    colour = Image.new("RGB", (SIDE, SIDE), (200, 100, 50))
    declared = encoded(colour, transparency=(200, 100, 50))
    images, notes = decode([by_index, by_share, declared], background="white")
    assert [corner(image) for image in images] == [[255] * 3, [244, 224, 214], [255] * 3]
    assert images[0][3, 3].tolist() == [0, 0, 0]
    assert notes[0].startswith("3 of 3 images have transparent")


@pytest.mark.parametrize(("depth", "step", "declared"), [(1, 255, 1), (2, 85, 2), (4, 17, 2), (8, 1, 2), (16, 1, 2)])
def test_a_declared_transparent_grey_is_seen_at_every_depth(depth: int, step: int, declared: int) -> None:
    row = np.arange(8) % 2 ** min(depth, 3)
    if depth < 8:
        packed = np.packbits(((row[:, None] >> np.arange(depth)[::-1]) & 1).astype(np.uint8).ravel())
        head = struct.pack(">IIBBBBB", 8, 8, depth, 0, 0, 0, 0)
        body = zlib.compress((b"\0" + packed.tobytes()) * 8)
        trns = chunk(b"tRNS", struct.pack(">H", declared))
        raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + trns + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    else:
        raw = png(np.tile(row, (8, 1)), 0, depth, (declared,))
    right = [100 if value == declared else value * step for value in row.tolist()]
    images, notes = decode([raw], background="100")
    assert images[0][5, :, 0].tolist() == right and "1 of 1" in notes[0]


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_an_opaque_alpha_channel_changes_nothing(channels: int | None) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    plain = Image.fromarray(pixels)
    opaque = plain.copy()
    opaque.putalpha(255)
    given = {"background": "#ff0000", "image_channels": channels}
    (first, second), notes = decode([encoded(plain), encoded(opaque)], **given)
    assert np.array_equal(first, second) and notes == ()
    if channels == 3:
        assert np.array_equal(first, pixels)


@pytest.mark.parametrize("text", ["256", "nocolour", "#12", "#ff000080", "-1", ""])
def test_a_background_that_is_no_colour_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(MixlabError, match=r"trial.yaml: data.background: expected a grey level .*, got '") as caught:
        data.describe(DataConfig(source=str(tmp_path), background=text), tmp_path / "cache", WHERE)
    assert repr(text) in str(caught.value)


# 16 bits


@pytest.mark.parametrize(
    ("largest", "value", "right", "most"),
    [
        (255, 120, 120, "255"),  # 8-bit values in 16-bit files come out as they are
        (200, 120, 120, "255"),
        (4095, 2048, 128, "4,095"),  # 2048 * 255 / 4095 = 127.53
        (65535, 25700, 100, "65,535"),
        (256, 256, 128, "511"),  # 256 * 255 / 511 = 127.75
    ],
)
def test_sixteen_bits_scale_by_the_range_that_the_source_uses(largest: int, value: int, right: int, most: str) -> None:
    as_array = full(value).astype(np.uint16)
    images, notes = decode([png(full(value), 0), png(full(largest), 0), as_array])
    assert corner(images[0]) == corner(images[2]) == right
    said = f"3 of 3 images have 16 bits a channel; 0 to {most} is their range, as the largest value is {largest:,}"
    assert notes == (said,)


@pytest.mark.parametrize("order", ["I;16", "I;16B"])
def test_both_orders_of_bytes_are_read(order: str) -> None:
    dtype = ">u2" if order == "I;16B" else "<u2"
    image = Image.frombytes(order, (SIDE, SIDE), full(300).astype(dtype).tobytes())
    raws = [encoded(image, "TIFF"), png(full(600), 0)]
    images, _ = decode(raws)
    assert [corner(image) for image in images] == [round(300 * 255 / 1023), round(600 * 255 / 1023)]


def test_whole_numbers_of_32_bits_count_as_sixteen_if_they_fit() -> None:
    """Pillow before 11 opens grey PNGs of 16 bits so."""
    fits = encoded(Image.fromarray(full(300)[..., 0].astype(np.int32)), "TIFF")
    assert corner(decode([fits])[0][0]) == round(300 * 255 / 511)
    for value in (65536, -1):
        wrong = encoded(Image.fromarray(full(value)[..., 0].astype(np.int32)), "TIFF")
        with pytest.raises(MixlabError, match=f"expected values from 0 to 65535, got {value} to {value}"):
            decode([wrong])


@pytest.mark.parametrize("given", [12, 16])
def test_given_bits_take_the_place_of_the_survey(given: int) -> None:
    images, notes = decode([png(full(3000), 0), png(full(100), 0)], bits=given)
    assert corner(images[0]) == round(3000 * 255 / (2**given - 1))
    assert notes == (f"2 of 2 images have 16 bits a channel; 0 to {2**given - 1:,} is their range",)


def test_a_value_beyond_the_given_bits_is_refused() -> None:
    with pytest.raises(MixlabError, match=r"data.bits: image 1 of split 'train' holds 4,096, .* give 13 or more"):
        decode([png(full(1), 0), png(full(4096), 0)], bits=12)


def test_images_of_8_bits_among_those_of_16_stay_as_they_are() -> None:
    images, notes = decode([encoded(Image.new("L", (SIDE, SIDE), 77)), png(full(4095), 0)])
    assert [corner(image) for image in images] == [77, 255] and notes[0].startswith("1 of 2 images have 16 bits")


def test_colour_of_16_bits_keeps_its_lower_bytes() -> None:
    colour, alpha = full(120, 10, 30), full(120, 10, 30, 255)
    grey_alpha = full(120, 255)
    images, notes = decode([png(colour, 2), png(alpha, 6), png(grey_alpha, 4), png(colour, 2, 16, (120, 10, 30))])
    assert [corner(image) for image in images] == [[120, 10, 30], [120, 10, 30], [120] * 3, [0] * 3]
    assert notes[1].startswith("4 of 4 images have 16 bits a channel; 0 to 255 is their range")


def test_alpha_of_16_bits_has_a_range_of_its_own() -> None:
    fifth = png(full(200, 100, 50, 13107), 6)  # of 65535
    images, notes = decode([fifth, png(full(255, 0, 0, 65535), 6)], background="white")
    assert [corner(image) for image in images] == [[244, 224, 214], [255, 0, 0]]
    assert notes[0].startswith("1 of 2 images have transparent")


def test_the_range_of_alpha_is_what_the_source_uses() -> None:
    third = png(full(255, 255, 255, 341), 6)  # of 1023: 10 bits
    images, _ = decode([third, png(full(255, 255, 255, 1023), 6)])
    assert [corner(image) for image in images] == [[85] * 3, [255] * 3]


@pytest.mark.parametrize(("largest", "value"), [(255, 255), (255, 128), (100, 100), (1, 1)])
def test_values_that_8_bits_hold_stay_what_they_are_in_files_of_16(largest: int, value: int) -> None:
    images, notes = decode([png(full(value), 0), png(full(largest), 0)])
    assert corner(images[0]) == value and "0 to 255 is their range" in notes[0]


def test_a_colour_is_the_declared_one_where_all_three_values_are() -> None:
    images, notes = decode([png(full(120, 10, 30), 2, 16, (120, 10, 31))], bits=8)
    assert corner(images[0]) == [120, 10, 30] and not any("transparent" in note for note in notes)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_colour_tiff_of_16_bits_is_read_whole(channels: int, order: str, compressed: bool) -> None:
    images, _ = decode([tiff(full(*(300, 20, 1000, 65535)[:channels]), order, compressed)])
    assert corner(images[0]) == [round(value * 255 / 1023) for value in (300, 20, 1000)]


def test_a_colour_tiff_whose_channels_lie_apart_is_refused() -> None:
    with pytest.raises(MixlabError, match="16 bits a channel, one channel after the other; store them pixel by pixel"):
        decode([tiff(full(300, 20, 1000), "<", apart=True)])


def tiff(pixels: Array, order: str, compressed: bool = False, apart: bool = False) -> bytes:
    """A TIFF of one strip, written by hand."""
    body = pixels.astype(f"{order}u2").tobytes()
    body = zlib.compress(body) if compressed else body
    channels, height, width = pixels.shape[-1], *pixels.shape[:2]
    tags = [(256, width), (257, height), (262, 2), (273, 8), (277, channels), (278, height), (279, len(body))]
    tags += [(259, 8 if compressed else 1), (284, 2 if apart else 1)] + [(338, 2)] * (channels == 4)
    at = 8 + len(body)
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags]
    entries.append(struct.pack(f"{order}HHII", 258, 3, channels, at))
    entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2]))
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    depths = struct.pack(f"{order}{channels}H", *[16] * channels)
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return magic + struct.pack(f"{order}I", at + len(depths)) + body + depths + directory


def test_a_colour_ppm_of_16_bits_is_refused() -> None:
    raw = b"P6 4 4 65535\n" + full(300, 20, 1000).astype(">u2").tobytes()
    with pytest.raises(
        MixlabError, match="it is a PPM of 16 bits a channel, which Mixlab does not read; store it as PNG"
    ):
        decode([raw])
    assert corner(decode([b"P6 4 4 255\n" + full(3, 2, 1).astype(np.uint8).tobytes()])[0][0]) == [3, 2, 1]


def test_a_sixteen_bit_image_is_turned_as_its_camera_noted() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    pixels = np.arange(SIDE**2, dtype=np.uint16).reshape(SIDE, SIDE)
    raw = encoded(Image.fromarray(pixels), exif=exif)
    assert np.array_equal(decode([raw])[0][0][..., 0], np.rot90(pixels, -1))


def test_a_sixteen_bit_image_of_colour_is_turned_too() -> None:
    """Its file is decoded twice, for the upper bytes and the lower ones."""
    pixels = np.arange(SIDE**2 * 3, dtype=np.uint16).reshape(SIDE, SIDE, 3) * 100
    raw, exif = png(pixels, 2), Image.Exif()
    exif[0x0112] = 6
    chunk = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    noted = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    turned = decode([raw[:33] + noted + raw[33:]])[0][0]  # behind the head of 33 bytes
    assert np.array_equal(turned, np.rot90(decode([raw])[0][0], -1)) and not np.array_equal(turned, turned[::-1])


def test_the_range_is_that_of_all_splits() -> None:
    """Training values up to 255 and test values up to 4,095 are of one camera."""
    parts = [[png(full(value), 0)] * 2 for value in (255, 4095)]
    train, test = (
        Split(name, np.arange(2, dtype=np.int32), lambda raws=raws: iter(raws))
        for name, raws in zip(("train", "test"), parts, strict=True)
    )
    decoder = pictures.Decoder(RawSource(("a", "b"), train, test), DataConfig(source="set"), WHERE)
    assert [corner(image) for image in decoder.images()] == [round(255 * 255 / 4095)] * 2 + [255] * 2


# Frames, pages, modes, damage


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_frames_and_pages_the_first_is_taken_and_counted(kind: str) -> None:
    first, second = (Image.new("RGB", (SIDE, SIDE), (value,) * 3) for value in (40, 200))
    more = {"lossless": True} if kind == "WEBP" else {}
    moving = encoded(first, kind, save_all=True, append_images=[second], **more)
    images, notes = decode([moving, encoded(second)])
    assert [corner(image) for image in images] == [[40] * 3, [200] * 3]
    assert notes == ("1 of 2 images have several frames or pages, of which the first is taken",)


@pytest.mark.parametrize(
    ("mode", "pixel", "kind", "right"),
    [
        ("CMYK", (0, 255, 255, 0), "TIFF", [255, 0, 0]),
        ("CMYK", (0, 0, 0, 255), "TIFF", [0, 0, 0]),
        ("YCbCr", (150, 128, 128), "TIFF", [150] * 3),
        ("LAB", (128, 128, 128), "TIFF", [119, 119, 119]),  # L* 50.2, neither red nor blue
        ("1", 1, "PNG", 255),
        ("P", 0, "PNG", [0, 0, 0]),
    ],
)
def test_other_modes_of_8_bits_are_converted(mode: str, pixel: Any, kind: str, right: Any) -> None:
    image = Image.new(mode, (SIDE, SIDE), pixel)
    if mode == "P":
        image.putpalette([0, 0, 0])
    images, notes = decode([encoded(image, kind)])
    assert corner(images[0]) == right and notes == ()


def test_fractions_have_no_fixed_range_and_are_refused() -> None:
    said = r"trial.yaml: data.source: image 0 of split 'train' cannot be read \(pixels of mode F have no fixed range\)"
    with pytest.raises(MixlabError, match=said):
        decode([encoded(Image.new("F", (SIDE, SIDE), 0.5), "TIFF")])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_file_is_a_sentence(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    whole = encoded(noise, kind)
    with pytest.raises(
        MixlabError, match=r"image 1 of split 'train' cannot be read \(.*\); replace or remove it"
    ) as caught:
        decode([whole, whole[: len(whole) * 2 // 3]])
    assert "0x" not in str(caught.value) and len(str(caught.value)) < 200
