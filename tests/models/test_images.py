"""The decoder: every mode and format it promises, every refusal, and hostile bytes."""

import hashlib
import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, TiffImagePlugin

from models.errors import ImageTooLarge, ImageUnreadable, InputError, ParameterInvalid
from models.images import ACCEPTED, STRIP_BYTES, DecodedImage, ImageLimits, decode_image, decode_raster, thumbnail

LIMITS = ImageLimits()
FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF")
ORIENTATION = 0x0112


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(height: int = 24, width: int = 40) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack(
        [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (height + width)], -1
    ).astype(np.uint8)


def decode(data: bytes) -> DecodedImage:
    return decode_image(data, LIMITS)


def pixel_sha256(data: bytes) -> str:
    return decode_raster(data, LIMITS).pixel_sha256()


# Formats and modes


def test_the_documents_name_what_is_accepted() -> None:
    told = (Path(__file__).parents[2] / "docs" / "concepts.md").read_text()
    section = told.partition("## What an image may be")[2].partition("##")[0]
    assert f"{', '.join(ACCEPTED[:-1])} or {ACCEPTED[-1]}" in section


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_pixels_back(kind: str) -> None:
    decoded = decode(encode(Image.fromarray(gradient()), kind))
    np.testing.assert_array_equal(decoded.pixels, gradient())
    assert (decoded.format, decoded.width, decoded.height) == (kind, 40, 24)


@pytest.mark.parametrize("options", [{"kind": "WebP", "lossless": True}, {"kind": "TIFF", "compression": "tiff_lzw"}])
def test_lossless_compressions_give_the_pixels_back(options: dict) -> None:
    np.testing.assert_array_equal(decode(encode(Image.fromarray(gradient()), **options)).pixels, gradient())


@pytest.mark.parametrize("kind", ["JPEG", "WebP", "GIF"])
def test_lossy_formats_come_close(kind: str) -> None:
    decoded = decode(encode(Image.fromarray(gradient()), kind))
    assert decoded.format == kind
    assert np.abs(decoded.pixels.astype(int) - gradient()).mean() < 12


def test_pixels_are_read_only_and_the_same_each_time() -> None:
    data = encode(Image.fromarray(gradient()), "JPEG")
    first, second = decode(data), decode(data)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    with pytest.raises(ValueError, match="read-only"):
        first.pixels[0, 0, 0] = 1


def test_grey_becomes_three_equal_channels() -> None:
    grey = gradient()[:, :, 0]
    decoded = decode(encode(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(decoded.pixels, np.repeat(grey[:, :, None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    bits = np.array([[True, False], [False, True]])
    decoded = decode(encode(Image.fromarray(bits), "PNG"))
    assert decoded.pixels[:, :, 0].tolist() == [[255, 0], [0, 255]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    wide = np.array([[0, 257, 300, 32768, 65534, 65535]], dtype=np.uint16)
    decoded = decode(encode(Image.fromarray(wide), kind))
    assert decoded.pixels[0, :, 0].tolist() == [0, 1, 1, 128, 255, 255]


def test_every_eight_bit_level_survives_being_stored_with_sixteen() -> None:
    levels = np.arange(256, dtype=np.uint8)[None, :]
    decoded = decode(encode(Image.fromarray(levels.astype(np.uint16) * 257), "PNG"))
    np.testing.assert_array_equal(decoded.pixels[:, :, 1], levels)


def test_floating_point_has_one_fixed_scale() -> None:
    dim = np.array([[0.0, 0.1, 0.2]], dtype=np.float32)  # stretched to its own extremes it would reach 255
    assert decode(encode(Image.fromarray(dim), "TIFF")).pixels[0, :, 0].tolist() == [0, 26, 51]


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan"), float("inf")])
def test_floating_point_beyond_its_scale_is_refused(value: float) -> None:
    data = encode(Image.fromarray(np.array([[0.5, value]], dtype=np.float32)), "TIFF")
    with pytest.raises(ImageUnreadable, match="from 0 \\(black\\) to 1 \\(white\\)"):
        decode(data)


def test_whole_numbers_of_32_bits_are_read_as_16_or_refused() -> None:
    fits = np.array([[0, 65535]], dtype=np.int32)
    assert decode(encode(Image.fromarray(fits), "TIFF")).pixels[0, :, 0].tolist() == [0, 255]
    with pytest.raises(ImageUnreadable, match="from 0 to 65535; got a TIFF from -1 to 70000"):
        decode(encode(Image.fromarray(np.array([[-1, 70000]], dtype=np.int32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = decode(encode(cmyk, kind)).pixels[4, 4].tolist()
    assert red > 245 and green < 10 and blue < 10


def test_transparency_is_composed_over_white() -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = [255, 128, 0]  # black, half, nothing
    assert decode(encode(Image.fromarray(rgba), "PNG")).pixels[0, :, 0].tolist() == [0, 127, 255]


def test_grey_with_transparency_is_composed_over_white() -> None:
    la = np.array([[[10, 255], [10, 0]]], dtype=np.uint8)
    assert decode(encode(Image.fromarray(la, "LA"), "PNG")).pixels[0, :, 0].tolist() == [10, 255]


def test_what_hides_under_full_transparency_does_not_count() -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (6, 6, 4), dtype=np.uint8)
    rgba[:, :, 3] = 0
    blank = np.zeros_like(rgba)
    assert pixel_sha256(encode(Image.fromarray(rgba), "PNG")) == pixel_sha256(encode(Image.fromarray(blank), "PNG"))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency_is_composed_over_white(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putdata([0, 1])
    decoded = decode(encode(image, kind, transparency=1))
    assert decoded.pixels[0].tolist() == [[200, 0, 0], [255, 255, 255]]


def test_palette_with_alpha_per_entry_is_composed_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 0, 0, 0])
    image.putdata([0, 1])
    assert decode(encode(image, "PNG", transparency=b"\xff\x80")).pixels[0, :, 0].tolist() == [0, 127]


@pytest.mark.parametrize(("mode", "key", "colour"), [("L", 7, 7), ("RGB", (1, 2, 3), (1, 2, 3))])
def test_a_transparent_colour_is_white(mode: str, key: object, colour: object) -> None:
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 9 if mode == "L" else (9, 9, 9))
    assert decode(encode(image, "PNG", transparency=key)).pixels[0].tolist() == [[255] * 3, [9] * 3]


def test_a_mode_without_an_agreed_rgb_is_refused() -> None:
    data = encode(Image.new("LAB", (4, 4)), "TIFF")
    with pytest.raises(ImageUnreadable, match="got a TIFF in mode LAB"):
        decode(data)


def test_colour_profiles_are_not_applied() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(gradient())
    assert pixel_sha256(encode(image, "PNG", icc_profile=profile)) == pixel_sha256(encode(image, "PNG"))


@pytest.mark.parametrize("kind", ["GIF", "WebP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WebP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data).pixels[0, 0].tolist() == [255, 0, 0]


# Orientation


def turned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The stored array whose reading with this orientation gives `upright` (EXIF 2.3, tag 274)."""
    return {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP", "TIFF", "TIFF lzw"])
def test_orientation_is_applied_exactly_once(kind: str, orientation: int) -> None:
    upright = np.zeros((16, 32, 3), dtype=np.uint8)
    upright[:8, :16] = (255, 0, 0)
    upright[:8, 16:] = (0, 255, 0)
    upright[8:, :16] = (0, 0, 255)
    stored = Image.fromarray(np.ascontiguousarray(turned(upright, orientation)))
    options: dict[str, object] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WebP": {"lossless": True},
        "TIFF lzw": {"compression": "tiff_lzw"},
    }.get(kind, {})
    if kind.startswith("TIFF"):
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        directory[ORIENTATION] = orientation
        options["tiffinfo"] = directory
    else:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        options["exif"] = exif.tobytes()
    decoded = decode(encode(stored, kind.split()[0], **options))
    assert (decoded.width, decoded.height) == (32, 16)
    corners = decoded.pixels[[3, 3, 12, 12], [3, 28, 3, 28]].astype(int)
    assert np.abs(corners - [[255, 0, 0], [0, 255, 0], [0, 0, 255], [0, 0, 0]]).max() < 30


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0MM\0*"])
def test_damaged_exif_counts_as_upright(exif: bytes) -> None:
    decoded = decode(encode(Image.fromarray(gradient()), "JPEG", exif=exif))
    assert (decoded.width, decoded.height) == (40, 24)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_counts_as_upright(value: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = value
    decoded = decode(encode(Image.fromarray(gradient()), "JPEG", exif=exif.tobytes()))
    assert (decoded.width, decoded.height) == (40, 24)


# Refusals


@pytest.mark.parametrize(
    ("data", "got"),
    [
        (b"", "an empty file"),
        (b"hello", "bytes of an unknown format"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"<svg xmlns=", "SVG"),
        (b"PK\x03\x04", "a zip archive"),
    ],
)
def test_other_formats_are_refused_with_the_list(data: bytes, got: str) -> None:
    with pytest.raises(ImageUnreadable, match="one of JPEG, PNG, WebP, BMP, TIFF, GIF; got " + got):
        decode(data)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "JPEG2000", "AVIF"])
def test_formats_that_pillow_could_read_are_refused(kind: str) -> None:
    data = encode(Image.fromarray(gradient(32, 32)), kind)
    with pytest.raises(ImageUnreadable, match="must be one of"):
        decode(data)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_files_are_refused_with_a_reason(kind: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(Image.fromarray(noise), kind)
    with pytest.raises(ImageUnreadable, match="complete, undamaged"):
        decode(data[: int(len(data) * share)])


def refused_without_decoding(data: bytes, limits: ImageLimits, monkeypatch: pytest.MonkeyPatch) -> str:
    """The sentence of the refusal; fails where a raster was loaded before it."""
    loads: list[object] = []
    with monkeypatch.context() as patch:
        for kind in ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF"):
            plugin = type(Image.open(io.BytesIO(encode(Image.new("RGB", (1, 1)), kind))))
            patch.setattr(plugin, "load", lambda self: loads.append(self))
        with pytest.raises(ImageTooLarge) as caught:
            decode_image(data, limits)
    assert not loads
    return str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_pixels_and_sides_are_limited_before_decoding(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.fromarray(gradient(24, 40)), kind)
    assert "24" in refused_without_decoding(data, replace(LIMITS, pixels_max=24 * 40 - 1), monkeypatch)
    assert "39 pixels" in refused_without_decoding(data, replace(LIMITS, side_max=39), monkeypatch)
    assert decode_image(data, replace(LIMITS, pixels_max=24 * 40, side_max=40)).width == 40


def test_bytes_are_limited() -> None:
    data = encode(Image.fromarray(gradient()), "PNG")
    with pytest.raises(ImageTooLarge, match=f"at most {len(data) - 1} bytes; got {len(data)}"):
        decode_image(data, replace(LIMITS, bytes_max=len(data) - 1))
    assert decode_image(data, replace(LIMITS, bytes_max=len(data)))


@pytest.mark.parametrize("kind", ["GIF", "WebP", "PNG", "TIFF"])
def test_frames_are_limited(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(5)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert "at most 4 frames" in refused_without_decoding(data, replace(LIMITS, frames_max=4), monkeypatch)
    assert decode_image(data, replace(LIMITS, frames_max=5))


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (20_001, 1)])
def test_decompression_bombs_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge, match=str(size[0])):
        decode(png_of_size(*size))


def test_a_webp_that_announces_a_huge_canvas_costs_no_memory() -> None:
    canvas = (16_383 - 1).to_bytes(3, "little") * 2
    data = b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0" + canvas + b"ANIM\x06\0\0\0" + b"\0" * 64
    with pytest.raises(ImageTooLarge, match="16383 x 16383"):
        decode(data)


def test_a_tiff_whose_directories_form_a_ring_ends() -> None:
    entries = [(256, 3, 1, 1), (257, 3, 1, 1)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    data = b"II*\0" + struct.pack("<I", 8) + body + struct.pack("<I", 8)
    with pytest.raises(ImageTooLarge, match="frames"):
        decode(data)


def test_more_pixels_than_pillow_likes_follow_our_limit_and_not_its(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(decode(encode(Image.fromarray(gradient()), "PNG")).pixels, gradient())


# Warnings


def odd_tiff() -> bytes:
    data = bytearray(encode(Image.fromarray(gradient()), "TIFF", dpi=(72, 72)))
    offset = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, offset)[0]
    for number in range(count):
        at = offset + 2 + 12 * number
        if struct.unpack_from("<H", data, at)[0] == 282:  # the resolution lies beyond the end of the file
            struct.pack_into("<I", data, at + 8, len(data) + 1000)
    return bytes(data)


def test_pillow_warnings_do_not_leak() -> None:
    with warnings.catch_warnings(), pytest.warns(UserWarning):  # Pillow on its own does warn about this file
        warnings.simplefilter("always")
        Image.open(io.BytesIO(odd_tiff())).load()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(odd_tiff()).pixels, gradient())


def test_pillow_warnings_do_not_leak_past_a_filter_that_came_later() -> None:
    with warnings.catch_warnings():
        decode(odd_tiff())
        warnings.simplefilter("error")
        np.testing.assert_array_equal(decode(odd_tiff()).pixels, gradient())


def test_the_filter_is_added_once_and_touches_only_pillow() -> None:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("error")
        for _ in range(5):
            decode(encode(Image.fromarray(gradient()), "PNG"))
        assert len(warnings.filters) == 2
        with pytest.raises(UserWarning):
            warnings.warn("ours", UserWarning, stacklevel=1)


def test_a_fresh_process_under_warnings_as_errors_decodes() -> None:
    code = (
        "import sys; from models.images import *; "
        "print(decode_image(sys.stdin.buffer.read(), ImageLimits()).width, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        input=odd_tiff(),
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (done.stdout, done.stderr) == (b"40 False\n", b"")


# Hostile bytes


def samples() -> list[bytes]:
    small = gradient(12, 16)
    found = [encode(Image.fromarray(small), kind) for kind in FORMATS]
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    found += [encode(frames[0], k, save_all=True, append_images=frames[1:]) for k in ("GIF", "WebP", "PNG", "TIFF")]
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    found += [encode(Image.fromarray(small), kind, exif=exif.tobytes()) for kind in ("JPEG", "PNG", "WebP")]
    found += [encode(Image.fromarray(small), "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "tiff_adobe_deflate")]
    found += [encode(Image.fromarray(small).convert(mode), "PNG") for mode in ("P", "LA", "1", "I;16")]
    found.append(encode(Image.fromarray(small), "TIFF", big_tiff=True))
    found.append(encode(Image.fromarray(small), "JPEG", progressive=True))
    return found


SAMPLES = samples()
SMALL = ImageLimits(bytes_max=1 << 16, pixels_max=1 << 16, side_max=4096, frames_max=10)


def decodes_or_refuses(data: bytes) -> None:
    try:
        decoded = decode_image(data, SMALL)
    except InputError as error:
        assert str(error).startswith("`image`")
        assert str(error).endswith(".")
    else:
        assert decoded.pixels.shape == (decoded.height, decoded.width, 3)
        assert decoded.width * decoded.height <= SMALL.pixels_max


@settings(max_examples=200, deadline=None)
@given(
    sample=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=6),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@example(sample=SAMPLES[0], edits=[], cut=1.0)
def test_mutated_files_decode_or_are_refused(sample: bytes, edits: list[tuple[float, bytes]], cut: float) -> None:
    data = bytearray(sample)
    for where, new in edits:
        # Squared, because headers are near the beginning and break parsers best.
        at = int(where * where * len(data))
        data[at : at + len(new)] = new
    decodes_or_refuses(bytes(data[: int(len(data) * cut)]))


@settings(max_examples=80, deadline=None)
@given(
    head=st.sampled_from([sample[: 8 + 4 * (index % 5)] for index, sample in enumerate(SAMPLES)]),
    body=st.binary(max_size=200),
)
@example(head=b"II+\0\x08\0\0\0", body=b"\0" * 7 + b"\x80")  # a directory beyond 2^63
def test_rubbish_behind_a_good_beginning_is_refused(head: bytes, body: bytes) -> None:
    decodes_or_refuses(head + body)


def test_a_fault_of_our_own_is_not_taken_for_a_bad_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("models.images._upright_rgb", broken)
    with pytest.raises(KeyboardInterrupt):
        decode(SAMPLES[0])


def test_many_threads_decode_alike() -> None:
    expected = [pixel_sha256(data) for data in SAMPLES]
    found: dict[int, list[str]] = {}

    def work(number: int) -> None:
        found[number] = [pixel_sha256(data) for data in SAMPLES]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [expected] * 6


# Digests and thumbnails


def test_the_pixel_digest_ignores_the_encoding_and_nothing_else() -> None:
    image = Image.fromarray(gradient())
    png, bmp = encode(image, "PNG"), encode(image, "BMP")
    assert pixel_sha256(png) == pixel_sha256(bmp)
    changed = gradient()
    changed[3, 3, 2] ^= 1
    assert pixel_sha256(encode(Image.fromarray(changed), "PNG")) != pixel_sha256(png)
    flat = np.zeros((2, 8, 3), dtype=np.uint8)  # same bytes, another shape
    assert pixel_sha256(encode(Image.fromarray(flat), "PNG")) != pixel_sha256(
        encode(Image.fromarray(flat.reshape(4, 4, 3)), "PNG")
    )


@pytest.mark.parametrize("size", [(7, 5), (1000, 700), (STRIP_BYTES // 3 + 1, 2)])  # one strip, some, one for each row
def test_pixels_and_their_hash_do_not_depend_on_how_they_are_packed(size: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    limits = replace(LIMITS, side_max=max(size))
    raster = decode_raster(encode(Image.fromarray(levels), "PNG"), limits)
    assert np.array_equal(raster.pixels, levels)
    packed = struct.pack("<QQ", size[1], size[0]) + levels.tobytes()
    assert raster.pixel_sha256() == hashlib.sha256(packed).hexdigest()


def test_thumbnails_are_upright_small_and_never_enlarged() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    tall = encode(Image.fromarray(gradient(300, 600)), "JPEG", exif=exif.tobytes())
    with Image.open(io.BytesIO(thumbnail(tall, LIMITS, 64))) as small:
        assert (small.format, small.size) == ("WEBP", (32, 64))
        assert small.getexif().get(ORIENTATION, 1) == 1
    with Image.open(io.BytesIO(thumbnail(SAMPLES[1], LIMITS, 64))) as same:
        assert same.size == (16, 12)
    line = encode(Image.new("RGB", (5000, 1)), "PNG")
    with Image.open(io.BytesIO(thumbnail(line, LIMITS, 64))) as thin:
        assert thin.size == (64, 1)


@pytest.mark.parametrize("side", [15, 2049])
def test_thumbnail_sides_out_of_range_are_refused(side: int) -> None:
    with pytest.raises(ParameterInvalid, match=f"from 16 to 2048 pixels; got {side}"):
        thumbnail(SAMPLES[0], LIMITS, side)
