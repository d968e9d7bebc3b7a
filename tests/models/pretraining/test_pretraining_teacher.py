"""The OpenVINO teacher, on a classifier small enough to compute by hand."""

from pathlib import Path

import numpy as np
import openvino
import pytest
from openvino import opset13 as operations

from models.backbones.weights import file_sha256
from models.pretraining.errors import TrainingSetInvalid
from models.pretraining.teacher import OpenVinoTeacher

STEM = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], np.float32).reshape(4, 3, 1, 1) / 255
HEAD = np.array([[1, -1, 0, 0], [0, 0, 2, 1]], np.float32).reshape(2, 4, 1, 1)
BIAS = np.array([0.5, -0.25], np.float32).reshape(1, 2, 1, 1)


def write_classifier(path: Path, *, has_head: bool = True) -> Path:
    """A stem of one convolution, a mean, and a head of one convolution and a bias; 8-bit input, 32 px."""
    levels = operations.parameter([1, 32, 32, 3], np.uint8, name="levels")
    planes = operations.transpose(operations.convert(levels, "f32"), np.array([0, 3, 1, 2]))
    args = ([1, 1], [0, 0], [0, 0], [1, 1])
    maps = operations.convolution(planes, operations.constant(STEM), *args)
    result = maps
    if has_head:
        pooled = operations.reduce_mean(maps, np.array([2, 3]), keep_dims=True)
        scores = operations.convolution(pooled, operations.constant(HEAD), *args)
        result = operations.softmax(operations.add(scores, operations.constant(BIAS)), 1)
    openvino.save_model(openvino.Model([result], [levels], "small"), path, compress_to_fp16=False)
    return path


@pytest.mark.parametrize("side", [32, 20])
def test_features_and_logits_by_hand_at_any_size(tmp_path: Path, side: int) -> None:
    teacher = OpenVinoTeacher(write_classifier(tmp_path / "t.xml"), image_size=side, batch=4, threads=1)
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
    features, logits = teacher.ask(pixels)
    pooled = pixels.reshape(3, -1, 3).mean(axis=1) @ STEM.reshape(4, 3).T
    np.testing.assert_allclose(features, pooled, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(logits, pooled @ HEAD.reshape(2, 4).T + BIAS.ravel(), rtol=1e-3, atol=1e-3)
    assert features.dtype == logits.dtype == np.float32


def test_a_teacher_is_named_by_its_file(tmp_path: Path) -> None:
    path = write_classifier(tmp_path / "t.xml")
    teacher = OpenVinoTeacher(path, image_size=32, batch=1, threads=1)
    assert teacher.name == "t.xml" and teacher.sha256 == file_sha256(path) and teacher.image_size == 32


def test_files_that_are_no_such_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingSetInvalid, match="another kind of head"):
        OpenVinoTeacher(write_classifier(tmp_path / "h.xml", has_head=False), image_size=32, batch=1, threads=1)
    (tmp_path / "x.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(TrainingSetInvalid, match="OpenVINO reads"):
        OpenVinoTeacher(tmp_path / "x.tflite", image_size=32, batch=1, threads=1)
    with pytest.raises(TrainingSetInvalid, match="OpenVINO reads"):
        OpenVinoTeacher(tmp_path / "absent.xml", image_size=32, batch=1, threads=1)
