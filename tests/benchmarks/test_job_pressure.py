"""What a running job costs a score, on a server and a worker of their own."""

import pytest

from benchmarks.errors import BenchmarkRefused
from benchmarks.job_pressure import P99_BAR, PressurePlan, _found, measure_pressure, pressure_text


@pytest.mark.slow
def test_a_real_server_is_measured_with_and_without_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("WEIGHTS", "stand-in"), ("IMAGE_SIZE", "32"), ("THREADS", "1")):
        monkeypatch.setenv(f"ODDITY_{name}", text)
    told: list[str] = []
    found = measure_pressure(PressurePlan(images=20, scores=5, turns=2), say=told.append)
    assert (found["scores"], found["weights"]) == (10, "stand-in")
    assert found["jobs"] >= 3
    assert all(found["milliseconds"][one][at] > 0 for one in ("with", "without") for at in ("p50", "p99"))
    assert told[-1] == "Scoring, turn 2 of 2"
    assert f"bar {P99_BAR:g}" in "\n".join(pressure_text(found))


def test_the_ratio_is_that_of_the_percentiles() -> None:
    quiet = [float(number) for number in range(1, 102)]
    found = _found(PressurePlan(), quiet, [3 * one for one in quiet], 7)
    assert found["milliseconds"]["without"] == {"p50": 51.0, "p99": 100.0}
    assert found["ratio"] == {"p50": 3.0, "p99": 3.0}
    assert not found["is_within_bar"]
    assert _found(PressurePlan(), quiet, quiet, 7)["is_within_bar"]


@pytest.mark.slow
def test_a_server_that_does_not_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDITY_THREADS", "none")
    with pytest.raises(BenchmarkRefused, match="did not start"):
        measure_pressure(PressurePlan(images=20, scores=5, turns=1))
