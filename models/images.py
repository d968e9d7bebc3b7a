"""Bytes to pixels: the only decoder of the service.

Every image, whether it is learnt from, asked about or shown, passes `decode_raster`, so that a score served
equals a score evaluated. The rules below are part of an embedding's identity through `DECODER_RULES`: whoever
changes a rule raises that number, and old vectors are then refused instead of being mixed with new ones.

* Formats: JPEG, PNG, WebP, BMP, TIFF, GIF; nothing else is opened, whatever Pillow could do.
* Limits are checked on the header; no raster is allocated for an image above them.
* The orientation recorded in the file (EXIF) is applied exactly once. Damaged EXIF counts as upright, as in
  browsers.
* Animations and multi-page files: the first frame.
* Transparency: composed over white, as a page shows it. What lies hidden under full transparency does not
  count.
* 16-bit grey: scaled by 257 (65535 is white), never clipped.
* Floating point: 0 is black, 1 is white; a file with other values is refused. Stretching each file to its own
  extremes would make two files incomparable. 32-bit whole numbers: read as 16-bit, refused beyond 65535.
* 16 bits per channel in colour: the high byte, as Pillow reads it. CMYK: Pillow's plain conversion.
  Colour profiles (ICC) are not applied.
* For a network, a JPEG is decoded at the smallest of the scales 1, 1/2, 1/4, 1/8 that libjpeg offers and that leaves
  each side at least 1.5 times as long as the network's input: what is left out would be averaged away anyhow. The
  choice depends on the file and the input size alone, so adding and scoring see the same pixels. The hash of an image's
  pixels, and whatever else is shown or compared, is of the full scale.
"""

import hashlib
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from models.errors import ImageTooLarge, ImageUnreadable, ParameterInvalid

DECODER_RULES = 2
REDUCED_MARGIN = 1.5  # sides of a reduced raster, in sides of the network's input: resizing still has to average
SCALES = (8, 4, 2)  # one over libjpeg's scales
STRIP_BYTES = 2**20  # of pixels that are packed at once

ACCEPTED = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF")

# The plug-ins are called directly: Image.open would import all of them, accept formats nobody asked for and
# judge sizes by a process-wide global instead of by the limits given.
_PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}

# What Pillow's parsers are known to raise on hostile bytes. An explicit list, so that a fault of ours still
# surfaces.
_PILLOW_FAILURES = (
    OSError,  # includes UnidentifiedImageError
    SyntaxError,
    ValueError,  # includes UnicodeError
    struct.error,
    zlib.error,
    EOFError,
    ArithmeticError,  # OverflowError, ZeroDivisionError
    LookupError,  # KeyError, IndexError
    TypeError,
    AttributeError,
    AssertionError,
    BufferError,
    RuntimeError,  # includes RecursionError, NotImplementedError
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TURNS_ON_EDGE = frozenset({_TURNS[value] for value in (5, 6, 7, 8)})

_PLAIN_MODES = frozenset({"RGB", "L", "1", "P", "CMYK", "YCbCr", "RGBX"})
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})

_PILLOW_MODULES = re.compile(r"PIL\.")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What an image may cost at most; each bound is inclusive and checked before the raster is decoded."""

    bytes_max: int = 20 * 2**20
    pixels_max: int = 40_000_000
    side_max: int = 20_000
    frames_max: int = 500


@dataclass(frozen=True, slots=True, eq=False)
class DecodedImage:
    """Pixels of one image after every decoder rule; sizes are those after the EXIF turn."""

    pixels: NDArray[np.uint8]  # (height, width, 3), red green blue, read-only
    format: str  # one of ACCEPTED
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Raster:
    """An upright RGB image as Pillow holds it, at full scale or reduced; sizes are those of the full scale."""

    image: Image.Image
    format: str
    width: int
    height: int
    scale: int  # 1: every pixel; 2, 4, 8: one pixel for so many along each side

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """Its pixels, (H, W, 3), read-only: a copy."""
        levels = np.empty((self.image.height, self.image.width, 3), np.uint8)
        flat, start = levels.reshape(-1), 0
        for rows in _packed_rows(self.image):
            flat[start : start + len(rows)] = np.frombuffer(rows, np.uint8)
            start += len(rows)
        levels.flags.writeable = False
        return levels

    def pixel_sha256(self) -> str:
        """SHA-256 in hex of size and pixels: equal for equal pictures, however they were encoded."""
        assert self.scale == 1
        digest = hashlib.sha256(struct.pack("<QQ", self.height, self.width))
        for rows in _packed_rows(self.image):
            digest.update(rows)
        return digest.hexdigest()


def decode_image(data: bytes, limits: ImageLimits) -> DecodedImage:
    """Upright 8-bit RGB pixels of one encoded image.

    Shapes: pixels (H, W, 3) uint8.
    Memory: at most about 12 bytes a pixel while it runs; nothing for a file above the limits.

    Raises:
        ImageTooLarge: bytes, pixels, a side or frames are above the limits.
        ImageUnreadable: not one of the accepted formats, damaged, truncated, or in a mode without a fixed
        white.
    """
    raster = decode_raster(data, limits)
    return DecodedImage(pixels=raster.pixels, format=raster.format, width=raster.width, height=raster.height)


def decode_raster(data: bytes, limits: ImageLimits, side: int | None = None) -> Raster:
    """Upright 8-bit RGB image, as far reduced as a network whose input has this side allows; None: not at all.

    Memory: at most about 12 bytes a pixel of what is decoded; nothing for a file above the limits.

    Raises:
        ImageTooLarge, ImageUnreadable: as decode_image; the limits are on the full scale.
    """
    if len(data) > limits.bytes_max:
        raise ImageTooLarge(f"`image` must be at most {limits.bytes_max} bytes; got {len(data)} bytes.")
    kind = sniff_format(data)
    if kind not in _PLUGINS:
        raise ImageUnreadable(f"`image` must be one of {', '.join(ACCEPTED)}; got {kind}.")
    _check_header(kind, data, limits)
    _silence_pillow()
    try:
        with _PLUGINS[kind](io.BytesIO(data)) as image:
            # Again, because the plug-in's view decides what will be allocated.
            full = image.size
            _check_size(full, limits)
            if kind in ("PNG", "WebP"):
                _check_frames(getattr(image, "n_frames", 1), limits)
            scale = _reduced(image, side) if kind == "JPEG" and side is not None else 1
            image.load()
            _check_size(image.size, limits)
            # Pillow turns a TIFF itself while loading it; asking again would turn it twice on some releases.
            turn = None if kind == "TIFF" else _TURNS.get(_orientation(image))
            upright = _upright_rgb(image, kind, turn)
    except (Image.DecompressionBombError, MemoryError) as error:
        raise ImageTooLarge(f"`image` must fit into memory when decoded; got a {kind} that does not.") from error
    except _PILLOW_FAILURES as error:
        raise ImageUnreadable(
            f"`image` must be a complete, undamaged {kind}; got {len(data)} bytes that stop decoding: {_reason(error)}."
        ) from error
    width, height = upright.size
    if scale > 1:
        width, height = full[::-1] if turn in _TURNS_ON_EDGE else full
    return Raster(upright, kind, width, height, scale)


def thumbnail(data: bytes, limits: ImageLimits, side: int = 256) -> bytes:
    """WebP bytes of the upright image, its longer side at most `side` pixels; never enlarged.

    Raises:
        ParameterInvalid: `side` is not from 16 to 2048.
        ImageTooLarge, ImageUnreadable: as decode_image.
    """
    if not 16 <= side <= 2048:
        raise ParameterInvalid(f"`side` of a thumbnail must be from 16 to 2048 pixels; got {side}.")
    image = decode_raster(data, limits).image
    scale = min(1.0, side / max(image.size))
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=80, method=4)
    return out.getvalue()


def _packed_rows(image: Image.Image) -> Iterator[bytes]:
    """Red, green and blue of every pixel, row by row, some rows at a time.

    Pillow packs a whole image in small pieces that it then joins: five times as long for one of 12 megapixels.
    """
    step = max(1, STRIP_BYTES // (3 * image.width))
    if step >= image.height:
        yield image.tobytes()
        return
    for top in range(0, image.height, step):
        yield image.crop((0, top, image.width, min(top + step, image.height))).tobytes()


def sniff_format(data: bytes) -> str:
    """Name of the format the first bytes announce; otherwise a phrase that fits after "got"."""
    if not data:
        return "an empty file"
    head = data[:32]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM"):
        return "BMP"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return _stranger(head)


def _stranger(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return "AVIF"
        return "HEIC" if brand in (b"heic", b"heix", b"mif1", b"msf1", b"hevc") else "a video or MP4 container"
    known = {
        b"%PDF": "PDF",
        b"8BPS": "Photoshop PSD",
        b"PK\x03\x04": "a zip archive",
        b"\x1f\x8b": "a gzip archive",
        b"\xff\x0a": "JPEG XL",
        b"\0\0\0\x0cJXL ": "JPEG XL",
        b"\0\0\0\x0cjP": "JPEG 2000",
        b"\xff\x4f\xff\x51": "JPEG 2000",
        b"\0\0\x01\0": "an icon file",
        b"<svg": "SVG",
        b"<?xml": "XML",
        b"<!DO": "HTML",
        b"<htm": "HTML",
    }
    for start, name in known.items():
        if head.startswith(start):
            return name
    return "bytes of an unknown format"


def _silence_pillow() -> None:
    # Pillow warns about odd but readable files. warnings.catch_warnings is not safe in threads, so one narrow
    # filter is put in front and left there; asking first keeps the filter list from being rebuilt for each
    # image. It has to be the first: what another library puts before it would make an error of Pillow's warning.
    wanted = ("ignore", None, Warning, _PILLOW_MODULES, 0)
    if warnings.filters[:1] != [wanted]:
        warnings.filterwarnings("ignore", module=_PILLOW_MODULES.pattern)


def _reason(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words[:200].rstrip(".")


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if max(width, height) > limits.side_max:
        raise ImageTooLarge(f"`image` must have sides of at most {limits.side_max} pixels; got {width} x {height}.")
    if width * height > limits.pixels_max:
        raise ImageTooLarge(f"`image` must have at most {limits.pixels_max} pixels; got {width} x {height}.")


def _check_frames(frames: int, limits: ImageLimits) -> None:
    if frames > limits.frames_max:
        raise ImageTooLarge(f"`image` must have at most {limits.frames_max} frames; got more.")


def _check_header(kind: str, data: bytes, limits: ImageLimits) -> None:
    """Checks that must come before Pillow sees the bytes: its own header reading already costs by size."""
    stop = limits.frames_max + 1
    try:
        if kind == "WebP" and (size := _webp_size(data)) is not None:
            _check_size(size, limits)
        elif kind == "GIF":
            _check_frames(_gif_frames(data, stop), limits)
        elif kind == "TIFF":
            _check_frames(_tiff_frames(data, stop), limits)
    except (struct.error, IndexError, OverflowError):
        # A header that ends early is Pillow's to refuse: it may still be a readable first frame.
        return


def _webp_size(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _gif_frames(data: bytes, stop: int) -> int:
    """Number of frames, counted no further than `stop`; IndexError where the file ends early."""
    flags = data[10]
    at = 13 + (3 * (1 << (flags & 7) + 1) if flags & 0x80 else 0)
    frames = 0
    while frames < stop:
        block = data[at]
        if block == 0x21:  # extension: label, then sub-blocks
            at = _after_sub_blocks(data, at + 2)
        elif block == 0x2C:  # image: descriptor, perhaps a palette, code size, then sub-blocks
            frames += 1
            local = data[at + 9]
            palette = 3 * (1 << (local & 7) + 1) if local & 0x80 else 0
            at = _after_sub_blocks(data, at + 10 + palette + 1)
        else:  # trailer, or rubbish that ends the animation for Pillow too
            break
    return frames


def _after_sub_blocks(data: bytes, at: int) -> int:
    while size := data[at]:
        at += size + 1
    return at + 1


def _tiff_frames(data: bytes, stop: int) -> int:
    """Number of directories, counted no further than `stop`; a chain that loops counts up to it."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    first, count_code, next_code, entry = (8, "Q", "Q", 20) if big else (4, "H", "I", 12)
    offset = struct.unpack_from(order + next_code, data, first)[0]
    frames = 0
    while offset and frames < stop:
        frames += 1
        entries = struct.unpack_from(order + count_code, data, offset)[0]
        after = offset + struct.calcsize(order + count_code) + entry * entries
        if after > len(data):
            break
        offset = struct.unpack_from(order + next_code, data, after)[0]
    return frames


def _reduced(image: ImageFile.ImageFile, side: int) -> int:
    """Tell libjpeg the smallest scale that leaves enough; one over that scale."""
    wanted = math.ceil(side * REDUCED_MARGIN)
    for scale in SCALES:
        width, height = image.size
        if min(width, height) >= wanted * scale:
            # Without a mode: colours are converted as at full scale.
            image.draft(None, (width // scale, height // scale))
            return 1 if image.size == (width, height) else scale
    return 1


def _upright_rgb(image: ImageFile.ImageFile, kind: str, turn: Image.Transpose | None) -> Image.Image:
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        grey = _grey_of_wide(np.asarray(image), kind)
        flat = Image.fromarray(grey)
    elif image.mode in _ALPHA_MODES or (image.mode in _PLAIN_MODES and image.has_transparency_data):
        flat = _over_white(image)
    elif image.mode in _PLAIN_MODES:
        flat = image
    else:
        raise ImageUnreadable(
            f"`image` must be grey, RGB, palette or CMYK, with or without transparency; got a {kind} in mode "
            f"{image.mode}."
        )
    if turn is not None:
        flat = flat.transpose(turn)
    return flat if flat.mode == "RGB" else flat.convert("RGB")


def _orientation(image: ImageFile.ImageFile) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _PILLOW_FAILURES:
        return 1
    return value if isinstance(value, int) else 1


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba.getchannel("A"))
    return white


def _grey_of_wide(values: NDArray[Any], kind: str) -> NDArray[np.uint8]:
    """8-bit grey of 16-bit, 32-bit or floating point grey on a fixed scale."""
    if values.dtype.kind == "f":
        # `not (... all)` also refuses NaN.
        if not bool(np.all((values >= 0) & (values <= 1))):
            raise ImageUnreadable(
                f"`image` in floating point must have values from 0 (black) to 1 (white); got a {kind} with "
                "others. Scale it before sending, or save it with 16 bits."
            )
        levels: NDArray[np.uint8] = np.rint(values * 255.0).astype(np.uint8)
        return levels
    if values.size and (int(values.min()) < 0 or int(values.max()) > 65535):
        raise ImageUnreadable(
            f"`image` in whole numbers must have values from 0 to 65535; got a {kind} from "
            f"{int(values.min())} to {int(values.max())}."
        )
    grey: NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return grey
