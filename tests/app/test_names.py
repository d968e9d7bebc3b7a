"""What callers may call things, also through percent-encoded paths."""

import json
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from app.names import valid_id, valid_name
from tests.conftest import png
from tests.contract.problem_shape import problem_of

IMAGES = "/v1/collections/c/images"
GOOD_NAMES = ["a", "A-1_b.c", "é", "Ω", "検査", "...", "-", "0", "x" * 128, "Ⅷ"]
BAD_NAMES = ["", ".", "..", "a b", "a/b", "a\\b", "a\n", "a\0", "x" * 129, "a%", "a:b", "\ud800", "\u202e", "😀", "a?b"]
GOOD_IDS = [
    "a",
    "a b",
    "é/".replace("/", "|"),
    "Ω\u00a0",
    "...",
    "-1",
    "a\\b",
    "%2e%2e",
    "😀",
    "x" * 256,
    "?#&=+;",
    "delete",
    "C:x",
]
BAD_IDS = ["", ".", "..", "a/b", "/", "../x", "a\n", "a\0b", "\x7f", "\x85", "\ud800", "x" * 257]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_good_name(name: str) -> None:
    assert valid_name(name) is name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name(name: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        valid_name(name)


@pytest.mark.parametrize("image_id", GOOD_IDS)
def test_a_good_id(image_id: str) -> None:
    assert valid_id(image_id) is image_id


@pytest.mark.parametrize("image_id", BAD_IDS)
def test_a_bad_id(image_id: str) -> None:
    with pytest.raises(ValueError, match="must"):
        valid_id(image_id)


def test_every_good_id_and_name_makes_the_round_trip(shared: TestClient) -> None:
    for place, name in enumerate(GOOD_NAMES):
        path = f"/v1/collections/{quote(name)}"
        assert shared.put(path).status_code == 201, name
        assert shared.get(path).json()["name"] == name
        assert shared.delete(path).status_code == 204, place
    shared.put("/v1/collections/c")
    ids = [one for one in GOOD_IDS if "%" not in one]  # this test client decodes a path twice; a server once
    for place, image_id in enumerate(ids):
        items = json.dumps([{"id": image_id}])
        answer = shared.post(IMAGES, files={"files": ("a.png", png(place, side=16))}, data={"items": items})
        assert answer.status_code == 201, answer.text
        path = f"{IMAGES}/{quote(image_id, safe='')}"
        assert shared.get(path).json()["id"] == image_id
        assert shared.get(f"{path}/content").content == png(place, side=16)
        assert shared.patch(path, json={"label": "l"}).json()["id"] == image_id
        found = shared.post("/v1/collections/c/query", json={"id": image_id})
        assert found.status_code == 200 and all(one["id"] != image_id for one in found.json()["results"][0])
    assert [one["id"] for one in shared.get(IMAGES).json()["images"]] == ids
    for image_id in ids:
        assert shared.delete(f"{IMAGES}/{quote(image_id, safe='')}").status_code == 204


@pytest.mark.parametrize("image_id", [one for one in BAD_IDS if one != "\ud800"])
def test_a_bad_id_is_refused_in_its_place(shared: TestClient, image_id: str) -> None:
    shared.put("/v1/collections/bad")
    items = json.dumps([{"id": image_id}])
    answer = shared.post("/v1/collections/bad/images", files={"files": ("a.png", png(1))}, data={"items": items})
    assert answer.status_code == 207, answer.text
    assert answer.json()["items"][0]["problem"]["code"] == "item_invalid"
    assert shared.get("/v1/collections/bad").json()["images"] == 0


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("%2e%2e", 422),
        ("%2e", 422),
        ("..%2f..%2foddity.db", 404),
        ("%2e%2e%2f%2e%2e%2foddity.db/content", 404),
        ("%00", 422),
        ("a%0ab", 422),
        ("%ff", 404),
        ("x" * 257, 422),
        ("%2e%2e/content", 422),
        ("%2e%2e/thumbnail", 422),
    ],
)
def test_a_percent_encoded_path_leads_nowhere(shared: TestClient, path: str, status: int) -> None:
    shared.put("/v1/collections/c")
    problem_of(shared.get(f"{IMAGES}/{path}"), status)


@pytest.mark.parametrize("name", ["a%20b", "a%00", "%2e%2e", "a:b", "x" * 129, "a%0a", "%F0%9F%98%80", "%25"])
def test_a_bad_collection_name_is_refused_by_every_verb(shared: TestClient, name: str) -> None:
    for verb in ("PUT", "GET", "PATCH", "DELETE"):
        problem_of(shared.request(verb, f"/v1/collections/{name}", json={}), 422, "invalid")
    for asked in ("anomaly", "query", "images"):
        refused = problem_of(shared.post(f"/v1/collections/{name}/{asked}", json={}), 422, "invalid")
        assert refused["errors"][0]["where"] == "path.c"
    shared.put("/v1/collections/c")
    problem_of(shared.put(f"/v1/collections/c/groups/{name}", json={"ids": ["a"]}), 422, "invalid")


@pytest.mark.parametrize("field", ["label", "group"])
def test_labels_and_groups_are_names(shared: TestClient, field: str) -> None:
    shared.put("/v1/collections/labels")
    path = "/v1/collections/labels/images"
    for name, is_good in (("Ω.1", True), ("a b", False), ("", False), ("x" * 129, False), ("..", False)):
        answer = shared.post(path, content=png(1), headers={"content-type": "image/png"}, params={field: name})
        assert answer.status_code == (201 if is_good else 422), (name, answer.text)
        items = json.dumps([{field: name}])
        answer = shared.post(path, files={"files": ("a.png", png(1))}, data={"items": items})
        assert answer.status_code == (201 if is_good else 207), (name, answer.text)
