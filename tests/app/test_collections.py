"""PUT, GET, PATCH, DELETE of collections."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.clock import utc_now
from app.collections import service
from app.collections.settings import CollectionSettings
from app.db.tables import CollectionRow, EmbeddingRow
from app.main import create_app
from app.settings import Settings
from models.backbones.loader import EmbeddingSpec, load_embedder
from tests.app.conftest import Serve
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

C = "/v1/collections/c"


def test_a_put_shows_every_setting_with_its_default_and_repeating_it_changes_nothing(client: TestClient) -> None:
    made = client.put(C)
    assert made.status_code == 201
    shown = made.json()
    assert shown.items() >= {
        "name": "c", "backbone": "resnet18", "weights": "stand-in", "weights_label": "stand-in", "metric": "cosine",
        "k": 2, "neighbours": 3, "false_alarm_rate": 0.01, "images": 0, "revision": 0, "image_size": 32,
        "pooling": "mean",
    }.items()  # fmt: skip
    assert set(CollectionSettings.model_fields) <= shown.keys()
    assert len(shown["fingerprint"]) == 64
    again = client.put(C)
    assert again.status_code == 200 and again.json() == shown and again.headers["etag"] == made.headers["etag"]
    with_body = client.put(C, json={"metric": "cosine", "k": 2})
    assert with_body.status_code == 200 and with_body.json() == shown
    assert client.get(C).json() == shown and client.get(C).headers["etag"] == made.headers["etag"]


def test_a_put_of_an_existing_collection_changes_what_is_given_and_nothing_else(client: TestClient) -> None:
    client.put(C, json={"metric": "l2", "k": 5})
    changed = client.put(C, json={"neighbours": 7}).json()
    assert (changed["metric"], changed["k"], changed["neighbours"], changed["revision"]) == ("l2", 5, 7, 1)


def test_counts_and_revision_follow_the_images(client: TestClient) -> None:
    add(client, "c", {"a": png(1), "b": png(2)})
    add(client, "c", {"d": png(3)}, role="anomalous")
    shown = client.get(C).json()
    assert shown["images"] == 3 and shown["revision"] == 2
    assert shown["roles"] == {"normal": 2, "anomalous": 1, "unlabelled": 0, "example": 0}


def test_scores_follow_the_settings_at_once(client: TestClient) -> None:
    add(client, "c", {f"n{number}": png(number) for number in range(12)})

    def score() -> dict:
        answer = client.post(f"{C}/anomaly", content=png(99), headers={"content-type": "image/png"})
        return answer.json()

    cosine = score()
    client.patch(C, json={"metric": "l2"}).raise_for_status()
    euclidean = score()
    assert (cosine["metric"], euclidean["metric"]) == ("cosine", "l2")
    assert cosine["results"][0]["score"] != euclidean["results"][0]["score"]
    client.patch(C, json={"k": 5, "neighbours": 1, "false_alarm_rate": 0.25}).raise_for_status()
    wider = score()
    assert wider["k"] == 5 and len(wider["results"][0]["neighbours"]) == 1
    assert wider["calibration"]["requested"] == 0.25 and wider["results"][0]["score"] > euclidean["results"][0]["score"]
    client.patch(C, json={"metric": "cosine", "k": 2, "neighbours": 3, "false_alarm_rate": 0.01})
    back = score()
    assert back.pop("sequence") > cosine.pop("sequence") and back == cosine


def test_what_the_embedding_is_cannot_change_while_there_are_images(client: TestClient) -> None:
    client.put(C)
    fingerprint = client.get(C).json()["fingerprint"]
    other = client.patch(C, json={"image_size": 64}).json()["fingerprint"]
    assert other != fingerprint  # nothing is stored yet
    assert client.patch(C, json={"image_size": 32}).json()["fingerprint"] == fingerprint
    add(client, "c", {"a": png(1)})
    before = client.get(C).json()
    for change in (
        {"image_size": 64},
        {"stages": [3, 4]},
        {"fit": "crop"},
        {"pooling": "sqrt_mean"},
        {"backbone": "resnet34"},
    ):
        for verb in ("PUT", "PATCH"):
            problem = problem_of(client.request(verb, C, json=change), 409, "embedding_fixed")
            assert next(iter(change)) in problem["detail"]
    assert client.get(C).json() == before
    assert client.patch(C, json={"image_size": 32, "k": 3}).status_code == 200  # the same is no change
    client.delete(f"{C}/images/a")
    assert client.patch(C, json={"image_size": 64}).status_code == 200


def test_a_collection_from_before_there_was_a_choice_of_pooling_keeps_to_averages(client: TestClient) -> None:
    add(client, "c", {f"n{number}": png(number) for number in range(12)})
    asked = {"content": png(99), "headers": {"content-type": "image/png"}}
    before, shown = client.post(f"{C}/anomaly", **asked).json(), client.get(C).json()
    core = client.app.state.core
    with core.database.write() as session:
        row = session.scalars(select(CollectionRow)).one()
        row.settings = {name: value for name, value in row.settings.items() if name != "pooling"}
        embedding = session.get_one(EmbeddingRow, row.embedding_id)
        embedding.specification = {name: one for name, one in embedding.specification.items() if name != "pooling"}
    core.shelf.drop("c")
    assert client.get(C).json() == shown and shown["pooling"] == "mean"
    assert client.post(f"{C}/anomaly", **asked).json() == before
    assert client.put(C).json() == shown
    add(client, "c", {"more": png(50)})


def test_new_collections_pool_as_the_server_is_set_to(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"pooling": "sqrt_mean"}))) as client:
        ours, other = client.put(C).json(), client.put(f"{C}2", json={"pooling": "mean"}).json()
        add(client, "c", {f"n{number}": png(number) for number in range(12)})
        add(client, "c2", {f"n{number}": png(number) for number in range(12)})
        asked = {"content": png(99), "headers": {"content-type": "image/png"}}
        scores = [client.post(f"{one}/anomaly", **asked).json()["results"][0]["score"] for one in (C, f"{C}2")]
    assert (ours["pooling"], other["pooling"]) == ("sqrt_mean", "mean") and scores[0] != scores[1]
    assert ours["embedding"]["pooling"] == "sqrt_mean" and ours["fingerprint"] != other["fingerprint"]


def test_images_embedded_for_another_embedding_are_never_stored(client: TestClient, monkeypatch) -> None:
    """The embedding changes between the moment a request computes its vectors and the moment it writes them."""
    client.put(C)
    core = client.app.state.core
    put = type(core.store).put

    def change_meanwhile(store, items) -> None:
        put(store, items)
        monkeypatch.undo()
        service.patch_collection(core, "c", {"image_size": 64}, None)

    monkeypatch.setattr(type(core.store), "put", change_meanwhile)
    answer = client.post(f"{C}/images", content=png(1), headers={"content-type": "image/png"})
    problem_of(answer, 409, "embedding_changed")
    assert client.get(C).json()["images"] == 0
    assert client.post(f"{C}/images", content=png(1), headers={"content-type": "image/png"}).status_code == 201


def test_if_match_lets_only_the_known_revision_change(client: TestClient) -> None:
    problem_of(client.put(C, headers={"if-match": '"1-0"'}), 412, "precondition_failed")
    tag = client.put(C).headers["etag"]
    changed = client.patch(C, json={"k": 3}, headers={"if-match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag
    for answer in (
        client.patch(C, json={"k": 4}, headers={"if-match": tag}),
        client.put(C, json={"k": 4}, headers={"if-match": tag}),
        client.delete(C, headers={"if-match": tag}),
    ):
        problem_of(answer, 412, "precondition_failed")
    assert client.get(C).json()["k"] == 3
    assert client.patch(C, json={"k": 4}, headers={"if-match": "*"}).status_code == 200
    now = client.get(C).headers["etag"]
    assert client.patch(C, json={"k": 5}, headers={"if-match": f"{tag}, {now}"}).status_code == 200
    assert client.delete(C, headers={"if-match": client.get(C).headers["etag"]}).status_code == 204


@pytest.mark.parametrize(
    "body",
    [
        {"metric": "hamming"},
        {"metric": None},
        {"k": 0},
        {"k": 65},
        {"k": 2.5},
        {"neighbours": -1},
        {"false_alarm_rate": 0},
        {"false_alarm_rate": 1},
        {"stages": []},
        {"stages": [5]},
        {"stages": [4, 3]},
        {"image_size": 31},
        {"fit": "stretch"},
        {"backbone": "vgg"},
        {"weights": "imagenet"},
        {"neighbors": 3},
        {"description": "x" * 5000},
        [],
        "text",
    ],
)
def test_wrong_settings_are_refused_and_nothing_is_made(shared: TestClient, body: object) -> None:
    problem_of(shared.put(C, json=body), 422)
    problem_of(shared.get(C), 404, "collection_unknown")


@pytest.mark.parametrize(
    "body", [b'{"false_alarm_rate": NaN}', b'{"false_alarm_rate": 1e999}', b"{", b'{"\\ud800": 1}']
)
def test_json_that_is_none_is_refused(shared: TestClient, body: bytes) -> None:
    problem_of(shared.put(C, content=body, headers={"content-type": "application/json"}), 422)


@pytest.mark.parametrize(
    "weights",
    [
        "file:../../etc/passwd",
        "file:/etc/passwd",
        "file:..",
        "file:.",
        "file:",
        "file:sub/x.safetensors",
        "file:" + "x" * 300,
        "file:a\0b",
        "../x",
    ],
)
def test_weights_name_a_file_in_the_weights_folder_or_nothing(shared: TestClient, weights: str) -> None:
    problem = problem_of(shared.put(C, json={"weights": weights}), 422)
    assert "root:" not in json.dumps(problem)


def test_weights_that_are_not_there_name_the_remedy(shared: TestClient) -> None:
    problem = problem_of(shared.put(C, json={"weights": "torchvision"}), 409, "weights_missing")
    assert "oddity weights fetch resnet18" in problem["detail"]
    problem_of(shared.put(C, json={"weights": "file:mine.safetensors"}), 409, "weights_missing")


def test_damaged_weights_are_ours_to_explain_and_not_to_publish(client: TestClient) -> None:
    folder = client.app.state.core.settings.data / "weights"
    folder.mkdir(exist_ok=True)
    (folder / "mine.safetensors").write_bytes(b"secret rubbish")
    problem = problem_of(client.put(C, json={"weights": "file:mine.safetensors"}), 500, "weights_damaged")
    assert "secret" not in problem["detail"] and "mine" not in problem["detail"]


def test_a_deleted_collection_is_gone_with_everything(client: TestClient) -> None:
    add(client, "c", {"a": png(1), "b": png(2)})
    client.put(f"{C}/groups/g", json={"ids": ["a", "b"]}).raise_for_status()
    assert client.delete(C).status_code == 204
    for answer in (client.get(C), client.delete(C), client.get(f"{C}/images"), client.get(f"{C}/groups")):
        problem_of(answer, 404, "collection_unknown")
    assert client.put(C).status_code == 201
    assert client.get(f"{C}/images").json()["images"] == [] and client.get(f"{C}/groups").json()["groups"] == []


def test_all_collections_in_order_of_name_page_by_page(client: TestClient) -> None:
    names = ["Ω", "b", "a", "B-2", "é"]
    for name in names:
        client.put(f"/v1/collections/{name}").raise_for_status()
    assert [one["name"] for one in client.get("/v1/collections").json()["collections"]] == sorted(names)
    seen, cursor = [], ""
    while True:
        answer = client.get("/v1/collections", params={"limit": 2, "cursor": cursor}).json()
        seen += [one["name"] for one in answer["collections"]]
        if answer["next"] is None:
            break
        cursor = answer["next"]
    assert seen == sorted(names)


def test_puts_at_the_same_moment_all_succeed_and_one_makes_it(client: TestClient) -> None:
    client.put("/v1/collections/warm")
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.put(C, json={"k": 3}), range(8)))
    assert sorted(one.status_code for one in answers) == [200] * 7 + [201]
    assert len({one.json()["fingerprint"] for one in answers}) == 1


def test_a_setting_that_came_with_an_upgrade_does_not_lock_old_collections(client: TestClient) -> None:
    client.put(C)
    with client.app.state.core.database.write() as session:
        row = session.query(CollectionRow).one()
        row.settings = {name: value for name, value in row.settings.items() if name != "description"}
        row.updated_at = utc_now()
    assert client.patch(C, json={"k": 4}).json()["k"] == 4


def test_the_operators_own_weights_may_lie_anywhere(serve: Serve, tmp_path) -> None:
    with serve(weights=f"file:{tmp_path}/mine.safetensors") as client:
        problem = problem_of(client.put(C), 409, "weights_missing")  # looked for, not refused for its path
        assert "mine.safetensors" in problem["detail"]


def test_the_kept_embedder_of_these_tests_is_the_loaded_one(client: TestClient, settings) -> None:
    """The fixture that keeps embedders must not hide what loading one anew would give."""
    fresh = load_embedder(
        EmbeddingSpec(weights="stand-in", image_size=32), weights_folder=settings.data / "weights", threads=1
    )
    assert client.put(C).json()["fingerprint"] == fresh.identity.fingerprint
