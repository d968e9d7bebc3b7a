"""The one path from pixels to network input, against a slow resampler and by its properties."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import ParameterInvalid
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


def slow_line(line: np.ndarray, size: int, start: float, stop: float) -> np.ndarray:
    """Triangle filter widened by the reduction, in float64, one output at a time: what antialiased bilinear means."""
    scale = (stop - start) / size
    support = max(scale, 1.0)
    out = np.empty((size, *line.shape[1:]))
    for index in range(size):
        centre = start + (index + 0.5) * scale
        weights = np.maximum(0.0, 1.0 - np.abs(np.arange(len(line)) + 0.5 - centre) / support)
        out[index] = np.tensordot(weights / weights.sum(), line, axes=1)
    return out


def slow_apply(pixels: np.ndarray, size: int, fit: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    top = left = 0.0
    bottom, right = float(height), float(width)
    if fit == "crop":
        short = min(height, width)
        top, left = (height - short) / 2, (width - short) / 2
        bottom, right = top + short, left + short
    rows = slow_line(pixels.astype(np.float64), size, top, bottom)
    square = slow_line(rows.swapaxes(0, 1), size, left, right).swapaxes(0, 1)
    return ((square / 255.0 - IMAGENET_MEAN) / IMAGENET_STD).transpose(2, 0, 1)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    fit=st.sampled_from(["squash", "crop"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_a_slow_resampler_in_float64(height: int, width: int, fit: str, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = Preprocessing(32, fit=fit).apply(pixels)
    assert found.shape == (3, 32, 32) and found.dtype == np.float32 and found.flags.c_contiguous
    # Two passes that round to whole levels: at most 1.5 levels apart, in units of the smallest deviation.
    np.testing.assert_allclose(found, slow_apply(pixels, 32, fit), atol=1.5 / 255 / min(IMAGENET_STD))


def test_normalising_is_exact_at_the_own_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = ((pixels / 255.0 - IMAGENET_MEAN) / IMAGENET_STD).astype(np.float32).transpose(2, 0, 1)
    np.testing.assert_array_equal(Preprocessing(32).apply(pixels), expected)


def test_squash_sees_a_defect_at_the_border_that_crop_does_not() -> None:
    clean = np.full((40, 120, 3), 128, dtype=np.uint8)
    defective = clean.copy()
    defective[:, :10] = 255
    squash, crop = Preprocessing(32), Preprocessing(32, fit="crop")
    assert np.abs(squash.apply(defective) - squash.apply(clean)).max() > 1
    np.testing.assert_array_equal(crop.apply(defective), crop.apply(clean))


def test_reducing_is_antialiased() -> None:
    stripes = np.zeros((320, 320, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(Preprocessing(32).apply(stripes)[0]) < 0.25  # full contrast is 4.4


@pytest.mark.parametrize("fit", ["squash", "crop"])
@pytest.mark.parametrize("shape", [(1, 60_000, 3), (60_000, 1, 3), (1, 1, 3)])
def test_extreme_proportions_cost_no_memory(shape: tuple[int, int, int], fit: str) -> None:
    pixels = np.zeros(shape, dtype=np.uint8)
    tracemalloc.start()
    try:
        assert Preprocessing(224, fit=fit).apply(pixels).shape == (3, 224, 224)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


def test_the_input_is_left_alone_and_read_only_input_is_fine() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    copy = pixels.copy()
    first = Preprocessing(32).apply(pixels)
    np.testing.assert_array_equal(pixels, copy)
    np.testing.assert_array_equal(first, Preprocessing(32).apply(pixels))


def test_interpolations_differ() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    bilinear, bicubic = Preprocessing(32), Preprocessing(32, interpolation="bicubic")
    assert not np.array_equal(bilinear.apply(pixels), bicubic.apply(pixels))


def test_the_description_tells_every_field_apart() -> None:
    variants = [
        Preprocessing(32),
        Preprocessing(64),
        Preprocessing(32, fit="crop"),
        Preprocessing(32, interpolation="bicubic"),
        Preprocessing(32, mean=(0.5, 0.5, 0.5)),
        Preprocessing(32, std=(0.5, 0.5, 0.5)),
    ]
    assert len({repr(sorted(variant.describe().items())) for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"image_size": 31}, "`image_size` of an embedding must be from 32 to 1024 pixels; got 31"),
        ({"image_size": 1025}, "got 1025"),
        ({"fit": "stretch"}, "`fit` of an embedding must be squash or crop; got stretch"),
        ({"interpolation": "nearest"}, "bilinear or bicubic; got nearest"),
        ({"std": (0.0, 1.0, 1.0)}, "`std` positive"),
        ({"mean": (0.0, 1.0)}, "three numbers each"),
    ],
)
def test_parameters_out_of_range_are_refused(wrong: dict, sentence: str) -> None:
    with pytest.raises(ParameterInvalid, match=sentence):
        Preprocessing(**{"image_size": 32, **wrong})


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_that_are_no_image_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ParameterInvalid, match="must be \\(height, width, 3\\) of uint8"):
        Preprocessing(32).apply(pixels)
