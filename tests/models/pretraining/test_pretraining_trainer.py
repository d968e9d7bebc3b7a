"""Runs on 32 tiny images: resumed exactly, seeded, logged, and every option felt."""

import json
from collections.abc import Callable
from functools import partial
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from models.pretraining import (
    NO_AUGMENTATION,
    ImageFolder,
    PretrainingConfig,
    PretrainingResult,
    StepBudget,
    TimeBudget,
    backbone_weights,
    pack_images,
    pretrain,
    read_checkpoint,
)
from models.pretraining.errors import CheckpointMismatch, TrainingDiverged, TrainingSetInvalid
from models.pretraining.trainer import _Run
from tests.models.pretraining.drawing import draw_class

Configure = Callable[..., PretrainingConfig]


@pytest.fixture(scope="module")
def configured(packed_folder: Path, targets_folder: Path) -> Configure:
    def config(**changes: Any) -> PretrainingConfig:
        facts: dict[str, Any] = {
            "training_set": packed_folder,
            "targets": targets_folder,
            "budget": StepBudget(steps=1),
            "seed": 3,
            "batch": 8,
            "sides": ((1.0, 16),),
            "average_every_steps": 1,
            "checkpoint_every_s": 1e9,
            "log_every_steps": 1,
            "threads": 1,
        }
        return PretrainingConfig.model_validate(facts | changes)

    return config


@pytest.fixture
def configure(configured: Configure, tmp_path: Path) -> Configure:
    return partial(configured, run_folder=tmp_path / "run")


def run(config: PretrainingConfig, *, stop_after: int | None = None) -> PretrainingResult:
    asked = count()
    return pretrain(
        config,
        clock=lambda: 0.0,
        should_stop=lambda: stop_after is not None and next(asked) >= stop_after,
    )


def lines(config: PretrainingConfig) -> list[dict[str, Any]]:
    text = (config.run_folder / "log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def is_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


RESUMED = {
    "budget": StepBudget(steps=3),
    "sides": ((0.5, 16), (1.0, 20)),
    "copies": 2,
    "mixing": 0.5,
    "consistency_weight": 1.0,
    "learners": 2,  # for two of the steps
}


@pytest.fixture(scope="module")
def uninterrupted(configured: Configure, tmp_path_factory: pytest.TempPathFactory) -> PretrainingResult:
    return run(configured(run_folder=tmp_path_factory.mktemp("whole"), **RESUMED))


def test_a_run_stopped_and_taken_up_equals_one_that_was_not(
    configure: Configure, uninterrupted: PretrainingResult
) -> None:
    config = configure(**RESUMED)
    first = run(config, stop_after=1)
    assert not first.is_finished and first.steps == 1
    path = config.run_folder / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    second = run(config)
    assert second.is_finished and second.steps == uninterrupted.steps == 3
    assert is_same(second.weights, uninterrupted.weights) and is_same(second.average, uninterrupted.average)
    assert [line["resumed_at"] for line in lines(config) if "resumed_at" in line] == [1]

    # The comparison can tell: with the classes of other learners the end is another, and without the first momentum.
    torch.save(saved | {"learner_of": 1 - saved["learner_of"]}, path)
    assert not is_same(run(config).weights, uninterrupted.weights)
    for state in saved["optimizer"]["state"].values():
        state["momentum_buffer"].zero_()
    torch.save(saved, path)
    assert not is_same(run(config).weights, uninterrupted.weights)


def test_a_run_killed_and_taken_up_equals_one_that_was_not(
    configure: Configure, uninterrupted: PretrainingResult
) -> None:
    config = configure(**RESUMED, checkpoint_every_s=2.0)
    asked = 0

    def one_second_a_step() -> float:
        return float(asked)

    def kill_before_the_third() -> bool:
        nonlocal asked
        if asked == 2:
            raise KeyboardInterrupt
        asked += 1
        return False

    with pytest.raises(KeyboardInterrupt):
        pretrain(config, clock=one_second_a_step, should_stop=kill_before_the_third)
    assert read_checkpoint(config.run_folder)["step"] == 2
    assert is_same(run(config).weights, uninterrupted.weights)


def test_the_seed_decides_and_the_global_state_is_left_alone(configure: Configure) -> None:
    before = torch.get_rng_state()
    first, again, other = (after_steps(configure(seed=seed), 1) for seed in (3, 3, 4))
    assert is_same(first, again)
    assert not is_same(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"label_weight": 0.0},
        {"label_smoothing": 0.0},
        {"soft_weight": 0.0},
        {"temperature": 1.0},
        {"feature_weight": 0.0},
        {"copies": 2},
        {"mixing": 0.75},
        {"learners": 2},
        {"is_gradient_centralized": False},
        {"augmentation": NO_AUGMENTATION},
        {"sides": ((1.0, 20),)},
        {"is_bfloat16": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_is_felt_after_one_step(
    configure: Configure, one_step: dict[str, Tensor], change: dict[str, Any]
) -> None:
    assert not is_same(after_steps(configure(**change), 1), one_step)


def test_options_of_several_views_are_felt(configure: Configure, tmp_path: Path) -> None:
    weights = [
        after_steps(configure(run_folder=tmp_path / str(number), copies=2, **change), 1)
        for number, change in enumerate(
            (
                {},
                {"copies_counted": "all"},
                {"consistency_weight": 1.0},
                {"consistency_weight": 1.0, "consistency_temperature": 1.0},
            )
        )
    ]
    assert not any(is_same(one, other) for one, other in combinations(weights, 2))


def test_who_is_hardly_mixed_learns_as_if_alone(configure: Configure, one_step: dict[str, Tensor]) -> None:
    hardly, well = (after_steps(configure(mixing=alpha), 1)["conv1.weight"] for alpha in (1e-3, 10.0))
    moved = (well - one_step["conv1.weight"]).abs().max()
    assert (hardly - one_step["conv1.weight"]).abs().max() < 0.01 * moved


def test_a_learner_moves_its_slice_and_its_classes_alone(configure: Configure) -> None:
    state = _Run(configure(learners=2, weight_decay=0.0), lambda: 0.0)
    before = state._student.label.weight.detach().clone()
    state.advance()
    assert state._division is not None
    lesson = state._division.lesson(0, 8)
    moved = (state._student.label.weight != before).numpy()
    assert 0 < len(lesson.classes) < len(moved) and lesson.columns in (slice(0, 256), slice(256, 512))
    assert np.flatnonzero(moved.any(axis=1)).tolist() == lesson.classes.tolist()
    assert moved[lesson.classes, lesson.columns].all()
    assert moved.sum() == len(lesson.classes) * 256


def test_learners_join_at_the_end_and_more_than_classes_are_refused(
    configure: Configure, one_step: dict[str, Tensor]
) -> None:
    assert is_same(after_steps(configure(learners=2, divided=0.0), 1), one_step)
    with pytest.raises(TrainingSetInvalid, match="`learners` of a training run must be at most the"):
        run(configure(learners=64))


def test_without_a_change_one_step_is_the_same(configure: Configure, one_step: dict[str, Tensor]) -> None:
    not_the_recipe = {"log_every_steps": 7, "checkpoint_every_s": 0.0}
    assert is_same(after_steps(configure(**not_the_recipe), 1), one_step)


@pytest.fixture(scope="module")
def one_step(configured: Configure, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return after_steps(configured(run_folder=tmp_path_factory.mktemp("one-step")), 1)


def after_steps(config: PretrainingConfig, steps: int) -> dict[str, Tensor]:
    """Weights after so many steps, without the cost of a checkpoint."""
    state = _Run(config, lambda: 0.0)
    for _ in range(steps):
        state.advance()
    return state.result(is_finished=True).weights


def test_labels_alone_need_no_teacher_and_are_learnt(configure: Configure) -> None:
    config = configure(
        targets=None,
        soft_weight=0.0,
        feature_weight=0.0,
        budget=StepBudget(steps=8),
        learning_rate=0.005,
        augmentation=NO_AUGMENTATION,
    )
    after_steps(config, 8)
    steps = lines(config)[:8]
    assert "soft" not in steps[0] and "feature" not in steps[0]
    right = [line["right"] for line in steps]
    assert np.mean(right[:2]) < 0.6 and np.mean(right[-4:]) > 0.8


def test_a_teacher_alone_is_followed(configure: Configure) -> None:
    config = configure(
        label_weight=0.0,
        feature_weight=0.5,
        budget=StepBudget(steps=10),
        learning_rate=0.006,
        augmentation=NO_AUGMENTATION,
    )
    after_steps(config, 10)
    steps = lines(config)[:10]
    for term in ("soft", "feature"):
        assert np.mean([s[term] for s in steps[-3:]]) < 0.7 * np.mean([s[term] for s in steps[:3]]), term
    assert all(step["label"] == 0 for step in steps)


def test_terms_that_need_a_teacher_are_refused_without_one(configure: Configure) -> None:
    with pytest.raises(TrainingSetInvalid, match="`targets` of a training run"):
        run(configure(targets=None))


def test_an_epoch_shows_every_image_once(configure: Configure) -> None:
    state = _Run(configure(), lambda: 0.0)
    shown = []
    for step in range(8):
        state.step = step
        shown.append(state._rows())
    first, second = np.concatenate(shown[:4]), np.concatenate(shown[4:])
    assert sorted(first) == sorted(second) == list(range(32))
    assert not np.array_equal(first, second)


def test_a_time_budget_ends_at_its_time_over_all_resumptions(configure: Configure) -> None:
    ticks = count()

    def clock() -> float:
        return float(next(ticks))

    config = configure(budget=TimeBudget(seconds=50), learning_rate=0.01)
    asked = count()
    first = pretrain(config, clock=clock, should_stop=lambda: next(asked) == 2)
    assert first.steps == 2 and 0 < first.elapsed_s < 50
    second = pretrain(config, clock=clock)
    assert second.is_finished and second.elapsed_s >= 50
    rates = [line["learning_rate"] for line in lines(config) if "learning_rate" in line]
    assert second.steps == len(rates) and rates[-1] < 0.25 * max(rates)


def test_a_checkpoint_of_another_recipe_or_set_is_refused(configure: Configure, tmp_path: Path) -> None:
    run(configure())
    with pytest.raises(CheckpointMismatch, match="same recipe"):
        run(configure(temperature=2.0))
    draw_class(tmp_path / "in" / "a", (200, 9, 9), 8, seed=0)
    pack_images([ImageFolder(tmp_path / "in", "other", "drawn here")], tmp_path / "out", side=20)
    with pytest.raises(TrainingSetInvalid, match="got answers to"):
        run(configure(training_set=tmp_path / "out"))
    longer = run(configure(budget=StepBudget(steps=2)))  # the budget may be set anew
    assert longer.steps == 2


def test_a_damaged_or_executable_checkpoint_is_refused(configure: Configure) -> None:
    config = configure()
    run(config)
    path = config.run_folder / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointMismatch, match="whole"):
        run(config)
    torch.save({"step": Path("x")}, path)  # an object, not a tensor
    with pytest.raises(CheckpointMismatch, match="whole"):
        read_checkpoint(config.run_folder)


def test_a_checkpoint_is_replaced_in_one_move(configure: Configure) -> None:
    config = configure()
    run(config)
    assert sorted(path.name for path in config.run_folder.iterdir()) == ["checkpoint.pt", "log.jsonl"]


def test_the_checkpoint_holds_the_weights_returned(configure: Configure) -> None:
    config = configure()
    result = run(config)
    saved = read_checkpoint(config.run_folder)
    assert is_same(backbone_weights(saved["student"]), result.weights)
    assert is_same(backbone_weights(saved["average"]), result.average)
    assert "fc.weight" not in result.weights and "conv1.weight" in result.weights


def test_a_loss_that_is_no_number_ends_the_run(configure: Configure) -> None:
    with pytest.raises(TrainingDiverged, match="finite"):
        run(configure(learning_rate=1e30, warmup=1e-9, budget=StepBudget(steps=4)))


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "vgg16"},
        {"sides": ((0.5, 16),)},
        {"sides": ((0.6, 16), (0.5, 20), (1.0, 24))},
        {"sides": ((1.0, 8),)},
        {"sides": ()},
        {"copies": 0},
        {"copies_counted": "best"},
        {"consistency_weight": 1.0},  # of one view
        {"mixing": -1.0},
        {"temperature": 0.0},
        {"unheard_of": 1},
    ],
)
def test_wrong_configurations_are_refused(configure: Configure, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        configure(**change)


def test_more_images_in_a_step_than_there_are_is_refused(configure: Configure) -> None:
    with pytest.raises(TrainingSetInvalid, match="at most the 32"):
        run(configure(batch=33))
