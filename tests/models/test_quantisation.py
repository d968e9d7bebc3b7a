"""The network in 8-bit integers: what is rounded, and that every engine computes the same."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbones.choice import EngineChoice
from models.backbones.embedder import EmbeddingSpec
from models.backbones.engine import BATCH_SIZES, POOLED
from models.backbones.loader import EMBEDDED_FOLDER, load_embedder
from models.backbones.made_images import made_images
from models.backbones.network import folded_network, tensor_shapes
from models.backbones.openvino_engine import OpenVinoEngine, build_graph
from models.backbones.parity import compare
from models.backbones.quantisation import (
    LEVELS,
    WEIGHT_MAX,
    has_ranges,
    quantise,
    range_names,
    ranges_sha256,
    rounded_weights,
)
from models.backbones.resnet import BACKBONES
from models.backbones.stand_in import stand_in_weights
from models.backbones.torch_engine import TorchEngine
from models.errors import WeightsDamaged
from models.preprocessing import Preprocessing

SIDE = 32
EVERY_OUTPUT = (POOLED, "stage1", "stage2", "stage3", "stage4")


def weights(name: str) -> dict[str, np.ndarray]:
    return stand_in_weights(name, tensor_shapes(name), sum(BACKBONES[name].blocks))


def pixels(count: int) -> np.ndarray:
    return np.stack([Preprocessing(SIDE).apply(one) for one in made_images(count, SIDE, 5)])


def ranges(name: str) -> dict[str, float]:
    """As far as activations reach on the images that are asked about, with a little to spare."""
    network = folded_network(name, weights(name))
    tops: dict[str, float] = {}

    def watch(module: torch.nn.Module, place: str) -> None:
        module.register_forward_pre_hook(lambda _, given: tops.update({place: 1.1 * float(given[0].max())}))

    for block_name, block in network.blocks():
        watch(block, block_name)
        for place in range_names(weights(name)):
            part = place.removeprefix(f"{block_name}.")
            if part in ("conv2", "conv3"):
                watch(getattr(block, part), place)
    with torch.inference_mode():
        features = network.stem(torch.from_numpy(pixels(16)))
        for layer in network.layers:
            features = layer(features)
    return tops


# What is rounded


def test_weights_are_whole_numbers_of_seven_bits_and_a_scale_for_each_filter() -> None:
    random = np.random.default_rng(0)
    weight = (
        random.normal(size=(5, 3, 3, 3)).astype(np.float32)
        * np.array([1, 10, 0.1, 0, 5], np.float32)[:, None, None, None]
    )
    levels, scales = rounded_weights(weight)
    assert levels.dtype == np.int8 and levels.shape == weight.shape and scales.shape == (5, 1, 1, 1)
    assert np.abs(levels).max(axis=(1, 2, 3)).tolist() == [63, 63, 63, 0, 63]
    assert (np.abs(levels * scales - weight) < 0.501 * scales).all()
    # Two products of any activation and weight, added in 16 bits as old processors do.
    assert np.iinfo(np.int16).max >= 2 * (LEVELS - 1) * WEIGHT_MAX


@pytest.mark.parametrize(("name", "places"), [("resnet18", 16), ("resnet34", 32), ("resnet50", 48)])
def test_there_is_one_range_for_every_block_and_later_convolution(name: str, places: int) -> None:
    names = range_names(tensor_shapes(name))
    assert len(names) == len(set(names)) == places
    assert {"layer1.0", "layer1.0.conv2", "layer4.1"} <= set(names)
    assert not {"layer1.0.conv1", "layer2.0.downsample.0", "conv1", "bn1"} & set(names)
    good = dict.fromkeys(names, 2.0)
    assert has_ranges(names, good)
    for wrong in ({**good, "layer1.0": 0.0}, {**good, "layer1.0": float("nan")}, {**good, "fc": 1.0}, {}):
        assert not has_ranges(names, wrong)


def test_torch_rounds_what_convolutions_meet_and_nothing_else() -> None:
    network = folded_network("resnet18", weights("resnet18"))
    stem = network.stem[0].weight.clone()
    beside = network.layers[1][0].downsample[0].weight.clone()
    quantise(network, dict.fromkeys(range_names(weights("resnet18")), 2.0))
    torch.testing.assert_close(network.stem[0].weight, stem, rtol=0, atol=0)
    rounded = network.layers[1][0].downsample[0].weight
    levels, scales = rounded_weights(beside.contiguous().numpy())
    np.testing.assert_array_equal(rounded.detach().contiguous().numpy(), levels * scales)
    seen = []
    convolution = network.layers[0][0].conv2
    convolution.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    with torch.inference_mode():
        network.layers[0](network.stem(torch.from_numpy(pixels(4))))
    steps = seen[0].double().numpy() / (2.0 / 255)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert steps.max() <= 255.001 and len(np.unique(np.rint(steps))) > 20


def test_a_network_of_few_levels_is_computed_without_loss() -> None:
    """Weights and activations that lie on the levels stay what they are: the function is then the network's own."""
    network = folded_network("resnet18", weights("resnet18"))
    block = network.layers[0][0]
    for convolution in (block.conv1, block.conv2):
        filters = torch.zeros_like(convolution.weight)
        filters[torch.arange(64), torch.arange(64), 1, 1] = 63.0
        convolution.weight.data = filters
        convolution.bias.data.zero_()
    features = torch.randint(0, 256, (1, 64, 4, 4)).float()
    expected = torch.relu(torch.clamp(features * 63, 0, 255 * 63) * 63 + features)
    names = range_names(weights("resnet18"))
    quantise(network, {**dict.fromkeys(names, 1.0), "layer1.0": 255.0, "layer1.0.conv2": 255.0 * 63})
    with torch.inference_mode():
        torch.testing.assert_close(block(features), expected, rtol=1e-6, atol=0)


def test_another_range_is_another_function_and_its_name_does_not_hang_on_the_order() -> None:
    one = {"layer1.0": 2.5, "layer1.1": 3.25}
    assert ranges_sha256(one) == ranges_sha256(dict(reversed(one.items())))
    assert ranges_sha256(one) != ranges_sha256({**one, "layer1.1": 3.26})


# Engines


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_openvino_computes_what_torch_does(name: str) -> None:
    tensors, batch, tops = weights(name), pixels(16), ranges(name)
    by_torch = TorchEngine(name, tensors, (2, 4), 1, precision="int8", ranges=tops)
    engine = OpenVinoEngine(build_graph(name, tensors, (2, 4), SIDE, tops), "int8", 1)
    expected, found = by_torch.run(batch, EVERY_OUTPUT), engine.run(batch, EVERY_OUTPUT)
    floating = TorchEngine(name, tensors, (2, 4), 1).run(batch, EVERY_OUTPUT)
    assert (engine.precision, by_torch.precision) == ("int8", "int8")
    for output, values in expected.items():
        assert found[output].shape == values.shape
        # What lies at the edge of two levels may fall to either, and untrained blocks carry it on, the deeper the more.
        assert gap(found[output], values) < gap(found[output], floating[output])
    assert gap(found["stage1"], expected["stage1"]) < 0.1 * gap(found["stage1"], floating["stage1"])
    assert compare(found[POOLED], floating[POOLED]).is_usable_apart


def test_trained_weights_are_the_same_function_in_every_engine(tmp_path: Path) -> None:
    spec, batch = (
        EmbeddingSpec(image_size=64),
        np.stack([Preprocessing(64).apply(one) for one in made_images(16, 64, 5)]),
    )
    by_openvino, by_torch, floating = (
        load_embedder(spec, weights_folder=tmp_path, threads=1, choice=choice)
        for choice in (EngineChoice("openvino", "int8"), EngineChoice("torch", "int8"), EngineChoice("torch"))
    )
    assert by_openvino.runtime.comparable_with == by_torch.runtime.comparable_with != floating.runtime.comparable_with
    found, expected, apart = (one.engine.run(batch, (POOLED,))[POOLED] for one in (by_openvino, by_torch, floating))
    assert compare(found, expected).is_comparable
    assert not compare(found, apart).is_comparable


AS_ON_ANOTHER_PROCESSOR = """
import sys
from pathlib import Path
import numpy as np
from models.backbones.choice import EngineChoice
from models.backbones.embedder import EmbeddingSpec
from models.backbones.loader import load_embedder
for precision, out in (("int8", sys.argv[2]), ("float32", sys.argv[3])):
    choice = EngineChoice("openvino", precision)
    made = load_embedder(EmbeddingSpec(), weights_folder=Path(), threads=1, choice=choice)
    assert made.runtime.engine == "openvino"
    np.save(out, made.engine.run(np.load(sys.argv[1]), ("pooled",))["pooled"])
    print(made.runtime.comparable_with)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the kernels are those of x86")
def test_the_kernels_of_an_older_processor_compute_the_same_function(tmp_path: Path) -> None:
    batch = np.stack([Preprocessing(64).apply(one) for one in made_images(16, 64, 99)])
    files = [tmp_path / f"{name}.npy" for name in ("batch", "int8", "float32")]
    np.save(files[0], batch)
    told = subprocess.run(
        [sys.executable, "-c", AS_ON_ANOTHER_PROCESSOR, *files],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": "SSE41"},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = {
        precision: load_embedder(
            EmbeddingSpec(), weights_folder=tmp_path, threads=1, choice=EngineChoice("openvino", precision)
        )
        for precision in ("int8", "float32")
    }
    assert told.stdout.split("\n")[:2] == [one.runtime.comparable_with for one in ours.values()]
    theirs = {precision: np.load(file) for precision, file in zip(ours, files[1:], strict=True)}
    mine = {precision: one.engine.run(batch, (POOLED,))[POOLED] for precision, one in ours.items()}
    assert compare(theirs["int8"], mine["int8"]).is_comparable
    assert (theirs["float32"] != mine["float32"]).any()  # other kernels did run


def test_in_int8_mates_place_and_size_change_next_to_nothing() -> None:
    engine = OpenVinoEngine(build_graph("resnet18", weights("resnet18"), (4,), SIDE, ranges("resnet18")), "int8", 1)
    batch = pixels(16)
    alone = engine.run(batch[:1], (POOLED,))[POOLED][0]
    for size in BATCH_SIZES:
        padded = np.zeros((size, 3, SIDE, SIDE), np.float32)
        padded[size // 2] = batch[0]
        mates = batch[-size:].copy()
        mates[size // 2] = batch[0]
        by_itself, among = (engine.run(one, (POOLED,))[POOLED][size // 2] for one in (padded, mates))
        np.testing.assert_array_equal(by_itself, among)
        assert np.linalg.norm(among - alone) < 1e-3 * np.linalg.norm(alone)


# Ranges that weights bring


def test_the_weights_that_ship_bring_their_ranges(tmp_path: Path) -> None:
    (entry,) = json.loads((EMBEDDED_FOLDER / "card.json").read_text())["weights"]
    assert has_ranges(range_names(tensor_shapes("resnet18")), entry["int8"]["ranges"])
    embedder = load_embedder(EmbeddingSpec(), weights_folder=tmp_path, threads=1)
    assert embedder.runtime.precision == "int8"
    # At another size they were not measured: int8 is there for the asking.
    for choice, is_int8 in ((EngineChoice(), False), (EngineChoice(precision="int8"), True)):
        larger = load_embedder(EmbeddingSpec(image_size=96), weights_folder=tmp_path, threads=1, choice=choice)
        assert (larger.runtime.precision == "int8") == is_int8


def test_a_card_beside_a_file_gives_its_ranges_to_that_file_alone(tmp_path: Path) -> None:
    card = json.loads((EMBEDDED_FOLDER / "card.json").read_text())
    file = tmp_path / card["weights"][0]["file"]
    file.write_bytes((EMBEDDED_FOLDER / file.name).read_bytes())
    other = tmp_path / "other.safetensors"
    other.write_bytes(file.read_bytes())

    def is_int8(path: Path) -> bool:  # else it is the quickest floating point of this processor
        spec = EmbeddingSpec(weights=f"file:{path.name}", image_size=64)
        return load_embedder(spec, weights_folder=tmp_path, threads=1).runtime.precision == "int8"

    assert not is_int8(file)
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert is_int8(file) and not is_int8(other)
    del card["weights"][0]["int8"]["ranges"]["layer1.0"]
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(WeightsDamaged, match=r"int8\.ranges.*oddity pretrain ranges"):
        is_int8(file)
