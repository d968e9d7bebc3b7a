"""The measurement of a large collection runs on a small one, and its figures are what they say."""

import pytest

from benchmarks.scale import ScalePlan, measure_scale, scale_text


@pytest.mark.slow
def test_a_small_collection_is_measured_through_a_real_service() -> None:
    plan = ScalePlan(rows=300, centres=10, queries=5, parts=("snapshot", "file", "delete"))
    found = measure_scale(plan)
    start = found["start"]
    assert start["index"]["parts"]["bank"]["alive"] == 300
    assert start["index"]["exact"] and start["recall_at_10"] == 1
    assert {share: one["recall_at_10"] for share, one in start["filtered"].items()} == dict.fromkeys(
        ("0.001", "0.01", "0.1", "0.5"), 1.0
    )
    assert start["memory"]["anonymous_bytes"] > 0 and start["memory_after_delete"]["anonymous_bytes"] > 0
    assert found["snapshot"]["restored"] == 300
    text = "\n".join(scale_text(found))
    assert "300 images, width 512" in text and "flat" in text
