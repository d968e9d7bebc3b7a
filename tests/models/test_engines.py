"""Every engine against torch in float32: the same numbers, no influence between rows, and what passes the gate."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from models.backbones import openvino_engine, ranges, torch_engine
from models.backbones.choice import EngineChoice, Network, choose_engine, int8_name
from models.backbones.engine import BATCH_SIZES, POOLED, Engine, FeaturePooling
from models.backbones.loader import EmbeddingSpec, load_embedder
from models.backbones.made_images import made_images
from models.backbones.network import tensor_shapes
from models.backbones.openvino_engine import OpenVinoEngine, build_graph
from models.backbones.parity import Parity, compare, kept_parity, measure_parity
from models.backbones.quantisation import has_ranges, range_names
from models.backbones.resnet import BACKBONES
from models.backbones.stand_in import stand_in_weights
from models.backbones.torch_engine import TorchEngine
from models.errors import EngineUnusable, ParameterInvalid
from models.preprocessing import Preprocessing
from models.runtime import COMPARABLE

STAGES = (2, 4)
SIDE = 32
ROOT = Path(__file__).resolve().parents[2]
EVERY_OUTPUT = (POOLED, "stage1", "stage2", "stage3", "stage4")


def weights(name: str) -> dict[str, np.ndarray]:
    return stand_in_weights(name, tensor_shapes(name), sum(BACKBONES[name].blocks))


def network(name: str = "resnet18") -> Network:
    return Network(name, "ab" * 32, weights(name), STAGES, Preprocessing(SIDE))


# About as far as activations of the stand-in reach on these images.
RANGES = dict.fromkeys(range_names(weights("resnet18")), 6.0)


def with_ranges() -> Network:
    return replace(network(), ranges=RANGES, ranges_side=SIDE)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="module")
def judge() -> TorchEngine:
    return TorchEngine("resnet18", weights("resnet18"), STAGES, 1)


@pytest.fixture(scope="module")
def openvino() -> OpenVinoEngine:
    return OpenVinoEngine(build_graph("resnet18", weights("resnet18"), STAGES, SIDE), "float32", 1)


# torch


def test_roots_of_averages_have_slopes_and_silent_channels_have_none() -> None:
    tensors, batch = weights("resnet18"), images(2)
    last = "layer4.1.bn2"
    tensors[f"{last}.bias"][:5] = -1e6  # channels that nothing lights
    found = {}
    for pooling in get_args(FeaturePooling):
        engine = TorchEngine("resnet18", tensors, (4,), 1, pooling=pooling)
        pixels, vectors, _ = engine.differentiable(batch)
        np.testing.assert_array_equal(vectors.detach().numpy(), engine.run(batch, (POOLED,))[POOLED])
        assert not vectors[:, :5].any() and vectors[:, 5:].any()
        (silent,) = torch.autograd.grad(vectors[:, :5].sum(), pixels, retain_graph=True)
        assert not silent.any()  # neither a number nor NaN
        strongest = int(vectors[0].argmax())
        (slope,) = torch.autograd.grad(vectors[0, strongest], pixels)
        found[pooling] = slope.numpy(), float(vectors[0, strongest].detach())
    (slope, mean), (of_root, root) = found["mean"], found["sqrt_mean"]
    assert root == pytest.approx(mean**0.5)
    np.testing.assert_allclose(of_root, slope / (2 * root), rtol=1e-4, atol=1e-6 * np.abs(slope).max())


# OpenVINO


@pytest.mark.parametrize("precision", [*openvino_engine.native_precisions(), "int8"])
def test_an_output_is_the_same_whatever_else_is_asked_for(precision: str) -> None:
    tensors, batch = weights("resnet18"), images(2)
    ranges = dict.fromkeys(range_names(tensors), 4.0) if precision == "int8" else None
    engine = OpenVinoEngine(build_graph("resnet18", tensors, STAGES, SIDE, ranges), precision, 1)
    together = engine.run(batch, EVERY_OUTPUT)
    assert together.keys() == set(EVERY_OUTPUT)
    for output in EVERY_OUTPUT:
        assert np.array_equal(engine.run(batch, (output,))[output], together[output]), output


@pytest.mark.parametrize("pooling", get_args(FeaturePooling))
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_every_output_of_openvino_is_that_of_torch(name: str, pooling: FeaturePooling) -> None:
    tensors, batch = weights(name), images(2)
    expected = TorchEngine(name, tensors, STAGES, 1, pooling=pooling).run(batch, EVERY_OUTPUT)
    graph = build_graph(name, tensors, STAGES, SIDE, pooling=pooling)
    found = OpenVinoEngine(graph, "float32", 1).run(batch, EVERY_OUTPUT)
    assert found.keys() == expected.keys() == set(EVERY_OUTPUT)
    for output, values in expected.items():
        assert found[output].shape == values.shape and found[output].dtype == np.float32
        ours, theirs = found[output], values
        if output == POOLED and pooling == "sqrt_mean":  # rounding of an average near 0 shows more in its root
            ours, theirs = ours**2, theirs**2
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max(), rtol=1e-5)


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("threads", [1, 2])
def test_in_openvino_mates_and_place_change_no_bit(openvino: OpenVinoEngine, size: int, threads: int) -> None:
    engine = openvino
    if threads == 2:
        engine = OpenVinoEngine(build_graph("resnet18", weights("resnet18"), STAGES, SIDE), "float32", 2)
    probe, *mates = images(size + 1, seed=size)
    padded = np.zeros((size, 3, SIDE, SIDE), dtype=np.float32)
    padded[0] = probe
    alone = engine.run(padded, (POOLED,))[POOLED][0]
    for place in {0, 1, size // 2, size - 1} & set(range(size)):
        batch = np.stack(mates)
        batch[place] = probe
        np.testing.assert_array_equal(engine.run(batch, (POOLED,))[POOLED][place], alone)


def test_sizes_may_come_in_any_order(openvino: OpenVinoEngine) -> None:
    batch = images(16)
    first = {size: openvino.run(batch[:size], (POOLED,))[POOLED] for size in BATCH_SIZES}
    for size in (*reversed(BATCH_SIZES), 1, 16, 2):
        np.testing.assert_array_equal(openvino.run(batch[:size], (POOLED,))[POOLED], first[size])
        gap = np.linalg.norm(first[size] - first[16][:size], axis=1) / np.linalg.norm(first[size], axis=1)
        assert gap.max() < 1e-5


def test_outputs_asked_for_apart_are_those_asked_for_together(openvino: OpenVinoEngine) -> None:
    batch = images(2)
    together = openvino.run(batch, EVERY_OUTPUT)
    for name in EVERY_OUTPUT:
        found = openvino.run(batch, (name,))
        assert list(found) == [name]
        np.testing.assert_allclose(found[name], together[name], rtol=1e-5, atol=1e-6)
    assert openvino.run(batch, ()) == {}


def test_answers_are_the_callers_own(openvino: OpenVinoEngine) -> None:
    batch = images(1)
    first = openvino.run(batch, (POOLED,))[POOLED]
    kept = first.copy()
    openvino.run(images(1, seed=9), (POOLED,))
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("is_exact", [False, True])
def test_every_hint_is_set_and_read_back(is_exact: bool) -> None:
    graph = build_graph("resnet18", weights("resnet18"), (4,), SIDE)
    engine = OpenVinoEngine(graph, "float32", 2, is_exact=is_exact)
    assert engine.precision == "float32"
    assert engine.hints == {
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY" if is_exact else "PERFORMANCE",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": "2",
        "NUM_STREAMS": "1",
        "ENABLE_CPU_PINNING": "False",
    }


STANDING_BACK = """
import os, threading
from pathlib import Path
from tests.models.test_engines import POOLED, SIDE, OpenVinoEngine, build_graph, images, weights
def threads():  # niceness and processor time of each, in hundredths of a second
    tasks = Path("/proc/self/task").iterdir()
    facts = {task.name: (task / "stat").read_text().rpartition(") ")[2].split() for task in tasks}
    return {name: (int(fact[16]), int(fact[11]) + int(fact[12])) for name, fact in facts.items()}
own = str(threading.get_native_id())
engine = OpenVinoEngine(build_graph("resnet18", weights("resnet18"), (4,), SIDE), "float32", 2, niceness=3)
for outputs in ((POOLED,), ("stage2",)):
    before = threads()
    for _ in range(100):
        engine.run(images(16), outputs)
    after = threads()
    at_work = {name for name, (_, took) in after.items() if took > before.get(name, (0, 0))[1] + 10} - {own}
    print({after[name][0] - before[own][0] for name in at_work}, after[own][0] - before[own][0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness belongs to processes")
def test_threads_of_the_network_stand_back_and_others_do_not() -> None:
    # In a process of its own, as OpenVINO hands threads of an earlier network on to the next.
    done = subprocess.run([sys.executable, "-c", STANDING_BACK], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["{3} 0", "{3} 0"]


# The gate


def test_rounding_alone_passes_as_float32(openvino: OpenVinoEngine, judge: TorchEngine) -> None:
    parity = measure_parity(openvino, judge, Preprocessing(SIDE))
    assert parity.is_float32 and parity.is_comparable and parity.images == 8


def test_the_gate_sees_bf16_and_wrong_weights_for_what_they_are(judge: TorchEngine) -> None:
    tensors = weights("resnet18")
    rounded = measure_parity(TorchEngine("resnet18", tensors, STAGES, 1, precision="bf16"), judge, Preprocessing(SIDE))
    assert not rounded.is_float32 and rounded.is_usable_apart
    assert 0.999 < rounded.cosine_min < 1 and 0 < rounded.shift_rms < 0.05
    tensors["layer4.1.conv2.weight"] = tensors["layer4.1.conv2.weight"] * np.float32(1.5)
    other = measure_parity(TorchEngine("resnet18", tensors, STAGES, 1, precision="bf16"), judge, Preprocessing(SIDE))
    assert not other.is_comparable


def test_the_bars_stand_where_they_are_said_to() -> None:
    passing = Parity(48, cosine_min=0.9991, gap_max=0.02, shift_rms=0.0099, shift_max=0.049)
    assert passing.is_comparable and not passing.is_float32
    bars = {"cosine_min": 0.9989, "shift_rms": 0.0101, "shift_max": 0.051}
    for name, value in bars.items():
        assert not Parity(**{**passing.describe(), name: value}).is_comparable
    assert Parity(48, 0.98, 0.2, 0.2, 0.4).is_usable_apart and not Parity(48, 0.96, 0.2, 0.2, 0.4).is_usable_apart


def test_a_shift_of_scores_is_told_in_shares_of_their_spread() -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=(40, 16)).astype(np.float32)
    assert compare(truth, truth).shift_max == 0
    small, large = (
        compare(truth + size * random.normal(size=truth.shape).astype(np.float32), truth) for size in (0.01, 0.1)
    )
    assert 0 < small.shift_rms < large.shift_rms and small.shift_rms <= small.shift_max
    assert small.gap_max == pytest.approx(0.01, rel=1)
    doubled = compare(2 * truth, truth)  # cosine does not see the length
    assert doubled.shift_max < 1e-6 and doubled.gap_max == pytest.approx(1)
    broken = truth.copy()
    broken[3, 3] = np.nan
    assert not compare(broken, truth).is_usable_apart


def test_what_was_measured_is_kept_and_damage_is_measured_again(tmp_path: Path) -> None:
    calls = []

    def measure() -> Parity:
        calls.append(1)
        return Parity(8, 1.0, 1e-7, 0.0, 0.0)

    path = tmp_path / "parity" / "a.json"
    assert kept_parity(path, measure) == kept_parity(path, measure) == measure()
    assert len(calls) == 2  # one of them this test's own
    path.write_text("{}")
    kept_parity(path, measure)
    assert len(calls) == 3 and json.loads(path.read_text())["images"] == 8
    assert [one.name for one in path.parent.iterdir()] == ["a.json"]


def test_made_images_are_seeded_and_of_three_kinds() -> None:
    some = made_images(6, 32, seed=1)
    np.testing.assert_array_equal(some[:3], made_images(3, 32, seed=1))
    assert not np.array_equal(some, made_images(6, 32, seed=2))
    assert some.shape == (6, 32, 32, 3) and all(one.std() > 10 for one in some)


# Choosing


def test_the_usual_choice_is_openvino(tmp_path: Path) -> None:
    chosen = choose_engine(network(), EngineChoice(cache_folder=tmp_path), 1)
    assert (chosen.engine.name, chosen.comparable_with) == ("openvino", "float32")
    assert len(list((tmp_path / "parity").iterdir())) >= 1


@pytest.mark.parametrize(("engine", "name"), [("torch", "torch"), ("openvino", "openvino")])
def test_an_engine_may_be_named(engine: str, name: str) -> None:
    chosen = choose_engine(network(), EngineChoice(engine, "exact"), 1)
    assert (chosen.engine.name, chosen.engine.precision) == (name, "float32")


def test_without_openvino_torch_serves(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(openvino_engine, "openvino", None)
    monkeypatch.setattr(openvino_engine, "absent", "no module")
    chosen = choose_engine(network(), EngineChoice(), 1)
    assert (chosen.engine.name, chosen.comparable_with, chosen.parity) == ("torch", "float32", None)
    assert "importing it failed: no module" in caplog.text


@dataclass
class Skewed:
    """A real engine whose vectors are not quite right, as a faulty kernel's would be."""

    inner: Engine
    name = "openvino"
    precision = "float32"
    threads = 1
    runs_at_once = 1
    hints: dict[str, str]

    def run(self, batch: np.ndarray, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {name: values + 0.05 * values.max() for name, values in self.inner.run(batch, outputs).items()}


def test_an_engine_that_computes_something_else_never_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, judge: TorchEngine
) -> None:
    monkeypatch.setattr("models.backbones.choice.OpenVinoEngine", lambda *_, **__: Skewed(judge, {}))
    chosen = choose_engine(network(), EngineChoice(), 1)
    assert chosen.engine.name == "torch"
    assert "differs too much from float32" in caplog.text


class Broken(Skewed):
    """An engine that takes the network and then cannot run it."""

    def run(self, batch: np.ndarray, outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        raise RuntimeError("could not execute a primitive")


def test_an_engine_that_fails_when_it_runs_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, judge: TorchEngine
) -> None:
    monkeypatch.setattr("models.backbones.choice.OpenVinoEngine", lambda *_, **__: Broken(judge, {}))
    assert choose_engine(network(), EngineChoice(), 1).engine.name == "torch"
    assert "could not execute a primitive" in caplog.text


def test_bf16_that_the_processor_lacks_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openvino_engine, "native_precisions", lambda: ("float32",))
    chosen = choose_engine(network(), EngineChoice(precision="bf16"), 1)
    assert chosen.engine.precision == "float32"
    assert "does not compute in it natively" in caplog.text


def test_a_gpu_that_is_not_there_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine.torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineUnusable, match=r"there is none\. Choose auto or openvino"):
        choose_engine(network(), EngineChoice("cuda"), 1)
    with pytest.raises(EngineUnusable, match="there is no GPU"):
        TorchEngine("resnet18", weights("resnet18"), (4,), 1, device="cuda")


@pytest.mark.parametrize("wrong", [{"engine": "tpu"}, {"precision": "fp8"}])
def test_choices_that_do_not_exist_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ParameterInvalid, match="must be one of auto"):
        EngineChoice(**wrong)


def test_ranges_are_measured_once_and_int8_is_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def measure(*given: Any) -> dict[str, float]:
        measured.append(really_measure(*given))
        return measured[-1]

    really_measure = ranges._measured
    monkeypatch.setattr(ranges, "_measured", measure)
    monkeypatch.setattr(ranges, "IMAGES", 12)
    choice = EngineChoice("openvino", "int8", tmp_path)
    first = choose_engine(network(), choice, 1)
    assert first.engine.precision == "int8" and first.parity is not None and first.parity.is_usable_apart
    assert first.comparable_with.startswith(int8_name(measured[0]))
    assert capsys.readouterr().out == ""  # no progress bar among what a command prints
    (kept,) = (tmp_path / "int8").iterdir()
    assert json.loads(kept.read_text()) == measured[0] and has_ranges(range_names(weights("resnet18")), measured[0])
    probe = images(1)
    found = first.engine.run(probe, (POOLED,))[POOLED]
    again = choose_engine(network(), choice, 1)
    assert len(measured) == 1 and again.comparable_with == first.comparable_with
    np.testing.assert_array_equal(again.engine.run(probe, (POOLED,))[POOLED], found)
    kept.write_text('{"layer1.0": "wide"}')
    assert choose_engine(network(), choice, 1).comparable_with == first.comparable_with
    assert measured[1:] == measured[:1]


def test_weights_that_bring_ranges_are_served_in_int8_and_every_engine_agrees_on_its_name() -> None:
    usual, torch, floating = (
        choose_engine(with_ranges(), choice, 1)
        for choice in (EngineChoice(), EngineChoice("torch", "int8"), EngineChoice("torch"))
    )
    assert (usual.engine.name, usual.engine.precision) == ("openvino", "int8")
    assert (torch.engine.name, torch.engine.precision) == ("torch", "int8")
    assert usual.comparable_with == torch.comparable_with != floating.comparable_with == COMPARABLE


def test_int8_without_openvino_is_computed_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "openvino", None)
    chosen = choose_engine(with_ranges(), EngineChoice(precision="int8"), 1)
    assert (chosen.engine.name, chosen.comparable_with) == ("torch", int8_name(RANGES))
    # Unasked, where there is no way to compute it quickly, floating point is.
    assert choose_engine(with_ranges(), EngineChoice(), 1).comparable_with == COMPARABLE


def test_ranges_that_spoil_the_vectors_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    narrow = replace(with_ranges(), ranges=dict.fromkeys(RANGES, 0.01))
    assert choose_engine(narrow, EngineChoice(), 1).comparable_with == COMPARABLE
    assert "int8 for resnet18 is passed over: it differs too much from float32" in caplog.text


def test_an_int8_that_no_other_engine_agrees_with_is_told_apart_and_no_default(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, judge: TorchEngine
) -> None:
    monkeypatch.setattr("models.backbones.choice.OpenVinoEngine", lambda *_, **__: judge)  # float32 is not it
    asked = choose_engine(with_ranges(), EngineChoice("openvino", "int8"), 1)
    assert asked.comparable_with.startswith(f"{int8_name(RANGES)} by torch on ")
    assert "to be mixed with it" in caplog.text
    assert choose_engine(with_ranges(), EngineChoice("openvino"), 1).comparable_with == COMPARABLE


def test_the_runtime_changes_no_fingerprint(tmp_path: Path) -> None:
    spec = EmbeddingSpec(weights="stand-in", image_size=SIDE)
    served, exact, torch = (
        load_embedder(spec, weights_folder=tmp_path, threads=1, choice=choice)
        for choice in (EngineChoice(), EngineChoice(precision="exact"), EngineChoice("torch"))
    )
    assert served.identity.fingerprint == exact.identity.fingerprint == torch.identity.fingerprint
    assert exact.runtime.describe()["hints"]["EXECUTION_MODE_HINT"] == "ACCURACY"
    assert torch.runtime.describe()["engine"] == "torch"
