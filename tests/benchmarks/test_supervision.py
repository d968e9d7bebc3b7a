"""What methods are told beside the bank: drawn from images that nobody tests, the same for the same seed."""

from pathlib import Path

import numpy as np
import pytest

from app.embedders import Embedders
from benchmarks.embedding import Pool, embed_files
from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import Layout, cases, read_layout
from benchmarks.methods import MethodsPlan, _split, measure_methods
from benchmarks.methods_report import methods_text
from benchmarks.metrics import roc_auc
from benchmarks.supervision import (
    Person,
    Supervision,
    Told,
    asked_by_chance,
    asked_by_choice,
    logistic_regression,
    told,
)
from models.catalog import installed
from models.contract import Need, Pair, PairAsker
from tests.benchmarks.conftest import SPEC

NEEDS = {name: frozenset(card.needs.required) for name, card in installed().items() if not card.live}
ASKING = next(name for name, needs in NEEDS.items() if needs == {Need.VECTORS, Need.PAIRS})
TOLD = next(name for name, needs in NEEDS.items() if needs == {Need.VECTORS, Need.LABELS, Need.UNLABELLED})
BANK, STRANGE = np.arange(40), np.arange(100, 130)
KNOWN = Told({"cut": STRANGE[:5]}, STRANGE[5:], frozenset(STRANGE.tolist()))


def embedded(folder: Path, embedders: Embedders, cache: Path) -> tuple[Layout, Pool]:
    layout = read_layout(folder, 40)
    return layout, embed_files(layout.files(), embedders, SPEC, cache)[0]


@pytest.mark.parametrize("folder", ["digits", "textures"])
def test_nothing_that_is_told_is_tested_or_in_the_bank(
    folder: str, request: pytest.FixtureRequest, embedders: Embedders, cache: Path
) -> None:
    layout, pool = embedded(request.getfixturevalue(folder), embedders, cache)
    case = cases(layout)[0]
    plan = MethodsPlan(supervision=Supervision(shots=3, unlabelled=25))
    split = _split(layout, case, pool, plan)
    parts = [split.fit, split.calibration, split.normal, split.strangers, split.told.rows]
    assert sum(map(len, parts)) == np.unique(np.concatenate(parts)).size
    file_of = {row: file for file, row in pool.row_of.items()}
    kinds = (set(layout.train) | set(layout.test)) - case.normal
    assert set(split.told.examples) == kinds
    for kind, rows in split.told.examples.items():
        assert [file_of[row].parent.name for row in rows.tolist()] == [kind] * 3
    assert split.told.unlabelled.size == 25
    is_strange = [row in split.told.strange for row in split.told.unlabelled.tolist()]
    assert is_strange == [file_of[row].parent.name in kinds for row in split.told.unlabelled.tolist()]
    assert any(is_strange) and not all(is_strange)  # a pool as it comes: of both sorts
    again = _split(layout, case, pool, plan)
    assert np.array_equal(again.told.rows, split.told.rows)
    assert not np.array_equal(
        _split(layout, case, pool, MethodsPlan(seed=1, supervision=plan.supervision)).told.rows, split.told.rows
    )


def test_without_supervision_nothing_is_taken_from_the_bank_or_the_test(
    digits: Path, embedders: Embedders, cache: Path
) -> None:
    layout, pool = embedded(digits, embedders, cache)
    case = cases(layout)[0]
    split = _split(layout, case, pool, MethodsPlan())
    bank = pool.rows(layout.train[case.name])
    assert np.array_equal(np.sort(np.concatenate([split.fit, split.calibration])), np.sort(bank))
    assert split.told.rows.size == 0


def test_more_labels_than_there_are_images_are_refused(textures: Path, embedders: Embedders, cache: Path) -> None:
    layout, pool = embedded(textures, embedders, cache)
    with pytest.raises(BenchmarkRefused, match=r"`shots` must be at most 15, the images of cut"):
        told(layout, cases(layout)[0], pool, np.arange(3), Supervision(shots=16), 0)
    with pytest.raises(BenchmarkRefused, match="`answers` must come with `unlabelled`"):
        Supervision(answers=(5,))


def test_a_person_prefers_the_strange_image_but_for_the_mistakes() -> None:
    sure = Person(KNOWN, 0.0, 0)
    assert [sure.answer(0, 100).answer, sure.answer(100, 0).answer] == ["right", "left"]
    assert sure.answer(1, 2).answer == sure.answer(101, 102).answer == "same"
    unsure = Person(KNOWN, 0.2, 0)
    answers = [unsure.answer(0, 100).answer for _ in range(4000)]
    assert answers.count("left") == pytest.approx(400, abs=80)  # half of those by chance
    assert answers.count("same") == 0


def test_pairs_by_chance_and_by_choice() -> None:
    by_chance = asked_by_chance(Person(KNOWN, 0.0, 0), KNOWN, BANK, 30, 0)
    assert len(by_chance) == 30
    allowed = {*BANK.tolist(), *STRANGE.tolist()}
    assert all(one.left != one.right and {one.left, one.right} <= allowed for one in by_chance)
    learnt: list[int] = []

    def learn(answers: list[Pair]) -> PairAsker:
        learnt.append(len(answers))
        return None  # type: ignore[return-value]

    def next_pairs(_: PairAsker, candidates: np.ndarray, asked: set[tuple[int, int]], most: int) -> list:
        assert len(asked) >= 1 and set(candidates.tolist()) <= allowed
        return [(0, 100)] * most

    chosen = asked_by_choice(Person(KNOWN, 0.0, 0), KNOWN, BANK, 25, 0, learn, next_pairs)
    assert learnt == [10, 20] and len(chosen) == 25
    assert all(one.answer == "right" for one in chosen[10:])
    nothing_left = asked_by_choice(Person(KNOWN, 0.0, 0), KNOWN, BANK, 25, 0, learn, lambda *_: [])
    assert len(nothing_left) == 10


def test_the_supervised_baseline_finds_what_its_labels_show() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(130, 8)).astype(np.float32)
    vectors[100:, 0] += 6.0
    score, memory = logistic_regression(vectors, BANK, {"cut": STRANGE[:5]})
    scores = np.concatenate([score(np.arange(40, 100)), score(STRANGE[5:])])
    assert roc_auc(scores, np.arange(scores.size) >= 60) > 0.99
    assert memory > 0


def test_methods_that_need_labels_a_pool_or_answers_are_measured(
    textures: Path, embedders: Embedders, cache: Path
) -> None:
    plan = MethodsPlan(
        methods=(ASKING, TOLD),
        limit=40,
        quick=True,
        supervision=Supervision(shots=3, unlabelled=20, answers=(10, 20)),
    )
    found = measure_methods([textures], embedders, SPEC, plan, cache)
    rows = {(one["method"], one["told"]): one for one in found["summary"]}
    assert set(rows) == {
        ("few_shot_lr", "3 labels a kind"),
        (TOLD, "3 labels a kind, 20 unlabelled"),
        *((ASKING, f"{count} answers, {way}") for count in (10, 20) for way in ("by chance", "chosen")),
    }
    baseline = rows["few_shot_lr", "3 labels a kind"]
    for one in rows.values():
        assert "skipped" not in one
        assert one["supervised"]["roc_auc"] == baseline["roc_auc"]
        assert one["plain"]["roc_auc"] == baseline["plain"]["roc_auc"]
    assert "supervised ROC-AUC" in "\n".join(methods_text(found))


def test_a_class_that_a_later_folder_lacks_is_refused_before_anything_is_measured(
    digits: Path, textures: Path, embedders: Embedders, tmp_path: Path
) -> None:
    plan = MethodsPlan(methods=(TOLD,), limit=24, normal=("1",))
    other = tmp_path / "other"
    for part in ("train", "test"):
        for kind in ("a", "b"):
            (other / part / kind).mkdir(parents=True)
            (other / part / kind / "one.png").write_bytes(next((textures / "train" / "good").iterdir()).read_bytes())
    with pytest.raises(BenchmarkRefused, match="`normal` must name classes of other; got 1"):
        measure_methods([digits, other], embedders, SPEC, plan, tmp_path / "vectors")
    assert not (tmp_path / "vectors").exists()  # not even embedded
