"""JPEGs decoded at a reduced scale: which scale, the same pixels for everybody, and how far vectors move."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from models.backbones.choice import EngineChoice
from models.backbones.embedder import Embedder
from models.backbones.loader import EmbeddingSpec, load_embedder
from models.decoding.decoder import Decoder
from models.errors import ImageTooLarge, ImageUnreadable
from models.images import DecodedImage, ImageLimits, decode_image, decode_raster

LIMITS = ImageLimits()
COSINE_MIN = 0.995  # of the vector from the reduced raster to that from the full one


def jpeg(image: Image.Image, size: tuple[int, int], orientation: int = 1, mode: str = "RGB", **options) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.resize(size).convert(mode).save(out, "JPEG", quality=90, exif=exif, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return [Image.fromarray(one) for one in load_sample_images().images]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder(
        EmbeddingSpec(weights="stand-in", image_size=64), weights_folder=Path(), threads=1, choice=EngineChoice("torch")
    )


@pytest.mark.parametrize(
    ("size", "scale"),
    [
        ((64, 64), 1),
        ((191, 400), 1),  # the shorter side decides
        ((192, 400), 2),  # 2 * 1.5 * 64
        ((401, 193), 2),
        ((383, 900), 2),
        ((384, 900), 4),
        ((767, 801), 4),
        ((768, 801), 8),
        ((1600, 1200), 8),
    ],
)
def test_the_scale_leaves_half_as_much_again(photographs, size: tuple[int, int], scale: int) -> None:
    raster = decode_raster(jpeg(photographs[0], size), LIMITS, 64)
    assert raster.scale == scale
    assert (raster.width, raster.height) == size
    assert raster.image.size == (-(-size[0] // scale), -(-size[1] // scale))
    assert min(raster.image.size) >= min(96, *size)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(401, 402), (500, 300)])
def test_a_reduced_image_is_turned_once(photographs, orientation: int, size: tuple[int, int]) -> None:
    data = jpeg(photographs[1], size, orientation)
    full, reduced = decode_image(data, LIMITS), decode_raster(data, LIMITS, 64)
    assert reduced.scale > 1
    assert (reduced.width, reduced.height) == (full.width, full.height)
    expected = np.asarray(Image.fromarray(full.pixels).resize(reduced.image.size, Image.Resampling.BOX), np.int16)
    assert np.abs(np.asarray(reduced.image, np.int16) - expected).mean() < 6


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_every_kind_of_jpeg_reduces(photographs, mode: str, options: dict) -> None:
    data = jpeg(photographs[0], (400, 400), mode=mode, **options)
    full, reduced = decode_raster(data, LIMITS), decode_raster(data, LIMITS, 64)
    assert (full.scale, reduced.scale, reduced.image.mode) == (1, 4, "RGB")
    small = np.asarray(full.image.resize((100, 100), Image.Resampling.BOX), np.int16)
    assert np.abs(np.asarray(reduced.image, np.int16) - small).mean() < 4


def test_other_formats_are_decoded_in_full(photographs) -> None:
    out = io.BytesIO()
    photographs[0].save(out, "PNG")
    assert decode_raster(out.getvalue(), LIMITS, 64).scale == 1


@pytest.mark.parametrize("size", [(500, 400), (640, 427), (1280, 854), (1600, 1200)])
@pytest.mark.parametrize("which", [0, 1])
def test_vectors_hardly_move(embedder: Embedder, photographs, which: int, size: tuple[int, int]) -> None:
    data = jpeg(photographs[which], size)
    reduced = embedder.embed([embedder.prepare(data, LIMITS)])[0]
    preprocessing = embedder.identity.preprocessing
    tensor = preprocessing.apply(decode_image(data, LIMITS).pixels)
    full = embedder.engine.run(tensor[None], ("pooled",))["pooled"][0]
    assert reduced @ full / np.linalg.norm(reduced) / np.linalg.norm(full) > COSINE_MIN


def test_the_size_told_is_that_of_the_full_scale(embedder: Embedder, photographs) -> None:
    prepared = embedder.prepare(jpeg(photographs[0], (500, 400)), LIMITS)
    assert (prepared.width, prepared.height) == (500, 400)


def test_the_pixel_hash_does_not_depend_on_the_format(photographs) -> None:
    data = jpeg(photographs[0], (500, 400))
    decoded = decode_image(data, LIMITS)
    assert isinstance(decoded, DecodedImage) and not decoded.pixels.flags.writeable
    out = io.BytesIO()
    Image.fromarray(decoded.pixels).save(out, "PNG")
    decoder = Decoder(LIMITS)
    assert decoder.pixel_sha256(out.getvalue()) == decoder.pixel_sha256(data)
    assert decoder.pixel_sha256(data) == decode_raster(data, LIMITS).pixel_sha256(), "of the full scale"


def test_limits_and_damage_are_judged_at_full_scale(photographs) -> None:
    data = jpeg(photographs[0], (800, 600))
    with pytest.raises(ImageTooLarge, match="at most 100000 pixels; got 800 x 600"):
        decode_raster(data, ImageLimits(pixels_max=100_000), 64)
    with pytest.raises(ImageUnreadable, match="undamaged JPEG"):
        decode_raster(data[: len(data) // 2], LIMITS, 64)
