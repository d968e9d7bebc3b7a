"""The teacher's answers: right rows, principal components, and no mixing of sets."""

from pathlib import Path

import numpy as np
import pytest

from models.errors import ParameterInvalid
from models.pretraining import ImageFolder, TrainingSet, make_targets, open_targets, pack_images
from models.pretraining.errors import TrainingSetInvalid
from models.pretraining.targets import _leading_components, resized
from tests.models.pretraining.drawing import LinearTeacher, draw_class


def test_each_row_is_the_teachers_answer_to_that_image(packed: TrainingSet, targets_folder: Path) -> None:
    teacher = LinearTeacher()
    _, logits = teacher.ask(resized(np.asarray(packed.images), 8))
    told = open_targets(targets_folder, packed)
    np.testing.assert_allclose(told.logits, logits, rtol=2e-3, atol=2e-3)
    assert not np.allclose(told.logits[::-1], logits, atol=0.1)  # the order matters


def test_features_are_principal_components_with_mean_variance_one(packed: TrainingSet, targets_folder: Path) -> None:
    features, _ = LinearTeacher().ask(resized(np.asarray(packed.images), 8))
    centred = features - features.mean(axis=0)
    variances = np.linalg.svd(centred, compute_uv=False) ** 2 / len(centred)
    told = open_targets(targets_folder, packed).features.astype(np.float64)
    assert told.shape == (32, 5)
    np.testing.assert_allclose(told.var(axis=0), variances[:5] / variances[:5].mean(), rtol=0.02, atol=1e-3)
    np.testing.assert_allclose(np.corrcoef(told[:, :3].T), np.eye(3), atol=0.05)
    kept = open_targets(targets_folder, packed).kept_variance
    assert kept == pytest.approx(variances[:5].sum() / variances.sum(), rel=1e-2)


def test_the_sign_of_a_component_is_fixed() -> None:
    features = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float16)
    _, basis, _ = _leading_components(features, 12)
    assert (basis[np.abs(basis).argmax(axis=0), np.arange(12)] > 0).all()


def test_all_components_keep_every_distance(packed: TrainingSet, tmp_path: Path) -> None:
    features, _ = LinearTeacher().ask(resized(np.asarray(packed.images), 8))
    told = make_targets(packed, LinearTeacher(), tmp_path, width=12).features.astype(np.float32)
    before = np.linalg.norm(features[:, None] - features[None], axis=2)
    after = np.linalg.norm(told[:, None] - told[None], axis=2)
    factor = after.sum() / before.sum()
    np.testing.assert_allclose(after, factor * before, atol=0.03 * after.max())


def test_batches_do_not_change_the_answers(packed: TrainingSet, targets_folder: Path, tmp_path: Path) -> None:
    teacher = LinearTeacher()
    whole = make_targets(packed, teacher, tmp_path, width=5, batch=32)
    assert teacher.asked == [32]
    np.testing.assert_allclose(whole.features, open_targets(targets_folder, packed).features, atol=5e-3)


def test_answers_to_another_set_are_refused(targets_folder: Path, tmp_path: Path) -> None:
    draw_class(tmp_path / "in" / "a", (200, 9, 9), 32, seed=5)
    other = pack_images([ImageFolder(tmp_path / "in", "other", "drawn here")], tmp_path / "out", side=20)
    with pytest.raises(TrainingSetInvalid, match="got answers to"):
        open_targets(targets_folder, other)


def test_widths_beyond_the_teachers_are_refused(packed: TrainingSet, tmp_path: Path) -> None:
    for width in (0, 13):
        with pytest.raises(ParameterInvalid, match="from 1 to the teacher's 12"):
            make_targets(packed, LinearTeacher(), tmp_path, width=width)


def test_a_folder_without_answers_is_refused(packed: TrainingSet, tmp_path: Path) -> None:
    with pytest.raises(TrainingSetInvalid, match="must hold"):
        open_targets(tmp_path, packed)
