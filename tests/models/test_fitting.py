"""What a fit rests on: images held out by hash, states as bytes, inputs read lazily, one scale for heat maps."""

import hashlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image
from safetensors.numpy import load, save

from models.backbones.loader import EmbeddingSpec, load_embedder
from models.contract import FittedState, Inputs, Reference, Scores
from models.errors import BankTooSmall, FingerprintMismatch, MethodIncomplete, StateDamaged
from models.fitted_files import read_state, state_bytes
from models.fitting import CALIBRATION_ROWS, calibration_rows, fit, held_out, scores_of
from models.heat_maps import HeatScale, heat_scale, overlay_png
from models.images import ImageLimits
from models.inputs import Batches, EmbedderBackbone, LazyInputs, LazyMaps, StagesAsked, one_image
from tests.conftest import png


def keys_of(n: int, salt: str = "") -> np.ndarray:
    digests = [hashlib.sha256(f"{salt}{one}".encode()).digest()[:8] for one in range(n)]
    return np.array([int.from_bytes(one, "big") for one in digests], np.uint64)


@given(some.integers(20, 200), some.integers(0, 10**6), some.booleans())
def test_held_out_images_are_apart_and_chosen_by_hash_alone(n: int, seed: int, is_grouped: bool) -> None:
    random = np.random.default_rng(seed)
    keys = keys_of(n, str(seed))
    groups = [f"g{one}" if one % 3 else None for one in random.integers(0, 12, n)] if is_grouped else []
    try:
        aside, left = held_out(keys, groups)
    except BankTooSmall:
        assert is_grouped
        return
    assert np.array_equal(np.sort(np.concatenate([aside, left])), np.arange(n))
    assert aside.size >= 10 and left.size >= 10 and 2 * aside.size <= n
    if groups:
        named = [{groups[row] for row in part} - {None} for part in (aside, left)]
        assert not named[0] & named[1]
    else:
        assert aside.size == max(10, round(0.2 * n))
        assert keys[aside].max() < keys[left].min()
    order = random.permutation(n)
    again, _ = held_out(keys[order], [groups[row] for row in order] if groups else [])
    assert set(keys[order][again]) == set(keys[aside])


def test_a_bank_that_cannot_be_split_is_refused() -> None:
    with pytest.raises(BankTooSmall, match="at least 20 normal images"):
        held_out(keys_of(19), [])
    with pytest.raises(BankTooSmall, match="of 1 groups"):
        held_out(keys_of(40), ["one"] * 40)
    with pytest.raises(BankTooSmall, match="at least 60"):
        held_out(keys_of(59), [], bank_min=50)
    held_out(keys_of(60), [], bank_min=50)


def test_at_most_two_thousand_are_scored() -> None:
    keys = keys_of(2500)
    rows = calibration_rows(keys, np.arange(2500))
    assert rows.size == CALIBRATION_ROWS and keys[rows].max() < np.delete(keys, rows).min()


STATE = FittedState(
    {"a": np.arange(6, dtype=np.float64).reshape(2, 3), "none": np.zeros((0, 4), np.float32), "one": np.array(3)},
    {"k": 2, "names": ["x", "é"], "nested": {"rate": 0.1, "off": None}},
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_state_comes_back_as_it_went() -> None:
    data = state_bytes("m", STATE)
    assert data == state_bytes("m", STATE)
    back = read_state(data, method="m", sha256=sha256(data))
    assert back.values == STATE.values and set(back.arrays) == set(STATE.arrays)
    for name, array in STATE.arrays.items():
        assert np.array_equal(back.arrays[name], array) and back.arrays[name].dtype == array.dtype
        assert back.arrays[name].shape == array.shape and not back.arrays[name].flags.writeable
    empty = state_bytes("m", FittedState({}, {}))
    assert read_state(empty, method="m", sha256=sha256(empty)).values == {}


@pytest.mark.parametrize(
    ("arrays", "values"),
    [
        ({"a": np.array(["text"])}, {}),
        ({"a": np.array([object()])}, {}),
        ({"a": [1, 2]}, {}),
        ({"a": np.zeros(2, np.complex64)}, {}),
        ({}, {"a": float("nan")}),
        ({}, {"a": (1, 2)}),
        ({}, {"a": {1: 2}}),
        ({}, {"a": np.float32(1)}),
    ],
)
def test_what_is_not_plain_is_refused(arrays: dict, values: dict) -> None:
    with pytest.raises(MethodIncomplete, match="of the state of `m`"):
        state_bytes("m", FittedState(arrays, values))


def test_a_damaged_or_foreign_state_is_refused() -> None:
    data = state_bytes("m", STATE)
    for place in range(0, len(data), 7):
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(StateDamaged, match="must have SHA-256"):
            read_state(damaged, method="m", sha256=sha256(data))
    with pytest.raises(StateDamaged, match="must be of method `other`"):
        read_state(data, method="other", sha256=sha256(data))
    for foreign in (b"", b"text", save({"a": np.zeros(1)}), save(dict(load(data)), {"oddity": "[]"})):
        with pytest.raises(StateDamaged):
            read_state(foreign, method="m", sha256=sha256(foreign))
    future = save({}, {"oddity": json.dumps({"format": 2, "method": "m", "values": {}})})
    with pytest.raises(StateDamaged, match="format 2"):
        read_state(future, method="m", sha256=sha256(future))


class Brightness:
    """Distance of the first feature from its mean; calibration must never reach `fit`."""

    name = "brightness"

    def __init__(self, mean: float = 0.0, wrong: float | None = None) -> None:
        self.mean, self.wrong, self.method = mean, wrong, self.name

    def fit(self, reference: Reference, *, seed: int, progress=None) -> "Brightness":
        rows = np.concatenate([batch.vectors for batch in reference.bank])
        if progress is not None:
            progress(1, 1)
        return Brightness(float(rows[:, 0].mean()), self.wrong)

    def score(self, inputs: Inputs) -> Scores:
        away = np.abs(inputs.vectors[:, 0] - self.mean)
        image = away if self.wrong is None else np.full_like(away, self.wrong)
        return Scores(
            image=image.astype(np.float32), pixels=image.astype(np.float32)[:, None, None] * np.ones((1, 2, 2))
        )

    def export(self) -> FittedState:
        return FittedState({}, {"mean": self.mean})

    def restore(self, state: FittedState) -> "Brightness":
        return Brightness(state.values["mean"], self.wrong)


def rows(*values: float) -> Inputs:
    return Inputs(ids=np.arange(len(values)), vectors=np.array(values, np.float32)[:, None])


def test_a_fit_calibrates_the_scorer_that_will_serve() -> None:
    told: list[tuple[int, int]] = []
    bank = Reference(bank=[rows(1, 2), rows(3)], keys=keys_of(3))
    found = fit(Brightness(), bank, [rows(2, 5), rows(0)], seed=0, calibrating=lambda *one: told.append(one))
    assert found.calibration.tolist() == [0.0, 3.0, 2.0] and told == [(1, 3), (2, 3), (3, 3)]
    assert found.sha256 == sha256(found.state)
    assert found.heat_scale == HeatScale(2.0, 3.0)
    assert isinstance(found.scorer, Brightness) and found.scorer.mean == 2.0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_score_that_is_no_number_ends_the_fit(wrong: float) -> None:
    bank = Reference(bank=[rows(1, 2)], keys=keys_of(2))
    with pytest.raises(MethodIncomplete, match="must be a finite number"):
        fit(Brightness(wrong=wrong), bank, [rows(2)], seed=0)


def test_images_are_scored_one_at_a_time() -> None:
    sizes: list[int] = []

    class Counting(Brightness):
        def score(self, inputs: Inputs) -> Scores:
            sizes.append(len(inputs))
            return super().score(inputs)

    assert [one.image[0] for one in scores_of(Counting(), rows(1, 2, 3))] == [1, 2, 3]
    assert sizes == [1, 1, 1]


def test_inputs_are_read_when_they_are_looked_at() -> None:
    reads: list[object] = []

    def compute(stages):
        reads.append(tuple(stages))
        return {stage: np.full((2, 1, 1, 1), stage, np.float32) for stage in stages}

    def pixels():
        reads.append("pixels")
        return np.zeros((2, 3, 4, 4), np.float32)

    asked = StagesAsked()
    first = LazyInputs(pixels, ids=np.arange(2), maps=LazyMaps(compute, asked))
    assert reads == [] and len(first) == 2 and first.vectors is None and list(first.maps) == [1, 2, 3, 4]
    assert first.maps[2][0, 0, 0, 0] == 2 and first.maps[3][0, 0, 0, 0] == 3 and first.maps[2].shape == (2, 1, 1, 1)
    assert reads == [(2,), (3,)]
    second = LazyInputs(pixels, ids=np.arange(2), maps=LazyMaps(compute, asked))
    row = one_image(second, 1)
    assert row.ids.tolist() == [1] and row.maps[2].shape == (1, 1, 1, 1) and row.pixels.shape == (1, 3, 4, 4)
    assert second.pixels is second.pixels
    assert reads[2:] == [(2, 3), "pixels"]  # what was asked for before is computed in one pass
    with pytest.raises(KeyError):
        second.maps[5]
    assert one_image(rows(4, 5), 1).pixels is None and one_image(rows(4, 5), 1).maps == {}


def test_batches_are_read_when_they_are_reached() -> None:
    read: list[range] = []

    def reading(places: range) -> Inputs:
        read.append(places)
        return rows(*places)

    batches = Batches(5, reading, 2)
    assert len(batches) == 3 and read == []
    assert [len(one) for one in batches] == [2, 2, 1]
    assert batches[-1].ids.tolist() == [0] and [one.vectors[0, 0] for one in batches[1:]] == [2.0, 4.0]
    with pytest.raises(IndexError):
        batches[3]
    assert len(Batches(0, reading)) == 0 and list(Batches(0, reading)) == []


def test_the_backbone_takes_pixels_as_they_are_fed(tmp_path) -> None:
    embedder = load_embedder(EmbeddingSpec(weights="stand-in", image_size=32), weights_folder=tmp_path, threads=1)
    prepared = [embedder.prepare(png(seed), ImageLimits()) for seed in range(3)]
    pixels = np.stack([one.tensor for one in prepared])
    backbone = EmbedderBackbone(embedder)
    assert np.array_equal(backbone.vectors(pixels), embedder.embed(prepared))
    assert np.array_equal(backbone.maps(pixels, [2])[2], embedder.maps(prepared, [2])[2])
    assert backbone.width == 512 and len(backbone.mean) == len(backbone.std) == 3
    with pytest.raises(FingerprintMismatch, match=r"must be \(n, 3, 32, 32\)"):
        backbone.vectors(pixels[:, :, :16])


def test_a_good_image_is_pale_and_a_defect_is_red() -> None:
    random = np.random.default_rng(0)
    maps = [random.uniform(0, 1, (4, 4)).astype(np.float32) for _ in range(200)]
    scale = heat_scale(maps)
    assert 0.45 < scale.low < 0.55 and 0.9 < scale.border <= 1.0 and scale.high > 1.4

    def drawn(heat: np.ndarray) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(overlay_png(heat, scale, 8, 6))))

    good = drawn(maps[0])
    assert good.shape == (6, 8, 4) and good[:, :, 1].min() >= 205  # yellow at most, nowhere red
    defect = maps[0].copy()
    defect[0, 0] = 5.0
    assert drawn(defect)[0, 0].tolist() == [220, 0, 0, 200] and drawn(np.zeros((4, 4), np.float32))[:, :, 3].max() == 0
    flat = heat_scale([np.full((2, 2), 3.0, np.float32)] * 20)  # a map without any range has a scale all the same
    assert flat.high > flat.border > flat.low == 3.0
