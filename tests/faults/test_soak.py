"""`make soak` in short: every fault once, on each database."""

from pathlib import Path

import pytest

from tests.faults.soak import Faults, Soak


@pytest.mark.slow
@pytest.mark.parametrize("record", ["sqlite", "postgresql"])
def test_a_short_soak(tmp_path: Path, record: str) -> None:
    said: list[str] = []
    soak = Soak(minutes=0.5, seed=3, record=record, between_s=1.0)
    load = soak.run(tmp_path, said.append)
    assert len(said) == len(soak.rounds) > 0
    assert load.answers["add", 201] and load.answers["score", 200] and load.answers["classify", 200]
    assert f"{record}, " in soak.text(load) and all(hasattr(Faults, one.fault) for one in soak.rounds)
