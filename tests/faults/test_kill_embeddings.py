"""kill -9 while a version of the embedding is learnt, filled or gone over to: the old one answers or the new one."""

import os
import random
import time
from pathlib import Path

import httpx2
import pytest

from tests.app.working import part
from tests.faults.test_kill import serving
from tests.third_party import install

C = "/v1/collections/c"
KILLS = 3
QUERY = [("files", ("q.png", part(1000, scratch=10)))]


def answer(client: httpx2.Client) -> tuple[str, list[tuple[str, float]]]:
    told = client.post(f"{C}/query", files=QUERY, data={"k": "40"})
    assert told.status_code == 200, told.text
    body = told.json()
    return body["fingerprint"], [(one["id"], round(one["distance"], 5)) for one in body["results"][0]]


def test_a_kill_leaves_the_old_version_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(7)
    monkeypatch.setenv("PYTHONPATH", f"{install(tmp_path)}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    known: dict[str, list[tuple[str, float]]] = {}
    with serving(tmp_path / "data") as server:
        with httpx2.Client(base_url=server.start(), timeout=60) as client:
            client.put(C).raise_for_status()
            for label in ("a", "b"):
                files = [("files", (f"{label}{n}.png", part(ord(label) * 100 + n))) for n in range(12)]
                client.post(f"{C}/images", files=files, data={"label": label}).raise_for_status()
            fingerprint, results = answer(client)
            images = {image_id for image_id, _ in results}
            assert len(images) == 24
            known[fingerprint] = results
        server.kill()
        for kill in range(KILLS + 1):
            with httpx2.Client(base_url=server.start(), timeout=60) as client:
                # What was begun when it was killed is taken up again, and may change the answer at any moment.
                fingerprint, results = answer(client)
                assert known.setdefault(fingerprint, results) == results
                assert {image_id for image_id, _ in results} == images
                versions = client.get(f"{C}/embeddings").json()["embeddings"]
                assert fingerprint in [one["fingerprint"] for one in versions if one["state"] != "backfilling"]
                assert all(one["images"] == 24 for one in versions if one["state"] != "backfilling")
                body = {"method": "turned", "seed": kill, "activate": True}
                client.post(f"{C}/embeddings", json=body).raise_for_status()
                time.sleep(chance.uniform(0, 0.4))
                server.kill()
