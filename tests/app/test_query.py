"""POST /query: nearest by image, id, vector or examples."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.collection_state import CollectionState
from app.db.tables import ImageRow, VectorRow
from app.limits import Slots
from app.main import create_app
from app.settings import Settings
from index import Neighbours
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

IMAGES = {f"n{number:02}": png(number) for number in range(24)}
ROLES = {"d1": ("anomalous", png(501)), "u1": ("unlabelled", png(502)), "e1": ("example", png(503))}
METRICS = ("cosine", "l2")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Images of every role under both metrics. Tests that use it must not write."""
    settings = Settings(data=tmp_path_factory.mktemp("bank"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for metric in METRICS:
            client.put(f"/v1/collections/{metric}", json={"metric": metric}).raise_for_status()
            add(client, metric, IMAGES)
            for name, (role, data) in ROLES.items():
                add(client, metric, {name: data}, role=role)
        yield client


def stored(client: TestClient) -> dict[str, np.ndarray]:
    with client.app.state.core.database.read() as session:
        statement = select(ImageRow.image_id, VectorRow.vector).join(VectorRow, VectorRow.image_pk == ImageRow.id)
        rows = session.execute(statement.where(ImageRow.collection_id == 1).order_by(ImageRow.id)).all()
    return {name: np.frombuffer(blob, "<f4").astype(np.float64) for name, blob in rows}


def distance(one: np.ndarray, other: np.ndarray, metric: str) -> float:
    if metric == "l2":
        return float(np.linalg.norm(one - other))
    return float(1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def expected(client: TestClient, vector: np.ndarray, metric: str, leave: set[str], k: int) -> list[tuple[str, float]]:
    far = [(name, distance(vector, row, metric)) for name, row in stored(client).items() if name not in leave]
    return sorted(far, key=lambda pair: pair[1])[:k]


def ask(client: TestClient, metric: str = "l2", **body: object) -> dict:
    answer = client.post(f"/v1/collections/{metric}/query", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def same(found: list[dict], wanted: list[tuple[str, float]]) -> None:
    assert [one["id"] for one in found] == [name for name, _ in wanted]
    np.testing.assert_allclose([one["distance"] for one in found], [far for _, far in wanted], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_nearest_to_a_stored_image_itself_left_out_and_all_roles_found(bank: TestClient, metric: str) -> None:
    rows = stored(bank)
    for name in ("n00", "d1", "e1"):
        answer = ask(bank, metric, id=name, k=26)
        same(answer["results"][0], expected(bank, rows[name], metric, {name}, 26))
        assert {one["id"] for one in answer["results"][0]} == set(rows) - {name}
    assert answer["metric"] == metric and answer["weights"] == "stand-in"


def test_requests_that_meet_are_searched_together_and_answered_as_alone(
    bank: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row.tolist() for row in stored(bank).values()]
    asked = [
        {"vector": rows[3]},
        {"vector": rows[5], "max_distance": 0.2},
        {"id": "n04", "k": 2},
        {"id": "nobody", "k": 2},
        {"id": "d1", "k": 2},
        {"positive": ["n01", "n02"], "negative": ["d1"]},
        {"vectors": rows[:3]},
        {"ids": ["n06", "d1"]},
    ]
    alone = [bank.post("/v1/collections/l2/query", json={"k": 3, **one}) for one in asked]
    assert [one.status_code for one in alone] == [200, 200, 200, 404, 200, 200, 200, 200]
    monkeypatch.setattr(Slots, "are_shared", True)
    combiner, sizes, nearest = bank.app.state.slots._combiner, [], CollectionState.nearest

    def held(self: CollectionState, vectors: np.ndarray, *given: object, **named: object) -> Neighbours:
        sizes.append(len(vectors))
        if len(sizes) == 1:
            while max(map(len, list(combiner._lines.values()))) < 5:
                time.sleep(0.001)  # until those who look for three stand in line
        return nearest(self, vectors, *given, **named)

    monkeypatch.setattr(CollectionState, "nearest", held)
    first = threading.Thread(target=ask, args=(bank,), kwargs={"k": 3, "vector": rows[0]})
    first.start()
    while not sizes:
        time.sleep(0.001)
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(lambda one: bank.post("/v1/collections/l2/query", json={"k": 3, **one}), asked))
    first.join()
    for one, other in zip(together, alone, strict=True):
        assert one.status_code == other.status_code
        assert one.json() == other.json() or one.json()["code"] == "image_unknown"
    # Two vectors and two stored images look for three, the examples for six, and the last two come by themselves.
    assert sizes[0] == 1 and sorted(sizes[1:]) == [1, 2, 3, 4]


@pytest.mark.parametrize("metric", METRICS)
def test_nearest_to_a_vector_and_to_several(bank: TestClient, metric: str) -> None:
    rows = stored(bank)
    vectors = [np.float32(0.7 * rows["n01"] + 0.3 * rows["n02"]), np.float32(rows["n03"])]
    one = ask(bank, metric, vector=vectors[0].tolist(), k=5)["results"]
    same(one[0], expected(bank, vectors[0].astype(np.float64), metric, set(), 5))
    both = ask(bank, metric, vectors=[vector.tolist() for vector in vectors], k=5)["results"]
    assert both[0] == one[0] and both[1][0]["id"] == "n03"
    assert both[1][0]["distance"] == pytest.approx(0, abs=1e-6)


def test_several_ids_are_several_queries_in_order_and_an_unknown_one_is_a_problem_in_its_place(
    bank: TestClient,
) -> None:
    answer = ask(bank, ids=["n05", "n01"], k=3)
    assert answer["results"] == [ask(bank, id=one, k=3)["results"][0] for one in ("n05", "n01")]
    mixed = bank.post("/v1/collections/l2/query", json={"ids": ["n05", "nobody", "n01"], "k": 3})
    assert mixed.status_code == 207
    results = mixed.json()["results"]
    assert [results[0], results[2]] == answer["results"] and results[1]["problem"]["code"] == "image_unknown"
    problem_of(bank.post("/v1/collections/l2/query", json={"id": "nobody"}), 404, "image_unknown")
    problem_of(bank.post("/v1/collections/l2/query", json={"positive": ["n01", "nobody"]}), 404, "image_unknown")


@pytest.mark.parametrize("metric", METRICS)
def test_examples_for_and_against(bank: TestClient, metric: str) -> None:
    rows = stored(bank)
    if metric == "cosine":
        rows = {name: row / np.linalg.norm(row) for name, row in rows.items()}
    wanted = (rows["n01"] + rows["n02"]) / 2
    answer = ask(bank, metric, positive=["n01", "n02"], k=6)
    same(answer["results"][0], expected(bank, wanted, metric, {"n01", "n02"}, 6))
    against = 2 * wanted - rows["n03"]
    answer = ask(bank, metric, positive=["n01", "n02"], negative=["n03"], k=6)
    same(answer["results"][0], expected(bank, against, metric, {"n01", "n02", "n03"}, 6))


def test_a_file_finds_its_stored_self_and_a_bad_file_has_its_problem_in_place(bank: TestClient) -> None:
    files = [("files", ("a.png", IMAGES["n07"])), ("files", ("b.png", b"rubbish")), ("files", ("c.png", IMAGES["n09"]))]
    answer = bank.post("/v1/collections/l2/query?k=2", files=files)
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert (results[0][0]["id"], results[2][0]["id"]) == ("n07", "n09")
    assert results[0][0]["metadata"] == {"filename": "n07.png"}
    assert results[1]["problem"]["code"] == "image_unreadable"
    text = base64.b64encode(IMAGES["n07"]).decode()
    near = ask(bank, images=[text], k=2)["results"][0]
    assert [one["id"] for one in near] == [one["id"] for one in results[0]]
    raw = bank.post("/v1/collections/l2/query?k=2", content=IMAGES["n07"], headers={"content-type": "image/png"})
    assert raw.json()["results"][0] == near


def test_max_distance_cuts_and_includes_its_border(bank: TestClient) -> None:
    found = ask(bank, id="n00", k=10)["results"][0]
    border = found[4]["distance"]
    assert ask(bank, id="n00", k=10, max_distance=border)["results"][0] == found[:5]
    assert ask(bank, id="n00", k=10, max_distance=0)["results"][0] == []


def test_k_larger_than_the_collection_gives_all_there_is(bank: TestClient) -> None:
    assert len(ask(bank, id="n00", k=1000)["results"][0]) == 26
    assert len(ask(bank, id="n00")["results"][0]) == 10


def test_a_batch_answers_as_each_alone(bank: TestClient) -> None:
    ids = list(IMAGES)[:16]
    assert ask(bank, ids=ids)["results"] == [ask(bank, id=one)["results"][0] for one in ids]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "query_ambiguous"),
        ({"id": "n01", "ids": ["n02"]}, "query_ambiguous"),
        ({"id": "n01", "vector": [0.0]}, "query_ambiguous"),
        ({"negative": ["n01"]}, "query_ambiguous"),
        ({"positive": []}, "query_ambiguous"),
        ({"images": ["aGk="], "id": "n01"}, "query_ambiguous"),
        ({"vector": [1.0, 2.0]}, "width_mismatch"),
        ({"vectors": [[]]}, "width_mismatch"),
        ({"vector": [1e300] * 512}, "not_finite"),
        ({"vector": [3e38] * 512}, "not_finite"),
        ({"vector": "x"}, "invalid"),
        ({"vector": [None]}, "invalid"),
        ({"id": "n01", "k": 0}, "invalid"),
        ({"id": "n01", "k": 1001}, "invalid"),
        ({"id": "n01", "max_distance": -1}, "invalid"),
        ({"ids": ["n01"] * 101, "k": 1000}, "too_many_results"),
        ({"vectors": [[0.0]] * 1000, "k": 101}, "too_many_results"),
        ({"id": "n01", "limit": 3}, "invalid"),
        ({"id": "a/b"}, "invalid"),
        ({"id": "n01", "filter": {"must": [{"key": "x"}]}}, "filter_invalid"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(bank: TestClient, body: dict, code: str) -> None:
    problem_of(bank.post("/v1/collections/l2/query", json=body), 422, code)


@pytest.mark.parametrize("text", ["[NaN]", "[1e999]", "[Infinity]"])
def test_a_vector_that_is_no_number_is_refused(bank: TestClient, text: str) -> None:
    body = f'{{"vector": {text}}}'.encode()
    headers = {"content-type": "application/json"}
    problem_of(bank.post("/v1/collections/l2/query", content=body, headers=headers), 422)
    problem_of(bank.post("/v1/collections/l2/query", params={"vector": text}), 422)


def test_parameters_in_a_form_are_json_text(bank: TestClient) -> None:
    rows = stored(bank)
    text = json.dumps(np.float32(rows["n03"]).tolist())
    by_query = bank.post("/v1/collections/l2/query", params={"ids": '["n03"]', "k": 2})
    assert by_query.status_code == 200, by_query.text
    boundary = "-----x"
    parts = {"vector": text, "k": "3"}
    body = "".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts.items()
    )
    by_form = bank.post(
        "/v1/collections/l2/query",
        content=f"{body}--{boundary}--\r\n".encode(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    assert by_form.json()["results"][0][0]["id"] == "n03"
    assert [one["id"] for one in by_form.json()["results"][0][1:]] == [
        one["id"] for one in by_query.json()["results"][0]
    ]


def test_an_empty_collection_has_no_neighbours(client: TestClient) -> None:
    client.put("/v1/collections/c")
    answer = client.post("/v1/collections/c/query", json={"vector": [1.0] * 512})
    assert answer.status_code == 200 and answer.json()["results"] == [[]]
    answer = client.post("/v1/collections/c/query", content=png(1), headers={"content-type": "image/png"})
    assert answer.json()["results"] == [[]]


def test_a_deleted_image_is_found_no_more(client: TestClient) -> None:
    add(client, "c", dict(list(IMAGES.items())[:5]))
    first = client.post("/v1/collections/c/query", json={"id": "n00"}).json()["results"][0][0]["id"]
    client.delete(f"/v1/collections/c/images/{first}")
    found = client.post("/v1/collections/c/query", json={"id": "n00"}).json()["results"][0]
    assert len(found) == 3 and first not in [one["id"] for one in found]
