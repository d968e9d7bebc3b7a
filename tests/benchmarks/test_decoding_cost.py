"""`oddity bench decoding`: one tiny run on two real servers, and what is told of it."""

import pytest

from benchmarks.decoding_cost import DecodingPlan, decoding_text, measure_decoding
from benchmarks.errors import BenchmarkRefused


def test_a_size_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BenchmarkRefused, match="must be of"):
        DecodingPlan(sizes=("huge",))


@pytest.mark.slow
def test_both_ways_are_measured() -> None:
    plan = DecodingPlan(sizes=("small",), clients=(1,), turns=2, seconds=0.3, images=2, bank=4, image_size=32)
    found = measure_decoding(plan)
    (load,) = found["loads"]
    assert all(load[name] > 0 for name in ("throughput", "p50", "cpu"))
    assert len(found["memory_mib"]["threads"]) == 1 < len(found["memory_mib"]["processes"])
    assert "small, 1" in "\n".join(decoding_text(found))
