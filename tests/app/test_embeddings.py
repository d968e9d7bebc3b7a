"""Versions of a collection's embedding over HTTP: learning, backfilling, going over, going back, deleting, refusals."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from app.db.tables import EmbeddingPartRow, EmbeddingRow, ImageRow, VectorRow
from app.embeddings import learning, repository
from app.main import create_app
from app.settings import Settings
from models.catalog import installed
from tests.app.working import asked, core_of, cosine_distances, part
from tests.contract.problem_shape import problem_of

pytestmark = pytest.mark.usefixtures("outside_methods")
QUERY = part(1000, scratch=8)
MORE = {"scratch": [f"s{number}" for number in range(3)]}


@pytest.fixture(scope="module")
def served(outside_methods: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data=tmp_path_factory.mktemp("served"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, name: str, first: int, count: int, **fields: Any) -> None:
    files = [("files", (f"{seed}.png", part(seed))) for seed in range(first, first + count)]
    items = json.dumps([{"id": f"n{seed}", **fields} for seed in range(first, first + count)])
    client.post(f"/v1/collections/{name}/images", files=files, data={"items": items}).raise_for_status()


@pytest.fixture
def made(served: TestClient, request: pytest.FixtureRequest) -> str:
    """A collection of this test's own: 14 normal images, two classes of 3."""
    name = request.node.name.replace("[", "-").rstrip("]")[:100]
    served.put(f"/v1/collections/{name}").raise_for_status()
    post(served, name, 0, 14)
    post(served, name, 100, 3, role="example", label="a")
    post(served, name, 200, 3, role="example", label="b")
    return name


def learn(client: TestClient, name: str, seed: int = 1, activate: bool = False, **params: Any) -> dict[str, Any]:
    """The result of a job that learns a version."""
    body = {"method": "turned", "params": params, "seed": seed, "activate": activate}
    answer = client.post(f"/v1/collections/{name}/embeddings", json=body, params={"wait": 60})
    assert answer.status_code == 200 and answer.json()["state"] == "succeeded", answer.text
    result: dict[str, Any] = answer.json()["result"]
    return result


def activate(client: TestClient, name: str, version: int, **params: Any) -> dict[str, Any]:
    answer = client.post(f"/v1/collections/{name}/embeddings/{version}/activate", params=params)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def nearest(client: TestClient, name: str, image: bytes = QUERY, k: int = 5) -> dict[str, Any]:
    files = [("files", ("q.png", image))]
    answer = client.post(f"/v1/collections/{name}/query", files=files, data={"k": str(k)})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def stored(client: TestClient, version: int) -> dict[str, np.ndarray]:
    """Every vector under a version, as the record has it."""
    with core_of(client).database.read() as session:
        statement = select(ImageRow.image_id, VectorRow.vector).join(VectorRow, VectorRow.image_pk == ImageRow.id)
        found = session.execute(statement.where(VectorRow.embedding_id == version)).all()
    return {image_id: np.frombuffer(vector, "<f4") for image_id, vector in found}


def projected(client: TestClient, version: int, vectors: np.ndarray) -> np.ndarray:
    with core_of(client).database.read() as session:
        return core_of(client).projections.get(session, version).apply(vectors)


def active(client: TestClient, name: str) -> int:
    version: int = client.get(f"/v1/collections/{name}").json()["embedding_version"]
    return version


def test_a_version_is_learnt_filled_and_gone_over_to(served: TestClient, made: str) -> None:
    base = active(served, made)
    before = nearest(served, made)
    told = learn(served, made)
    version, fingerprint = told["version"], told["fingerprint"]
    assert told["better"] is True and told["activated"] is False and told["width"] == 16
    assert nearest(served, made) == before  # nothing has changed yet
    first, second = served.get(f"/v1/collections/{made}/embeddings").json()["embeddings"]
    assert (first["version"], first["state"], first["base"], first["method"]) == (base, "active", None, None)
    assert (second["version"], second["state"], second["base"], second["images"]) == (version, "ready", base, 20)
    assert second["before"] == {"map_at_r": 0.5} and second["after"] == {"map_at_r": 0.9}
    assert second == served.get(f"/v1/collections/{made}/embeddings/{version}").json()
    assert fingerprint not in (first["fingerprint"], before["fingerprint"])

    answer = activate(served, made, version)
    assert (answer["active"], answer["previous"], answer["fingerprint"]) == (version, base, fingerprint)
    after = nearest(served, made)
    shown = served.get(f"/v1/collections/{made}").json()
    assert after["fingerprint"] == shown["fingerprint"] == fingerprint and shown["width"] == 16
    assert shown["sequence"] == answer["sequence"] == after["sequence"] == before["sequence"] + 1
    # The whole path by hand: the network's vector of the query, projected, against the projected vectors stored.
    embedder = core_of(served).embedders.get_default().embedder
    query = embedder.embed([embedder.prepare(QUERY, core_of(served).embedders.limits)])
    vectors = stored(served, version)
    distances = cosine_distances(projected(served, version, query), np.stack(list(vectors.values())))[0]
    wanted = sorted(zip(distances.tolist(), vectors, strict=True))[:5]
    assert [one["id"] for one in after["results"][0]] == [image_id for _, image_id in wanted]
    assert [one["distance"] for one in after["results"][0]] == pytest.approx([d for d, _ in wanted], abs=1e-6)
    assert [one["distance"] for one in before["results"][0]] != pytest.approx([d for d, _ in wanted], abs=1e-3)


def test_every_score_and_class_goes_over_and_comes_back(served: TestClient, made: str) -> None:
    def answers() -> list[Any]:
        body = asked(served, made, [QUERY, part(3)])
        classes = served.post(f"/v1/collections/{made}/classify", files=[("files", ("q.png", QUERY))]).json()
        return [body["fingerprint"], body["results"], classes["fingerprint"], classes["results"], nearest(served, made)]

    def told(given: list[Any]) -> list[Any]:
        return [*given[:4], given[4]["results"]]

    base, before = active(served, made), answers()
    version = learn(served, made)["version"]
    activate(served, made, version)
    during = answers()
    assert all(one != other for one, other in zip(told(before), told(during), strict=True))
    back = served.post(f"/v1/collections/{made}/embeddings/rollback").json()
    assert (back["active"], back["previous"]) == (base, version)
    assert told(answers()) == told(before)
    assert served.post(f"/v1/collections/{made}/embeddings/rollback").json()["active"] == version
    assert told(answers()) == told(during)


def test_maps_explain_the_projected_score(served: TestClient, made: str) -> None:
    activate(served, made, learn(served, made)["version"])
    score = asked(served, made, [QUERY])["results"][0]["score"]
    for method in ("gradient", "occlusion"):
        files = [("files", ("q.png", QUERY))]
        answer = served.post(f"/v1/collections/{made}/explain", files=files, params={"method": method})
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"][0]["map"]["value"] == pytest.approx(score, abs=1e-5)


def test_writes_serve_every_version_from_its_first_moment_on(
    served: TestClient, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "PAGE_ROWS", 4)
    plain = repository.missing
    written: list[int] = []

    def missing(*arguments: Any) -> Any:
        found = plain(*arguments)
        written.append(len(found))
        return found

    monkeypatch.setattr(repository, "missing", missing)
    version = learn(served, made)["version"]
    assert written == [4, 4, 4, 4, 4, 0]
    base = active(served, made)
    for number in range(2):  # before going over to it, and after
        post(served, made, 300 + number, 1)
        # The same id with other bytes: no vector of the bytes before stays, under any version.
        files = [("files", ("n1.png", part(900 + number)))]
        served.post(
            f"/v1/collections/{made}/images", files=files, data={"items": json.dumps([{"id": "n1"}])}
        ).raise_for_status()
        served.delete(f"/v1/collections/{made}/images/n{2 + number}").raise_for_status()
        of_base, of_version = stored(served, base), stored(served, version)
        assert set(of_base) == set(of_version) and f"n{300 + number}" in of_base and f"n{2 + number}" not in of_base
        together = projected(served, version, np.stack(list(of_base.values())))
        for row, image_id in enumerate(of_base):
            assert of_version[image_id] == pytest.approx(together[row], abs=1e-6)
        found = nearest(served, made, part(300 + number), k=1)["results"][0][0]
        assert found["id"] == f"n{300 + number}" and found["distance"] == pytest.approx(0, abs=1e-6)
        activate(served, made, version)


def test_images_that_come_while_the_job_fills_are_filled_too(
    served: TestClient, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = repository.missing
    calls: list[int] = []

    def missing(session: Any, base_id: int, embedding_id: int, after: int, limit: int) -> Any:
        calls.append(embedding_id)
        return plain(session, base_id, embedding_id, after, 5)

    conclude = learning._conclude

    def later(*arguments: Any) -> Any:
        post(served, made, 400, 2)
        return conclude(*arguments)

    monkeypatch.setattr(repository, "missing", missing)
    monkeypatch.setattr(learning, "_conclude", later)
    version = learn(served, made)["version"]
    assert len(calls) > 2 and {"n400", "n401"} <= set(stored(served, version))
    assert served.get(f"/v1/collections/{made}/embeddings/{version}").json()["state"] == "ready"


def test_a_version_that_is_not_better_needs_force(served: TestClient, made: str) -> None:
    for better, sentence in (("no", "0.100, 0.500 without"), ("unknown", "nothing tells")):
        told = learn(served, made, better=better, activate=True)
        assert told["activated"] is False
        path = f"/v1/collections/{made}/embeddings/{told['version']}/activate"
        refused = problem_of(served.post(path), 409, "embedding_not_better")
        assert sentence in refused["detail"]
        assert active(served, made) != told["version"]
    assert activate(served, made, told["version"], force=True)["active"] == told["version"]
    # Negative control: a better one is gone over to as soon as it is complete, where that was asked for.
    told = learn(served, made, seed=2, activate=True)
    assert told["activated"] is True and active(served, made) == told["version"]


def test_what_was_fitted_on_another_version_is_refused(served: TestClient, made: str) -> None:
    post(served, made, 500, 10)
    base = active(served, made)
    version = learn(served, made)["version"]
    answer = served.put(f"/v1/collections/{made}/scorers/spread", json={}, params={"wait": 60})
    assert answer.json()["state"] == "succeeded", answer.text
    before = asked(served, made, [QUERY], scorer="spread")["results"][0]["score"]
    assert activate(served, made, version)["stale_scorers"] == ["spread"]
    refused = served.post(f"/v1/collections/{made}/anomaly?scorer=spread", files=[("files", ("q.png", QUERY))])
    problem_of(refused, 409, "stale_embedding")
    shown = served.get(f"/v1/collections/{made}/scorers/spread").json()
    assert (shown["serving"], shown["fit"]["stale"]["embedding"]) == (False, True)
    # Fitted again, on the projected vectors, it serves; gone back to, the network's own are another embedding again.
    answer = served.put(f"/v1/collections/{made}/scorers/spread", json={}, params={"wait": 60})
    assert answer.json()["state"] == "succeeded", answer.text
    assert asked(served, made, [QUERY], scorer="spread")["results"][0]["score"] != pytest.approx(before)
    activate(served, made, base)
    refused = served.post(f"/v1/collections/{made}/anomaly?scorer=spread", files=[("files", ("q.png", QUERY))])
    problem_of(refused, 409, "stale_embedding")


def test_a_compressed_bank_of_another_version_is_not_used(served: TestClient, made: str) -> None:
    post(served, made, 600, 16)
    body = {"method": "coreset", "size": 4}
    job = served.post(f"/v1/collections/{made}/compress", json=body, params={"wait": 60}).json()
    assert job["state"] == "succeeded", job
    base, small = active(served, made), asked(served, made, [QUERY])["results"]
    activate(served, made, learn(served, made)["version"])
    problem_of(served.get(f"/v1/collections/{made}/compress"), 404, "not_compressed")
    ids = {one["id"] for one in asked(served, made, [QUERY], neighbours=30)["results"][0]["neighbours"]}
    assert len(ids) == 30  # the whole bank answers
    activate(served, made, base)
    assert asked(served, made, [QUERY])["results"] == small


def test_a_snapshot_restores_to_the_active_embedding(served: TestClient, made: str) -> None:
    learn(served, made, seed=5)
    version = learn(served, made)["version"]
    activate(served, made, version)
    snapshot = served.post(f"/v1/collections/{made}/snapshots", params={"wait": 60}).json()["result"]
    assert snapshot["fingerprint"] == nearest(served, made)["fingerprint"] and snapshot["width"] == 16
    again = f"{made}-again"
    body = {"snapshot": snapshot["snapshot"]}
    job = served.post(f"/v1/collections/{again}/restore", json=body, params={"wait": 60}).json()
    assert job["state"] == "succeeded" and job["result"]["fingerprint"] == snapshot["fingerprint"], job
    for one in ("fingerprint", "results"):
        assert nearest(served, again)[one] == nearest(served, made)[one]
    versions = served.get(f"/v1/collections/{again}/embeddings").json()["embeddings"]
    assert [one["state"] for one in versions] == ["ready", "active"]
    assert versions[1]["after"] == {"map_at_r": 0.9} and versions[1]["method"] == "turned"
    # Images that come and going back work as in the collection it was made of.
    for name in (made, again):
        post(served, name, 700, 1)
        served.post(f"/v1/collections/{name}/embeddings/rollback").raise_for_status()
    assert nearest(served, again)["results"] == nearest(served, made)["results"]


def test_deleting(served: TestClient, made: str) -> None:
    base, version = active(served, made), learn(served, made)["version"]
    path = f"/v1/collections/{made}/embeddings"
    activate(served, made, version)
    problem_of(served.delete(f"{path}/{version}"), 409, "embedding_active")
    problem_of(served.delete(f"{path}/{base}"), 409, "embedding_is_base")
    served.post(f"{path}/rollback").raise_for_status()
    assert served.delete(f"{path}/{version}").status_code == 204
    problem_of(served.get(f"{path}/{version}"), 404, "embedding_unknown")
    problem_of(served.post(f"{path}/{version}/activate"), 404, "embedding_unknown")
    problem_of(served.post(f"{path}/rollback"), 409, "nothing_to_roll_back")
    assert stored(served, version) == {} and len(stored(served, base)) == 20
    with core_of(served).database.read() as session:
        parts = select(func.count()).select_from(EmbeddingPartRow).where(EmbeddingPartRow.embedding_id == version)
        assert session.scalar(parts) == 0
    post(served, made, 800, 1)
    assert nearest(served, made, part(800), k=1)["results"][0][0]["id"] == "n800"


def test_a_deleted_collection_takes_its_versions_with_it(served: TestClient, made: str) -> None:
    version = learn(served, made)["version"]
    activate(served, made, version)
    served.delete(f"/v1/collections/{made}").raise_for_status()
    with core_of(served).database.read() as session:
        assert session.get(EmbeddingRow, version) is None
    assert stored(served, version) == {}


def test_an_emptied_collection_may_take_another_network(served: TestClient, made: str) -> None:
    activate(served, made, learn(served, made)["version"])
    path = f"/v1/collections/{made}"
    problem_of(served.patch(path, json={"stages": [3]}), 409, "embedding_fixed")
    served.post(f"{path}/images/delete", json={"ids": list(stored(served, active(served, made)))}).raise_for_status()
    assert served.patch(path, json={"stages": [3]}).json()["width"] == 256
    assert [one["state"] for one in served.get(f"{path}/embeddings").json()["embeddings"]] == ["active"]
    problem_of(served.post(f"{path}/embeddings/rollback"), 409, "nothing_to_roll_back")
    post(served, made, 0, 3)
    assert nearest(served, made, part(1), k=1)["results"][0][0]["id"] == "n1"


def test_cancelling_leaves_no_version(served: TestClient, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"/v1/collections/{made}/embeddings"
    go_on = importlib.import_module("outside_methods.spread").GO_ON
    go_on.clear()
    try:
        job = served.post(path, json={"method": "turned", "params": {"waits": True}}).json()
        served.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    finally:
        go_on.set()
    fill = learning._fill

    def cancelled(core: Any, context: Any, version: int) -> None:
        # Entered, half filled, and then somebody asks for its end.
        monkeypatch.setattr(learning, "PAGE_ROWS", 4)
        served.post(f"/v1/jobs/{context.id}/cancel").raise_for_status()
        context.beat()
        fill(core, context, version)

    monkeypatch.setattr(learning, "_fill", cancelled)
    job = served.post(path, json={"method": "turned"}, params={"wait": 60}).json()
    assert job["state"] == "cancelled", job
    assert len(served.get(path).json()["embeddings"]) == 1


def test_a_damaged_vector_is_never_projected(served: TestClient, made: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill, base = learning._fill, active(served, made)

    def damaged(core: Any, context: Any, version: int) -> None:
        with core.database.write() as session:
            pk = session.scalars(
                select(ImageRow.id).where(ImageRow.image_id == "n5").order_by(ImageRow.id.desc())
            ).first()
            session.execute(
                update(VectorRow)
                .where(VectorRow.image_pk == pk, VectorRow.embedding_id == base)
                .values(vector=bytes(2048))
            )
        fill(core, context, version)

    monkeypatch.setattr(learning, "_fill", damaged)
    body = {"method": "turned"}
    job = served.post(f"/v1/collections/{made}/embeddings", json=body, params={"wait": 60}).json()
    assert (job["state"], job["problem"]["code"]) == ("failed", "vector_damaged") and "`n5`" in job["problem"]["detail"]


def test_a_job_taken_up_again_goes_on_with_what_it_learnt(
    served: TestClient, made: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, fill = learning._learnt, learning._fill
    seen: list[str] = []

    def counted(core: Any, context: Any) -> int:
        seen.append("learnt")
        return learnt(core, context)

    def broken(core: Any, context: Any, version: int) -> None:
        seen.append("filled")
        if seen.count("filled") == 1:
            # As after a kill: the job is handled once more from its beginning.
            assert learning.run_learn(core, context)["version"] == version
            return
        fill(core, context, version)

    monkeypatch.setattr(learning, "_learnt", counted)
    monkeypatch.setattr(learning, "_fill", broken)
    monkeypatch.setattr(learning, "_conclude", lambda _core, _context, version: {"version": version})
    learn_again = {"method": "turned", "seed": 4}
    job = served.post(f"/v1/collections/{made}/embeddings", json=learn_again, params={"wait": 60}).json()
    assert job["state"] == "succeeded" and seen == ["learnt", "filled", "filled"]
    monkeypatch.undo()
    # What a job left behind that ended without completing it goes when the next is asked for.
    assert served.get(f"/v1/collections/{made}/embeddings").json()["embeddings"][1]["state"] == "backfilling"
    path = f"/v1/collections/{made}/embeddings/{job['result']['version']}/activate"
    problem_of(served.post(path, params={"force": True}), 409, "embedding_incomplete")
    version = learn(served, made)["version"]
    found = served.get(f"/v1/collections/{made}/embeddings").json()["embeddings"]
    assert [one["version"] for one in found][1:] == [version]


def test_the_same_key_gets_the_same_answer(served: TestClient, made: str) -> None:
    path, key = f"/v1/collections/{made}/embeddings", {"Idempotency-Key": made}
    jobs = [served.post(path, json={"method": "turned"}, headers=key, params={"wait": 60}) for _ in range(2)]
    assert jobs[0].json()["id"] == jobs[1].json()["id"] and jobs[1].headers["Idempotent-Replayed"] == "true"
    version = jobs[0].json()["result"]["version"]
    answers = [served.post(f"{path}/{version}/activate", headers=key) for _ in range(2)]
    assert answers[0].json() == answers[1].json() and answers[1].headers["Idempotent-Replayed"] == "true"
    backs = [served.post(f"{path}/rollback", headers=key).json()["active"] for _ in range(2)]
    assert backs[0] == backs[1] == active(served, made)


def test_refusals(served: TestClient, made: str) -> None:
    path = f"/v1/collections/{made}/embeddings"
    problem_of(served.post(path, json={"method": "no_such"}), 422, "method_unknown")
    problem_of(served.post(path, json={"method": "spread"}), 422, "method_gives_no_embedding")
    problem_of(served.post(path, json={"method": "turned", "params": {"width": 1}}), 422, "parameter_invalid")
    problem_of(served.post(path, json={"method": "turned", "more": 1}), 422, "invalid")
    problem_of(served.post("/v1/collections/nobody/embeddings", json={"method": "turned"}), 404, "collection_unknown")
    problem_of(served.get(f"{path}/999999"), 404, "embedding_unknown")
    problem_of(served.post(f"{path}/999999/activate"), 404, "embedding_unknown")
    problem_of(served.post(f"{path}/1/activate", params={"froce": True}), 422, "invalid")
    problem_of(served.post(f"{path}/rollback"), 409, "nothing_to_roll_back")
    bare = f"{made}-bare"
    served.put(f"/v1/collections/{bare}").raise_for_status()
    post(served, bare, 0, 3)
    needs = problem_of(served.post(f"/v1/collections/{bare}/embeddings", json={"method": "turned"}), 409)
    assert needs["code"] == "embedding_needs" and "got 0" in needs["detail"]
    for seed in range(7):
        learn(served, made, seed=seed)
    problem_of(served.post(path, json={"method": "turned"}), 409, "too_many_embeddings")


def test_the_methods_of_this_repository_give_one(served: TestClient, made: str) -> None:
    quick = {name: card.quick for name, card in installed().items() if card.role == "embedding" and name != "turned"}
    assert len(quick) >= 2
    for name, params in quick.items():
        body = {"method": name, "params": params}
        answer = served.post(f"/v1/collections/{made}/embeddings", json=body, params={"wait": 60}).json()
        assert answer["state"] == "succeeded", answer
        version = answer["result"]["version"]
        activate(served, made, version, force=True)
        assert nearest(served, made, part(1), k=1)["results"][0][0]["id"] == "n1"
        assert asked(served, made, [QUERY])["fingerprint"] == answer["result"]["fingerprint"]
