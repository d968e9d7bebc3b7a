"""benchmarks/backbones.py on digits and textures, with the service's own network and a classifier as teacher."""

import json
from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13

from app.embedders import Embedders
from benchmarks.backbones import BackbonesPlan, ServedVectors, TeacherVectors, backbones_text, measure_backbones
from benchmarks.errors import BenchmarkRefused
from models.backbones.embedder import EmbeddingSpec
from tests.app.cli.conftest import Oddity, oddity, quick
from tests.benchmarks.conftest import SPEC

__all__ = ["oddity", "quick"]

PLAN = BackbonesPlan(limit=20, episodes=10, queries=5, ways=3, set_size=3, set_strangers=0.4)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that ends in a mean and a convolution: its features are the means of the three channels."""
    path = tmp_path_factory.mktemp("teacher") / "classifier.xml"
    asked = opset13.parameter([1, 32, 32, 3], openvino.Type.f32, "pixels")
    channels = opset13.transpose(asked, [0, 3, 1, 2])
    mean = opset13.reduce_mean(channels, [2, 3], keep_dims=True)
    filters = np.ones((4, 3, 1, 1), np.float32)
    head = opset13.convolution(mean, filters, [1, 1], [0, 0], [0, 0], [1, 1])
    openvino.save_model(openvino.Model([head], [asked], "classifier"), path, compress_to_fp16=False)
    return path


def test_every_network_is_measured_on_every_folder(
    digits: Path, textures: Path, teacher: Path, embedders: Embedders, cache: Path
) -> None:
    networks = [ServedVectors(embedders, SPEC, cache), TeacherVectors(teacher, 32, cache, 1)]
    found = measure_backbones([digits, digits / "test", textures], networks, PLAN)
    rows = {(one["data"], one["network"]): one for one in found["rows"]}
    served, taught = "resnet18, stand-in, 32 px", "classifier, 32 px"
    assert list(rows) == [(data, name) for data in (digits.name, "test", textures.name) for name in (served, taught)]
    assert rows[digits.name, served]["banks"] == [20] * 10
    assert rows["test", served]["banks"] == [10] * 10  # half of each class
    # Shapes tell digits apart, their mean grey hardly does.
    for figure in ("roc_auc", "sets_roc_auc", "sets_by_images_roc_auc"):
        assert rows[digits.name, served][figure] > rows[digits.name, taught][figure] + 0.1
    assert rows[digits.name, served]["five_shot"]["mean"] > rows[digits.name, taught]["five_shot"]["mean"] + 0.1
    assert rows[digits.name, served]["retrieval"]["map_at_r"] > rows[digits.name, taught]["retrieval"]["map_at_r"] + 0.1
    assert rows[textures.name, served]["one_shot"] is None and rows[textures.name, served]["retrieval"] is None
    text = "\n".join(backbones_text(found))
    assert text.count(taught) == 3 and "one class normal" in text
    again = measure_backbones([digits], networks, PLAN)  # from the kept vectors
    assert again["rows"] == found["rows"][:2]


def test_a_network_with_a_teacher_says_so_below_its_rows(embedders: Embedders, cache: Path, digits: Path) -> None:
    shipped = ServedVectors(embedders, EmbeddingSpec(weights="embedded"), cache)
    found = measure_backbones([digits], [shipped, ServedVectors(embedders, SPEC, cache)], PLAN)
    told = [line for line in backbones_text(found) if "its teacher saw these classes" in line]
    assert len(told) == 1 and shipped.name in told[0] and "trained on ImageNet" in told[0]


def test_what_is_no_picture_is_refused_by_both(
    teacher: Path, embedders: Embedders, digits: Path, tmp_path: Path
) -> None:
    for kind in ("0", "1"):
        (tmp_path / "few" / kind).mkdir(parents=True)
        for file in sorted((digits / "test" / kind).iterdir())[:8]:
            (tmp_path / "few" / kind / file.name).write_bytes(file.read_bytes())
    (tmp_path / "few" / "0" / "broken.png").write_bytes(b"no picture")
    networks = [ServedVectors(embedders, SPEC, tmp_path / "c"), TeacherVectors(teacher, 32, tmp_path / "c", 1)]
    found = measure_backbones([tmp_path / "few"], networks, PLAN)
    assert [(one["images"], one["refused"]) for one in found["rows"]] == [(16, 1), (16, 1)]
    assert found["rows"][0]["five_shot"] is None  # two classes are too few for three ways
    with pytest.raises(BenchmarkRefused, match="two classes"):
        measure_backbones([tmp_path / "few" / "0"], networks, PLAN)


def test_the_command(oddity: Oddity, digits: Path, teacher: Path, tmp_path: Path) -> None:
    ran = oddity(
        "bench", "backbones", digits, "--weights", "stand-in", "--image-size", 32, "--teacher", teacher,
        "--teacher-size", 32, "--limit", 12, "--episodes", 3,
        "--out", tmp_path / "o", "--data", tmp_path / "d", "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert [one["network"] for one in json.loads(ran.out)["rows"]] == ["resnet18, stand-in, 32 px", "classifier, 32 px"]
    assert (tmp_path / "o" / "backbones.md").read_text().count(f"| {digits.name} |") == 2
