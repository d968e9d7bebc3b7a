"""`oddity bench checkouts`: one tiny run of a tree against itself, and what is told of it."""

from pathlib import Path

import pytest

from benchmarks.checkouts import CheckoutsPlan, checkouts_text, measure_checkouts
from benchmarks.errors import BenchmarkRefused
from tests.rules.source_tree import ROOT


def plan(other: Path) -> CheckoutsPlan:
    return CheckoutsPlan(other, "small", (2,), servers=1, turns=2, seconds=0.3, images=2, bank=12)


@pytest.mark.slow
def test_two_trees_are_loaded_in_turn() -> None:
    found = measure_checkouts(plan(ROOT))
    assert [load["what"] for load in found["loads"]] == ["2 clients", "adding"]
    for load in found["loads"]:
        assert all(len(load[tree]["images_per_s"]) == 1 and load[tree]["cpu_ms"][0] > 0 for tree in ("other", "this"))
        assert load["throughput"][0] > 0
    text = "\n".join(checkouts_text(found))
    assert "2 clients, this" in text and "adding, other" in text


def test_the_other_tree_is_what_runs(tmp_path: Path) -> None:
    for name in ("app/__init__.py", "app/cli/__init__.py", "app/cli/serve.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    with pytest.raises(BenchmarkRefused, match="did not start"):  # there is nothing in it to run
        measure_checkouts(plan(tmp_path))


def test_a_folder_without_a_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkRefused, match="another checkout"):
        plan(tmp_path)
