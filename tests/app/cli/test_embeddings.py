"""`oddity embeddings` on a data folder."""

import json
from pathlib import Path

import pytest

from tests.app.cli.conftest import Oddity
from tests.app.working import part

pytestmark = pytest.mark.usefixtures("outside_methods")


def test_a_version_is_learnt_gone_over_to_and_back(oddity: Oddity, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for label in ("a", "b"):
        folder = tmp_path / "parts" / label
        folder.mkdir(parents=True)
        for number in range(3):
            (folder / f"{number}.png").write_bytes(part(ord(label) * 100 + number))
    assert oddity("ingest", tmp_path / "parts", "-c", "c", "--label-from-folder", "--data", data).code == 0
    ran = oddity("embeddings", "learn", "c", "turned", "-p", "width=8", "-p", "better=no", "--data", data)
    assert ran.code == 0 and "is not better than the network's own vectors, and ready" in ran.err, ran.err
    base, made = json.loads(oddity("embeddings", "list", "c", "--data", data, "--json").out)
    assert (base["state"], made["state"], made["width"], made["params"]["width"]) == ("active", "ready", 8, 8)
    refused = oddity("embeddings", "activate", "c", made["version"], "--data", data)
    assert refused.code == 1 and "MAP@R is 0.100, 0.500 without it" in refused.err
    ran = oddity("embeddings", "activate", "c", made["version"], "--force", "--data", data)
    assert ran.code == 0 and f"answers by version {made['version']}" in ran.err
    table = oddity("embeddings", "list", "c", "--data", data).out
    assert "turned" in table and "0.500" in table and "active" in table
    ran = oddity("embeddings", "rollback", "c", "--data", data)
    assert ran.code == 0 and f"answers by version {base['version']}" in ran.err
    assert oddity("embeddings", "delete", "c", made["version"], "--data", data).code == 0
    assert oddity("embeddings", "learn", "c", "spread", "--data", data).code == 2
