"""Versions of an embedding on both databases, and with several servers on one record."""

import json
import threading
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.db.engine import Database
from app.db.tables import EmbeddingRow, ImageRow, VectorRow
from app.projections import read_projection
from tests.app.working import core_of, part

pytestmark = pytest.mark.usefixtures("outside_methods")
C = "/v1/collections/c"


def post(client: TestClient, first: int, count: int, **fields: Any) -> int:
    files = [("files", (f"{seed}.png", part(seed))) for seed in range(first, first + count)]
    items = json.dumps([{"id": f"n{seed}", **fields} for seed in range(first, first + count)])
    answer = client.post(f"{C}/images", files=files, data={"items": items})
    assert answer.status_code == 201, answer.text
    sequence: int = answer.json()["sequence"]
    return sequence


def made(client: TestClient) -> None:
    client.put(C).raise_for_status()
    post(client, 0, 8)
    post(client, 100, 2, role="example", label="a")
    post(client, 200, 2, role="example", label="b")


def learn(client: TestClient, seed: int) -> dict[str, Any]:
    body = {"method": "turned", "seed": seed}
    answer = client.post(f"{C}/embeddings", json=body, params={"wait": 60})
    assert answer.status_code == 200 and answer.json()["state"] == "succeeded", answer.text
    told: dict[str, Any] = answer.json()["result"]
    return told


def nearest(client: TestClient, seed: int, **more: Any) -> dict[str, Any]:
    files = [("files", ("q.png", part(seed)))]
    answer = client.post(f"{C}/query", files=files, data={"k": "1", **{key: str(one) for key, one in more.items()}})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def assert_whole(database: Database) -> None:
    """Each version has the vector of each image, made from the network's own."""
    with database.read() as session:
        base_id = session.scalars(select(EmbeddingRow.id).where(EmbeddingRow.base_id.is_(None))).one()
        images = set(session.scalars(select(ImageRow.id)))
        found: dict[int, dict[int, np.ndarray]] = {}
        for row in session.scalars(select(VectorRow)):
            found.setdefault(row.embedding_id, {})[row.image_pk] = np.frombuffer(row.vector, "<f4")
        for version in session.scalars(select(EmbeddingRow.id).where(EmbeddingRow.is_complete)):
            assert set(found[version]) == images
            if version != base_id:
                projection = read_projection(session, version)
                for pk, vector in found[version].items():
                    assert vector == pytest.approx(projection.apply(found[base_id][pk][None])[0], abs=1e-6)


def test_other_servers_go_over_and_nobody_mixes(client: TestClient, other: TestClient, database: Database) -> None:
    made(client)
    assert nearest(other, 3)["results"][0][0]["id"] == "n3"
    told = learn(client, 1)
    before = nearest(other, 3)["fingerprint"]
    sequence = client.post(f"{C}/embeddings/{told['version']}/activate").json()["sequence"]
    assert nearest(client, 3)["fingerprint"] == told["fingerprint"] != before
    after = nearest(other, 3, after=sequence)  # as anybody who knows the number of a change may ask
    assert (after["fingerprint"], after["results"][0][0]["id"]) == (told["fingerprint"], "n3")
    post(other, 300, 1)
    assert nearest(client, 300)["results"][0][0]["id"] == "n300"
    back = other.post(f"{C}/embeddings/rollback").json()["sequence"]
    assert nearest(client, 300, after=back)["fingerprint"] == before
    assert_whole(database)


def test_a_server_that_has_not_gone_over_yet_shows_writes_by_the_embedding_before(
    client: TestClient, other: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(client)
    first, second = learn(client, 1), learn(client, 2)
    sequence = client.post(f"{C}/embeddings/{first['version']}/activate").json()["sequence"]
    before = nearest(other, 3, after=sequence)["fingerprint"]
    assert before == first["fingerprint"]
    core_of(other).shelf.close()  # it begins no change-over any more
    sequence = client.post(f"{C}/embeddings/{second['version']}/activate").json()["sequence"]
    came = post(client, 300, 1)
    found = nearest(other, 300)
    assert (found["fingerprint"], found["sequence"]) == (before, came)
    assert found["results"][0][0]["id"] == "n300" and found["results"][0][0]["distance"] == pytest.approx(0, abs=1e-6)
    # Who asks for a change after which another embedding answers does not get the one before.
    monkeypatch.setattr(core_of(other).shelf, "_wait_s", 0.05)
    files = [("files", ("q.png", part(300)))]
    assert other.post(f"{C}/query", files=files, data={"after": str(sequence)}).status_code == 503
    assert nearest(other, 300, after=sequence - 1)["fingerprint"] == before
    # When the version that it answers by is deleted, it cannot follow any more, and reads the collection afresh.
    client.delete(f"{C}/embeddings/{first['version']}").raise_for_status()
    post(client, 301, 1)
    assert nearest(other, 301)["fingerprint"] == second["fingerprint"]
    assert_whole(database)


def test_writes_and_searches_go_on_while_versions_are_learnt_and_changed(
    client: TestClient, other: TestClient, database: Database
) -> None:
    made(client)
    base = client.get(C).json()["fingerprint"]
    prints = {base}
    problems: list[str] = []
    ended = threading.Event()

    def write() -> None:
        seed = 1000
        while not ended.is_set():
            answer = other.post(f"{C}/images", files=[("files", (f"{seed}.png", part(seed)))])
            if answer.status_code != 201:
                problems.append(answer.text)
            found = other.post(f"{C}/query", files=[("files", ("q.png", part(seed)))], data={"k": "1"}).json()
            best = found["results"][0][0]
            if best["distance"] > 1e-5:  # the image that was just written is found, by whichever embedding
                problems.append(json.dumps(found))
            prints.add(found["fingerprint"])
            if seed % 3 == 0:
                other.delete(f"{C}/images/{best['id']}")
            seed += 1
            ended.wait(0.02)  # the job beside it shall come to its turn

    thread = threading.Thread(target=write)
    thread.start()
    try:
        told = [learn(client, seed) for seed in (1, 2)]
        for one in told:
            client.post(f"{C}/embeddings/{one['version']}/activate").raise_for_status()
        client.post(f"{C}/embeddings/rollback").raise_for_status()
    finally:
        ended.set()
        thread.join()
    assert problems == []
    assert prints <= {base, *(one["fingerprint"] for one in told)}
    assert_whole(database)
