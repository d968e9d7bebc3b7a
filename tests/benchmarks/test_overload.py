"""Ten times the load that fits, on a real server, for a moment."""

import pytest

from benchmarks.overload import OverloadPlan, measure_overload, overload_text


@pytest.mark.slow
def test_a_server_refuses_what_is_too_much_and_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("WEIGHTS", "stand-in"), ("IMAGE_SIZE", "32"), ("THREADS", "1")):
        monkeypatch.setenv(f"ODDITY_{name}", text)
    plan = OverloadPlan(seconds=3, slots=2, waiting=2, deadline_s=20, side=200, bank=5)
    found = measure_overload(plan)
    assert found["is_within_bars"], found["bars"]
    assert found["over"]["refused"] > 0 and found["clients"] == {"fits": 2, "over": 40}
    assert "clients" in "\n".join(overload_text(found))
