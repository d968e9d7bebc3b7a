"""Which structure for how many rows and how much memory."""

import numpy as np
import pytest

from index import STRUCTURES, Metric, choose_structure, make_index
from index.auto import Plan
from index.structures import CODED_ROWS, EXACT_NUMBERS, memory_needed

RAW = 512 * 4


@pytest.mark.parametrize(
    ("rows", "bytes_each", "structure"),
    [
        (500, RAW, "flat"),
        (100_000, 2 * RAW, "scan"),
        (100_000, int(1.1 * RAW), "flat"),
        (1_000_000, 2 * RAW, "hnsw"),
        (1_000_000, int(1.2 * RAW), "ivf"),
        (1_000_000, RAW, "flat"),
    ],
)
def test_it_follows_rows_and_memory(rows, bytes_each, structure):
    assert choose_structure(rows, 512, rows * bytes_each) == structure


def test_what_was_refused_gives_way_to_the_next_best():
    for without, structure in (((), "hnsw"), (("hnsw",), "ivf"), (("hnsw", "ivf"), "scan"), (STRUCTURES, "flat")):
        assert choose_structure(1_000_000, 512, without=without) == structure


@pytest.mark.parametrize("border", [CODED_ROWS, EXACT_NUMBERS // 512])
def test_at_a_border_nothing_goes_to_and_fro(border):
    """What was chosen above stays until half of the rows are gone."""
    below, above = (choose_structure(rows, 512) for rows in (border - 1, border + 1))
    assert below != above
    assert choose_structure(border - 1, 512, current=above) == above
    assert choose_structure(border // 2 - 1, 512, current=above) == below


def test_at_the_memory_limit_nothing_goes_to_and_fro():
    needed = memory_needed("hnsw", 1_000_000, 512)
    assert choose_structure(1_000_000, 512, needed, current="hnsw") == "hnsw"
    assert choose_structure(1_000_000, 512, needed - 1, current="hnsw") == "ivf"
    assert choose_structure(1_000_000, 512, needed, current="ivf") == "ivf"
    assert choose_structure(1_000_000, 512, int(1.11 * needed), current="ivf") == "hnsw"


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_memory_needed_is_what_an_index_takes(structure):
    n, width = 4000, 64
    index = make_index("auto", width=width, metric=Metric.L2)
    index.recall = 0.0
    index.add(np.arange(n), np.random.default_rng(0).standard_normal((n, width)))
    index.adopt(index.build(Plan(structure, "a test"), seed=0))
    taken = index.describe()["bytes"]["anonymous"]
    assert 0.95 * taken <= memory_needed(structure, n, width) <= 1.1 * taken
