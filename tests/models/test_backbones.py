"""Records, weights from every source, the torch engine against torchvision itself, and the embedder's promises."""

import hashlib
import http.server
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from threadpoolctl import ThreadpoolController

from models.backbones import fetch, openvino_engine
from models.backbones.choice import EngineChoice, PrecisionName
from models.backbones.embedder import (
    BATCH_SIZES,
    Embedder,
    EmbeddingIdentity,
    EmbeddingSpec,
    PreparedImage,
    padded_size,
)
from models.backbones.engine import FeaturePooling
from models.backbones.fetch import fetch_weights
from models.backbones.loader import default_weights, load_embedder
from models.backbones.network import tensor_shapes
from models.backbones.resnet import BACKBONES
from models.backbones.stand_in import stand_in_weights
from models.backbones.torch_engine import TorchEngine
from models.backbones.weights import read_weights, tensors_sha256
from models.errors import FingerprintMismatch, ParameterInvalid, WeightsDamaged, WeightsMissing
from models.images import ImageLimits
from models.preprocessing import Preprocessing
from models.torchvision_import import import_torchvision

NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
)
LIMITS = ImageLimits()
NOWHERE = Path("/nonexistent")


def png(seed: int, height: int = 40, width: int = 50) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def load(choice: EngineChoice = EngineChoice(), **choices: object) -> Embedder:  # noqa: B008 - frozen
    spec = EmbeddingSpec(**{"weights": "stand-in", **choices})
    return load_embedder(spec, weights_folder=NOWHERE, threads=1, choice=choice)


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load()


@pytest.fixture(scope="module", params=get_args(FeaturePooling))
def of_each_pooling(request: pytest.FixtureRequest) -> Embedder:
    return load(pooling=request.param)


@pytest.fixture(scope="module")
def prepared(embedder: Embedder) -> list[PreparedImage]:
    return [embedder.prepare(png(seed), LIMITS) for seed in range(40)]


@pytest.fixture(scope="module")
def lively_weights() -> dict[str, np.ndarray]:
    """Weights whose normalisation layers are not at rest, so that folding them wrongly shows."""
    rng = np.random.default_rng(3)
    weights = stand_in_weights("resnet18", tensor_shapes("resnet18"), 8)
    for name, array in weights.items():
        if array.ndim == 1:
            change = rng.uniform(0.5, 1.5, array.shape) if name.endswith(("var", "weight")) else rng.normal(0, 0.1)
            weights[name] = (array * change if array.any() else array + change).astype(np.float32)
    return weights


def relative_gap(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.linalg.norm(found - expected, axis=-1) / np.linalg.norm(expected, axis=-1)))


# Records


def test_the_promised_backbones_are_there() -> None:
    assert sorted(BACKBONES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_records_agree_with_torchvision(name: str) -> None:
    record = BACKBONES[name]
    models = import_torchvision().models
    published = models.get_model_weights(name).IMAGENET1K_V1
    assert record.weights_url == published.url
    preset = published.transforms()
    assert (record.image_size, record.mean, record.std) == (preset.crop_size[0], tuple(preset.mean), tuple(preset.std))
    with torch.device("meta"):
        network = getattr(models, name)()
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    assert record.blocks == tuple(len(stage) for stage in stages)
    assert record.stage_widths[-1] == network.fc.in_features
    features = network.conv1(torch.zeros((1, 3, 32, 32), device="meta"))
    for stage, width in zip(stages, record.stage_widths, strict=True):
        features = stage(features)
        assert features.shape[1] == width


def test_records_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        BACKBONES["mine"] = BACKBONES["resnet18"]  # type: ignore[index]


# Stand-in


def test_the_stand_in_never_changes(embedder: Embedder) -> None:
    # Vectors stored years ago must stay comparable: a change here needs a new edition, and a word to the users.
    assert embedder.identity.weights_sha256 == "a11f3412979476babbb92b971264be480e01b8d4222d9ccc2828867105135635"
    assert embedder.identity.weights == "stand-in"


def test_stand_in_filters_are_centred_and_of_the_right_size() -> None:
    weights = stand_in_weights("resnet18", tensor_shapes("resnet18"), 8)
    filters = weights["layer2.0.conv1.weight"].reshape(128, -1).astype(np.float64)
    np.testing.assert_allclose(filters.sum(axis=1), 0, atol=1e-3)
    np.testing.assert_allclose(filters.var(), 2 / filters.shape[1], rtol=0.02)
    assert weights["layer2.0.bn2.weight"][0] == np.float32(1 / np.sqrt(8))
    assert weights["layer2.0.bn1.weight"][0] == 1


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d"])
def test_deep_stand_ins_neither_vanish_nor_explode(name: str) -> None:
    deep = load(backbone=name, stages=(1, 2, 3, 4), image_size=32)
    vectors = deep.embed([deep.prepare(png(seed), LIMITS) for seed in range(2)])
    assert vectors.shape == (2, sum(BACKBONES[name].stage_widths))
    assert np.isfinite(vectors).all()
    assert 0.01 < np.abs(vectors[:, -2048:]).mean() < 100
    assert relative_gap(vectors[:1], vectors[1:]) > 0.01


def test_loading_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load(image_size=32)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


# The engine


def test_the_engine_agrees_with_torchvision_itself(lively_weights: dict[str, np.ndarray]) -> None:
    network = import_torchvision().models.resnet18()
    state = {name: torch.from_numpy(array) for name, array in lively_weights.items()}
    network.load_state_dict(state, strict=False)
    network = network.double().eval()
    batch = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        features = network.maxpool(network.relu(network.bn1(network.conv1(torch.from_numpy(batch).double()))))
        maps = {}
        for stage in (1, 2, 3, 4):
            features = getattr(network, f"layer{stage}")(features)
            maps[f"stage{stage}"] = features.permute(0, 2, 3, 1).numpy()
    found = TorchEngine("resnet18", lively_weights, (2, 4), 1).run(batch, ("pooled", *maps))
    for name, expected in maps.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    pooled = np.concatenate([maps["stage2"].mean(axis=(1, 2)), maps["stage4"].mean(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(found["pooled"], pooled, rtol=1e-5, atol=1e-5 * pooled.max())


def test_the_engine_does_not_touch_what_it_is_given(lively_weights: dict[str, np.ndarray]) -> None:
    before = tensors_sha256(lively_weights)
    engine = TorchEngine("resnet18", lively_weights, (4,), 1)
    batch = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    copy = batch.copy()
    first = engine.run(batch, ("pooled",))["pooled"]
    np.testing.assert_array_equal(batch, copy)
    assert tensors_sha256(lively_weights) == before
    np.testing.assert_array_equal(engine.run(batch, ("pooled",))["pooled"], first)


# The embedder


def test_prepare_tells_what_the_decoder_learnt(embedder: Embedder) -> None:
    image = embedder.prepare(png(0, 40, 50), LIMITS)
    assert (image.width, image.height, image.format) == (50, 40, "PNG")
    assert image.tensor.shape == (3, 64, 64) and not image.tensor.flags.writeable


@pytest.mark.parametrize(("size", "threads"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (4, 2)])
def test_at_one_padded_size_mates_and_place_change_no_bit(size: int, threads: int) -> None:
    engine = TorchEngine("resnet18", stand_in_weights("resnet18", tensor_shapes("resnet18"), 8), (2, 4), threads)
    probe, *mates = np.random.default_rng(size).normal(size=(size + 1, 3, 32, 32)).astype(np.float32)
    padded = np.zeros((size, 3, 32, 32), dtype=np.float32)
    padded[0] = probe
    alone = engine.run(padded, ("pooled",))["pooled"][0]
    for place in {0, 1, size // 2, size - 1} & set(range(size)):
        batch = np.stack(mates)
        batch[place] = probe
        np.testing.assert_array_equal(engine.run(batch, ("pooled",))["pooled"][place], alone)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 9, 13, 16, 17, 40])
def test_a_vector_is_the_same_alone_and_in_any_company(
    of_each_pooling: Embedder, prepared: list[PreparedImage], n: int
) -> None:
    embedder = of_each_pooling
    together = embedder.embed(prepared[:n])
    assert together.shape == (n, 512) and together.dtype == np.float32
    alone = np.concatenate([embedder.embed([image]) for image in prepared[:n]])
    assert relative_gap(together, alone) < 1e-5
    assert relative_gap(np.roll(together, 1, axis=0), alone) > 1e-3 or n == 1  # the measure can tell images apart


def test_no_images_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 512)
    assert embedder.maps([], (3,))[3].shape == (0, 4, 4, 256)


@pytest.mark.parametrize("precision", openvino_engine.native_precisions())
@pytest.mark.parametrize("pooling", get_args(FeaturePooling))
def test_pooled_vectors_are_the_means_of_the_maps_or_their_roots(
    prepared: list[PreparedImage], precision: PrecisionName, pooling: FeaturePooling
) -> None:
    both = load(EngineChoice(precision=precision), stages=(2, 3), pooling=pooling)
    assert both.width == 128 + 256
    maps = both.maps(prepared[:5], (3, 2, 4))
    assert {stage: array.shape for stage, array in maps.items()} == {
        3: (5, 4, 4, 256),
        2: (5, 8, 8, 128),
        4: (5, 2, 2, 512),
    }
    means = np.concatenate([maps[2].mean(axis=(1, 2)), maps[3].mean(axis=(1, 2))], axis=1)
    expected = means if pooling == "mean" else np.sqrt(means)
    # In bf16 the maps are rounded to 8 significant bits; the pooled vectors are not.
    assert relative_gap(both.embed(prepared[:5]), expected) < (2**-7 if both.runtime.precision == "bf16" else 1e-6)


@pytest.mark.parametrize("stages", [(), (0,), (5,)])
def test_maps_of_stages_that_do_not_exist_are_refused(embedder: Embedder, stages: tuple[int, ...]) -> None:
    with pytest.raises(ParameterInvalid, match="some of 1, 2, 3, 4"):
        embedder.maps([], stages)


def test_images_prepared_for_another_preprocessing_are_refused(embedder: Embedder) -> None:
    cropping = load(fit="crop")
    image = cropping.prepare(png(0), LIMITS)
    for use in (lambda: embedder.embed([image]), lambda: embedder.maps([image], (4,))):
        with pytest.raises(FingerprintMismatch, match="another preprocessing"):
            use()


def test_threads_embed_alike(embedder: Embedder, prepared: list[PreparedImage]) -> None:
    expected = embedder.embed(prepared[:8])
    found: list[np.ndarray] = []

    def work() -> None:
        for _ in range(3):
            found.append(embedder.embed(prepared[:8]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for vectors in found:
        np.testing.assert_array_equal(vectors, expected)


@given(st.integers(1, 200))
def test_padding_wastes_at_most_a_quarter(waiting: int) -> None:
    size = padded_size(waiting)
    assert size in BATCH_SIZES
    assert min(waiting, size) >= 0.75 * size


# Identity


def test_the_fingerprint_follows_what_decides_a_vector_and_nothing_else() -> None:
    base = EmbeddingIdentity("resnet18", "stand-in", "ab" * 32, (4,), Preprocessing(64), "mean")
    assert len(base.fingerprint) == 64
    assert replace(base, weights="file:/elsewhere").fingerprint == base.fingerprint
    others = [
        replace(base, backbone="resnet34"),
        replace(base, weights_sha256="cd" * 32),
        replace(base, stages=(3, 4)),
        replace(base, pooling="sqrt_mean"),
        replace(base, preprocessing=Preprocessing(96)),
        replace(base, preprocessing=Preprocessing(64, fit="crop")),
        replace(base, preprocessing=Preprocessing(64, interpolation="bicubic")),
    ]
    assert len({identity.fingerprint for identity in (base, *others)}) == len(others) + 1
    assert base.describe()["weights"] == "stand-in"
    assert json.loads(json.dumps(base.describe())) == base.describe()


def test_a_change_of_decoder_rules_changes_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = ("resnet18", "stand-in", "ab" * 32, (4,), Preprocessing(64), "mean")
    before = EmbeddingIdentity(*facts)
    assert EmbeddingIdentity(*facts).fingerprint == before.fingerprint
    monkeypatch.setattr("models.backbones.embedder.DECODER_RULES", 99)
    assert EmbeddingIdentity(*facts).fingerprint != before.fingerprint


def test_the_runtime_is_recorded_apart(embedder: Embedder) -> None:
    described = embedder.runtime.describe()
    assert (described["engine"], described["precision"], described["threads"]) == ("openvino", "float32", 1)
    assert set(described["versions"]) == {"torch", "torchvision", "openvino", "numpy", "pillow"}
    assert (
        described["hints"]["INFERENCE_PRECISION_HINT"] == "f32" and described["hints"]["INFERENCE_NUM_THREADS"] == "1"
    )
    assert described["comparable_with"] == "float32" and described["processor"]
    assert json.loads(json.dumps(described)) == described
    assert "engine" not in embedder.identity.describe()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"weights": "imagenet"}, "embedded, stand-in, torchvision or file:<path>; got imagenet"),
        ({"weights": "file:"}, "got file:"),
        ({"stages": ()}, "some of 1, 2, 3, 4"),
        ({"stages": (4, 3)}, "ascending"),
        ({"stages": (4, 4)}, "each once"),
        ({"stages": (5,)}, "some of 1, 2, 3, 4"),
        ({"backbone": "resnet19"}, "`backbone` of an embedding must be one of resnet18, .*; got resnet19"),
        ({"image_size": 8}, "from 32 to 1024 pixels; got 8"),
    ],
)
def test_specifications_out_of_range_are_refused(wrong: dict, sentence: str) -> None:
    with pytest.raises(ParameterInvalid, match=sentence):
        load(**wrong)


def test_threads_out_of_range_are_refused() -> None:
    with pytest.raises(ParameterInvalid, match="from 1 to 1024; got 0"):
        load_embedder(EmbeddingSpec(weights="stand-in"), weights_folder=NOWHERE, threads=0)


def test_matrix_products_of_numpy_take_the_thread_that_asks() -> None:
    libraries = ThreadpoolController().select(threading_layer="pthreads")
    if not libraries.lib_controllers:
        pytest.skip("numpy multiplies with another library here")

    def threads_of_both() -> tuple[int, set[int]]:
        with libraries.limit(limits=2):
            load_embedder(EmbeddingSpec(weights="stand-in"), weights_folder=NOWHERE, threads=2)
            return torch.get_num_threads(), {one.num_threads for one in libraries.lib_controllers}

    with ThreadPoolExecutor(1) as fresh:
        assert fresh.submit(threads_of_both).result() == (2, {1})


# Files the user names


def as_torch(weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in weights.items()}


def load_file(folder: Path, name: str) -> Embedder:
    return load_embedder(EmbeddingSpec(weights=f"file:{name}"), weights_folder=folder, threads=1)


def test_the_same_weights_in_any_file_are_the_same_embedding(
    tmp_path: Path, lively_weights: dict[str, np.ndarray]
) -> None:
    state = as_torch(lively_weights)
    save_file(state, tmp_path / "a.safetensors")
    classifier = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    counts = {"bn1.num_batches_tracked": torch.tensor(3)}
    torch.save({**classifier, **counts, **dict(reversed(state.items()))}, tmp_path / "b.pth")
    first, second = load_file(tmp_path, "a.safetensors"), load_file(tmp_path, str(tmp_path / "b.pth"))
    assert first.identity.fingerprint == second.identity.fingerprint
    assert first.identity.weights == "file:a.safetensors"
    assert first.identity.preprocessing.image_size == 224


def test_half_precision_is_widened(tmp_path: Path, lively_weights: dict[str, np.ndarray]) -> None:
    save_file({name: tensor.half() for name, tensor in as_torch(lively_weights).items()}, tmp_path / "h.safetensors")
    rounded = {name: array.astype(np.float16).astype(np.float32) for name, array in lively_weights.items()}
    assert load_file(tmp_path, "h.safetensors").identity.weights_sha256 == tensors_sha256(rounded)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=f"got {tmp_path}/none.pth"):
        load_file(tmp_path, "none.pth")


def test_a_torch_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "was-here"

    class Touches:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (marker,)

    torch.save({"conv1.weight": Touches()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsDamaged, match="tensors only"):
        load_file(tmp_path, "evil.pth")
    assert not marker.exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert marker.exists()  # the file was dangerous indeed


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("damage", ["cut", "rubbish", "empty"])
def test_damaged_files_are_refused(
    tmp_path: Path, lively_weights: dict[str, np.ndarray], name: str, damage: str
) -> None:
    path = tmp_path / name
    if damage == "cut":
        if name.endswith("pth"):
            torch.save(as_torch(lively_weights), path)
        else:
            save_file(as_torch(lively_weights), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"rubbish" * 100 if damage == "rubbish" else b"")
    with pytest.raises(WeightsDamaged, match="must be a whole safetensors file"):
        load_file(tmp_path, name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "without layer1.0.conv1.weight \\(1 absent, 0 unknown\\)"),
        (lambda state: state.update(extra=torch.zeros(1)), "with extra \\(0 absent, 1 unknown\\)"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), "bn1.bias is \\(3,\\), not \\(64,\\)"),
        (lambda state: state["bn1.bias"].fill_(float("nan")), "bn1.bias is not finite"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, lively_weights: dict[str, np.ndarray], change: object, sentence: str
) -> None:
    state = as_torch(lively_weights)
    change(state)
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(WeightsDamaged, match=sentence):
        load_file(tmp_path, "x.safetensors")


# Embedded weights


@pytest.fixture
def embedded(tmp_path: Path, lively_weights: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "embedded"
    folder.mkdir()
    save_file({name: tensor.half() for name, tensor in as_torch(lively_weights).items()}, folder / "r.safetensors")
    card = {
        "file": "r.safetensors",
        "sha256": hashlib.sha256((folder / "r.safetensors").read_bytes()).hexdigest(),
        "backbone": "resnet18",
        "image_size": 96,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    (folder / "card.json").write_text(json.dumps({"weights": [card]}))
    return folder


def load_embedded(folder: Path, **choices: object) -> Embedder:
    spec = EmbeddingSpec(**{"weights": "embedded", **choices})
    return load_embedder(spec, weights_folder=NOWHERE, threads=1, embedded_folder=folder)


def test_embedded_weights_bring_their_preprocessing(embedded: Path) -> None:
    assert default_weights(embedded_folder=embedded) == "embedded"
    loaded = load_embedded(embedded)
    assert loaded.identity.preprocessing == Preprocessing(96, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert load_embedded(embedded, image_size=64).identity.preprocessing.image_size == 64


def test_embedded_weights_are_never_replaced_silently(tmp_path: Path, embedded: Path) -> None:
    assert default_weights(embedded_folder=tmp_path) == "stand-in"
    with pytest.raises(WeightsMissing, match="oddity weights fetch resnet18"):
        load_embedded(tmp_path)
    assert default_weights("resnet50", embedded_folder=embedded) == "stand-in"
    with pytest.raises(WeightsMissing, match="oddity weights fetch resnet50"):
        load_embedded(embedded, backbone="resnet50")


def test_changed_embedded_weights_are_refused(embedded: Path) -> None:
    with (embedded / "r.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(WeightsDamaged, match="must have SHA-256"):
        load_embedded(embedded)
    (embedded / "r.safetensors").unlink()
    with pytest.raises(WeightsMissing, match="got no such file"):
        load_embedded(embedded)


@pytest.mark.parametrize("text", ["{", "[]", '{"weights": [{}]}', '{"weights": [{"mean": 3}]}'])
def test_a_damaged_card_is_refused(embedded: Path, text: str) -> None:
    (embedded / "card.json").write_text(text)
    with pytest.raises(WeightsDamaged, match=r"`card.json` beside weights"):
        load_embedded(embedded)


# Published weights


@pytest.fixture
def published(lively_weights: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A file in place of torchvision's, and a record of resnet18 that expects it."""
    out = io.BytesIO()
    torch.save(as_torch(lively_weights), out)
    content = out.getvalue()
    record = replace(BACKBONES["resnet18"], weights_file=f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth")
    for module in ("fetch", "loader"):
        monkeypatch.setattr(f"models.backbones.{module}.BACKBONES", {**BACKBONES, "resnet18": record})
    return content


@pytest.fixture
def mirror(published: bytes) -> Iterator[str]:
    """Address of a server with the file at /good, half of it at /half, another at /other, an error elsewhere."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/good": published, "/half": published, "/other": b"<html>please log in</html>"}.get(self.path)
            if body is None:
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if self.path == "/half" else body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def load_published(folder: Path) -> Embedder:
    return load_embedder(EmbeddingSpec(weights="torchvision"), weights_folder=folder, threads=1)


def test_fetched_weights_load(tmp_path: Path, mirror: str, published: bytes) -> None:
    with pytest.raises(WeightsMissing, match="Run `oddity weights fetch resnet18`"):
        load_published(tmp_path)
    seen: list[tuple[int, int | None]] = []
    path = fetch_weights(
        "resnet18", tmp_path, url=f"{mirror}/good", progress=lambda done, total: seen.append((done, total))
    )
    assert path.read_bytes() == published
    assert seen[-1] == (len(published), len(published)) and len(seen) > 2
    note = json.loads(Path(f"{path}.json").read_text())
    assert note["sha256"] == hashlib.sha256(published).hexdigest()
    loaded = load_published(tmp_path)
    assert (loaded.identity.weights, loaded.identity.preprocessing.image_size) == ("torchvision", 224)


def test_weights_that_are_there_are_not_fetched_again(tmp_path: Path, mirror: str) -> None:
    path = fetch_weights("resnet18", tmp_path, url=f"{mirror}/good")

    def never(url: str) -> object:
        raise AssertionError(url)

    assert fetch_weights("resnet18", tmp_path, opener=never) == path


@pytest.mark.parametrize(
    ("page", "error", "sentence"),
    [
        ("half", WeightsMissing, "must arrive whole|after"),
        ("other", WeightsDamaged, "SHA-256 that begins with"),
        ("gone", WeightsMissing, "503"),
    ],
)
def test_a_failed_fetch_leaves_nothing(
    tmp_path: Path, mirror: str, page: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        fetch_weights("resnet18", tmp_path, url=f"{mirror}/{page}")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path, mirror: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_weights("resnet18", tmp_path, url=f"{mirror}/good", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_damaged_published_weights_are_refused_and_fetched_anew(tmp_path: Path, mirror: str) -> None:
    path = fetch_weights("resnet18", tmp_path, url=f"{mirror}/good")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WeightsDamaged, match="Delete it and run `oddity weights fetch resnet18`"):
        load_published(tmp_path)
    fetch_weights("resnet18", tmp_path, url=f"{mirror}/good")
    load_published(tmp_path)


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="copy the file into the weights folder"):
        fetch_weights("resnet18", tmp_path, url="http://127.0.0.1:9/weights")


@pytest.mark.parametrize(
    ("name", "url", "sentence"),
    [("alexnet", None, "must be one of resnet18"), ("resnet18", "file:///etc/passwd", "https:// or http://")],
)
def test_fetching_something_else_is_refused(tmp_path: Path, name: str, url: str | None, sentence: str) -> None:
    with pytest.raises(ParameterInvalid, match=sentence):
        fetch_weights(name, tmp_path, url=url)


def test_loading_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr(fetch.urllib.request, "urlopen", refuse)
    load(image_size=32)
    for weights in ("torchvision", "embedded"):
        with pytest.raises(WeightsMissing):
            load_embedder(EmbeddingSpec(weights=weights), weights_folder=tmp_path, threads=1, embedded_folder=tmp_path)


def test_weights_read_once_are_not_changed_by_a_file_written_over(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file({"fc.bias": torch.zeros(1000)}, path)
    tensors = read_weights(path)
    before = tensors_sha256(tensors)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\x80?")  # the last number becomes 1
    assert tensors_sha256(tensors) == before
    assert tensors_sha256(read_weights(path)) != before
