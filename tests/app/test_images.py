"""Adding, showing, changing and deleting images over HTTP."""

import base64
import hashlib
import io
import json

import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.images import service
from tests.app.conftest import Serve
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

PATH = "/v1/collections/c/images"
A, B, C = png(1), png(2), png(3)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files(*images: bytes) -> list:
    return [("files", (f"{place}.png", data, "image/png")) for place, data in enumerate(images)]


def post(client: TestClient, *images: bytes, items: object = None, status: int = 201, **parameters: object) -> dict:
    client.put("/v1/collections/c").raise_for_status()
    data = {} if items is None else {"items": json.dumps(items)}
    answer = client.post(PATH, files=files(*images), data=data, params=parameters)
    assert answer.status_code == status, answer.text
    return answer.json()


def statuses(answer: dict) -> list[str]:
    return [one["status"] for one in answer["items"]]


def listed(client: TestClient, **parameters: object) -> list[str]:
    answer = client.get(PATH, params=parameters)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["images"]]


def test_the_default_id_is_the_hash_and_the_file_name_goes_to_the_metadata(client: TestClient) -> None:
    answer = post(client, A, B)
    assert answer["items"] == [{"id": sha(one), "status": "created", "sha256": sha(one)} for one in (A, B)]
    assert (answer["created"], answer["updated"], answer["duplicate"], answer["refused"]) == (2, 0, 0, 0)
    shown = client.get(f"{PATH}/{sha(B)}").json()
    assert shown["metadata"] == {"filename": "1.png"}
    assert (shown["role"], shown["label"], shown["group"]) == ("normal", None, None)
    assert (shown["format"], shown["width"], shown["height"], shown["bytes"]) == ("PNG", 32, 32, len(B))
    assert client.get(f"{PATH}/{sha(B)}/content").content == B


def test_created_updated_duplicate_refused_are_counted_apart(client: TestClient) -> None:
    post(client, A, B, items=[{"id": "a"}, {"id": "b"}])
    answer = post(
        client, A, C, png(4), b"rubbish", items=[{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "d"}], status=207
    )
    assert statuses(answer) == ["duplicate", "updated", "created", "refused"]
    assert (answer["created"], answer["updated"], answer["duplicate"], answer["refused"]) == (1, 1, 1, 1)
    assert answer["items"][3]["problem"]["code"] == "image_unreadable"
    assert all("problem" not in one for one in answer["items"][:3])
    assert listed(client) == ["a", "b", "c"]
    assert client.get(f"{PATH}/b/content").content == C


def test_insert_only_replaces_nothing(client: TestClient) -> None:
    post(client, A, items=[{"id": "a"}])
    answer = post(client, B, C, A, items=[{"id": "a"}, {"id": "c"}, {"id": "a"}], status=207, mode="insert_only")
    assert statuses(answer) == ["refused", "created", "duplicate"]
    assert answer["items"][0]["problem"] | {"detail": ""} == {"code": "image_exists", "status": 409, "detail": ""}
    assert client.get(f"{PATH}/a/content").content == A


def test_the_same_bytes_with_new_facts_are_an_update_and_facts_not_given_stay(client: TestClient) -> None:
    post(client, A, items=[{"id": "a", "role": "anomalous", "label": "scratch", "metadata": {"line": 1}}])
    assert statuses(post(client, A, items=[{"id": "a"}])) == ["duplicate"]
    assert client.get(f"{PATH}/a").json()["role"] == "anomalous"  # sending it again never makes a defect normal
    assert statuses(post(client, A, items=[{"id": "a", "metadata": {"line": 2}}])) == ["updated"]
    assert statuses(post(client, A, items=[{"id": "a", "group": "g"}], mode="insert_only")) == ["duplicate"]
    shown = client.get(f"{PATH}/a").json()
    assert (shown["metadata"]["line"], shown["label"], shown["group"], shown["role"]) == (
        2,
        "scratch",
        None,
        "anomalous",
    )


def test_parameters_for_all_files_and_items_for_one(client: TestClient) -> None:
    post(
        client,
        A,
        B,
        items=[{"id": "a"}, {"id": "b", "role": "example", "label": "own"}],
        role="unlabelled",
        label="all",
    )
    shown = {one["id"]: (one["role"], one["label"]) for one in client.get(PATH).json()["images"]}
    assert shown == {"a": ("unlabelled", "all"), "b": ("example", "own")}


def test_an_id_sent_twice_in_one_request_ends_with_the_last_bytes(client: TestClient) -> None:
    assert statuses(post(client, A, B, A, items=[{"id": "x"}] * 3)) == ["created", "updated", "updated"]
    assert client.get(f"{PATH}/x/content").content == A
    # What is stored when the request begins is replaced by its first file, and brought back by its second.
    assert statuses(post(client, B, A, items=[{"id": "x"}] * 2)) == ["updated", "updated"]
    assert client.get(f"{PATH}/x/content").content == A
    assert statuses(post(client, A, A)) == ["created", "duplicate"]
    found = client.post("/v1/collections/c/query", json={"id": "x", "k": 5}).json()["results"][0]
    assert [one["id"] for one in found] == [sha(A)] and found[0]["distance"] == pytest.approx(0, abs=1e-5)


def test_a_bad_item_is_refused_in_its_place_and_the_others_are_stored(client: TestClient) -> None:
    items = [
        {"id": "a/b"},
        {"id": "good", "metadata": {"deep": {"er": [1, 2.5, None, True, "é"]}}},
        {"id": "x", "role": "weird"},
        {"id": "y", "colour": "red"},
        {"id": 7},
        {"id": "z", "metadata": [1]},
        {"id": "big", "metadata": {"text": "x" * 70_000}},
    ]
    answer = post(client, *[png(number) for number in range(7)], items=items, status=207)
    assert statuses(answer) == ["refused", "created"] + ["refused"] * 5
    codes = [one["problem"]["code"] for one in answer["items"] if "problem" in one]
    assert codes == ["item_invalid"] * 5 + ["metadata_too_large"]
    assert listed(client) == ["good"]
    assert client.get(f"{PATH}/good").json()["metadata"]["deep"] == items[1]["metadata"]["deep"]


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([{"id": "a"}], "items_mismatch"),
        ([], "items_mismatch"),
        ({"id": "a"}, "invalid"),
        (["a", "b"], "invalid"),
        ("[{", "invalid"),
        ('[{"metadata": {"x": NaN}}, {}]', "invalid"),
        ('[{"metadata": {"x": 1e999}}, {}]', "invalid"),
        ('[{"metadata": {"x": "\\ud800"}}, {}]', "invalid"),
        ('[{"id": "\\ud800"}, {}]', "invalid"),
        ("[" * 100_000, "invalid"),
        ('[{"metadata": {"x": ' + "[" * 100 + "]" * 100 + "}}, {}]", "invalid"),
    ],
)
def test_items_that_do_not_fit_the_files_store_nothing(shared: TestClient, items: object, code: str) -> None:
    shared.put("/v1/collections/empty")
    text = items if isinstance(items, str) else json.dumps(items)
    problem_of(shared.post("/v1/collections/empty/images", files=files(A, B), data={"items": text}), 422, code)
    assert shared.get("/v1/collections/empty").json()["images"] == 0


def test_raw_and_json_bodies(client: TestClient) -> None:
    client.put("/v1/collections/c")
    assert client.post(PATH, content=A, headers={"content-type": "image/png"}).status_code == 201
    images = [
        {"content": base64.b64encode(B).decode(), "id": "b", "filename": "b.png", "metadata": {"n": 1}},
        base64.b64encode(C).decode(),
    ]
    answer = client.post(PATH, json={"images": images, "role": "example"})
    assert answer.status_code == 201 and [one["id"] for one in answer.json()["items"]] == ["b", sha(C)]
    assert client.get(f"{PATH}/b").json()["metadata"] == {"n": 1, "filename": "b.png"}
    assert listed(client, role="example") == ["b", sha(C)]
    assert client.get(f"{PATH}/{sha(A)}").json()["metadata"] == {}


def test_a_file_name_cannot_smuggle_in_more_than_metadata_may_hold(client: TestClient) -> None:
    client.put("/v1/collections/c")
    images = [{"content": base64.b64encode(A).decode(), "filename": "x" * 100_000}]
    answer = client.post(PATH, json={"images": images})
    assert answer.status_code == 207 and answer.json()["items"][0]["problem"]["code"] == "metadata_too_large"


def test_no_image_at_all(client: TestClient) -> None:
    client.put("/v1/collections/c")
    problem_of(client.post(PATH, json={}), 422, "no_images")
    problem_of(client.post(PATH), 422, "no_images")
    problem_of(client.post(PATH, content=b"", headers={"content-type": "image/png"}), 422, "body_empty")
    answer = client.post(PATH, files=files(b""))
    assert answer.status_code == 207 and answer.json()["items"][0]["problem"]["code"] == "image_unreadable"


def test_pages_hold_every_image_once_in_order_of_arrival(client: TestClient) -> None:
    names = [f"n{number}" for number in range(11)]
    post(client, *[png(number) for number in range(11)], items=[{"id": one} for one in names])
    seen, cursor = [], ""
    for _ in range(20):
        answer = client.get(PATH, params={"limit": 3, "cursor": cursor}).json()
        assert len(answer["images"]) <= 3
        seen += [one["id"] for one in answer["images"]]
        if answer["next"] is None:
            break
        cursor = answer["next"]
    assert seen == names
    assert client.get(PATH, params={"limit": 11}).json()["next"] is None


def test_a_long_look_for_few_images_is_answered_in_parts(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    post(client, *(png(number) for number in range(7)), items=[{"metadata": {"n": number}} for number in range(7)])
    monkeypatch.setattr(service, "MAX_LIMIT", 2)
    monkeypatch.setattr(service, "LOOK_S", -1.0)
    found, pages, cursor = [], 0, ""
    while cursor is not None:
        page = client.get(PATH, params={"filter": '{"n": 5}', "cursor": cursor}).json()
        found += [one["metadata"]["n"] for one in page["images"]]
        cursor, pages = page["next"], pages + 1
    assert (found, pages) == ([5], 4)


def test_a_list_is_filtered_by_role_label_group_and_metadata(client: TestClient) -> None:
    items = [
        {"id": f"n{number}", "role": "anomalous" if number % 2 else "normal", "label": f"l{number % 3}", "group": "g"}
        | {"metadata": {"number": number}}
        for number in range(9)
    ]
    post(client, *[png(number) for number in range(9)], items=items)
    assert listed(client, role="anomalous") == ["n1", "n3", "n5", "n7"]
    assert listed(client, role="anomalous", label="l1") == ["n1", "n7"]
    assert listed(client, group="g", limit=2) == ["n0", "n1"] and listed(client, group="other") == []
    wanted = json.dumps({"must": [{"key": "number", "range": {"gte": 6}}]})
    assert listed(client, filter=wanted) == ["n6", "n7", "n8"]
    assert listed(client, filter=wanted, role="normal") == ["n6", "n8"]
    first = client.get(PATH, params={"filter": wanted, "limit": 2}).json()
    assert [one["id"] for one in first["images"]] == ["n6", "n7"]
    assert listed(client, filter=wanted, cursor=first["next"]) == ["n8"]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "cursor=-1",
        "cursor=x",
        "cursor=9999999999999999999",
        "role=odd",
        "label=a%2Fb",
        "filter=%7B",
        "filter=%5B%5D",
        "rol=normal",
    ],
)
def test_a_list_refuses_what_it_does_not_know(shared: TestClient, query: str) -> None:
    shared.put("/v1/collections/c")
    problem_of(shared.get(f"{PATH}?{query}"), 422)


def test_a_change_merges_metadata_and_clears_with_null(client: TestClient) -> None:
    post(client, A, items=[{"id": "a", "label": "l", "group": "g", "metadata": {"x": 1, "y": {"z": 2, "w": 3}}}])
    patch = {"metadata": {"x": None, "y": {"z": 5}, "n": [1]}, "label": None}
    answer = client.patch(f"{PATH}/a", json=patch)
    assert answer.status_code == 200
    assert answer.json()["metadata"] == {"filename": "0.png", "y": {"z": 5, "w": 3}, "n": [1]}
    assert (answer.json()["label"], answer.json()["group"]) == (None, "g")
    assert client.get(f"{PATH}/a").json() == answer.json()
    assert client.patch(f"{PATH}/a", json={"metadata": None}).json()["metadata"] == {}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 422),
        (b'{"role": null}', 422),
        (b'{"role": "x"}', 422),
        (b'{"id": "b"}', 422),
        (b'{"metadata": {"x": NaN}}', 422),
        (b'{"metadata": {"x": -Infinity}}', 422),
        (b'{"metadata": {"x": 1e999}}', 422),
        (b'{"metadata": {"\\udfff": 1}}', 422),
        (b'{"\\udfff": 1}', 422),
        (b'{"metadata": {"x": "' + b"y" * 70_000 + b'"}}', 413),
        (b"[]", 422),
        (b"{", 422),
        (b"", 422),
        (b'{"metadata":' + b"[" * 100_000, 400),
    ],
)
def test_a_change_that_cannot_be_made_changes_nothing(shared: TestClient, body: bytes, status: int) -> None:
    post(shared, A, items=[{"id": "a"}])
    before = shared.get(f"{PATH}/a").json()
    problem_of(shared.patch(f"{PATH}/a", content=body, headers={"content-type": "application/json"}), status)
    assert shared.get(f"{PATH}/a").json() == before


def test_unknown_images_and_collections(client: TestClient) -> None:
    problem_of(client.post(PATH, files=files(A)), 404, "collection_unknown")
    problem_of(client.get(PATH), 404, "collection_unknown")
    client.put("/v1/collections/c")
    for answer in (
        client.get(f"{PATH}/nobody"),
        client.get(f"{PATH}/nobody/content"),
        client.get(f"{PATH}/nobody/thumbnail"),
        client.patch(f"{PATH}/nobody", json={"role": "normal"}),
        client.delete(f"{PATH}/nobody"),
    ):
        problem_of(answer, 404, "image_unknown")


def test_content_is_served_so_that_no_browser_runs_it(client: TestClient) -> None:
    post(client, A, items=[{"id": "a"}])
    answer = client.get(f"{PATH}/a/content")
    assert answer.headers["content-type"] == "image/png" and answer.headers["etag"] == f'"{sha(A)}"'
    assert (
        answer.headers["x-content-type-options"] == "nosniff" and "sandbox" in answer.headers["content-security-policy"]
    )


def test_a_thumbnail_is_small_upright_and_follows_the_bytes(client: TestClient) -> None:
    wide, high = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (800, 400), (200, 30, 30)).save(wide, "PNG")
    Image.new("RGB", (100, 200), (30, 30, 200)).save(high, "PNG")
    post(client, wide.getvalue(), items=[{"id": "a"}])
    for _ in range(2):  # made, then kept
        thumbnail = Image.open(io.BytesIO(client.get(f"{PATH}/a/thumbnail").content))
        assert thumbnail.size == (256, 128)
    post(client, high.getvalue(), items=[{"id": "a"}])
    assert Image.open(io.BytesIO(client.get(f"{PATH}/a/thumbnail").content)).size == (100, 200)


def test_delete_by_ids_filter_role_label_group(client: TestClient) -> None:
    items = [
        {
            "id": f"n{number}",
            "role": "example" if number == 0 else "normal",
            "label": f"l{number % 2}",
            "group": f"g{number}",
        }
        | {"metadata": {"number": number}}
        for number in range(8)
    ]
    post(client, *[png(number) for number in range(8)], items=items)

    def delete(**selection: object) -> tuple[int, list[str]]:
        answer = client.post(f"{PATH}/delete", json=selection)
        assert answer.status_code == 200, answer.text
        return answer.json()["deleted"], answer.json()["missing"]

    assert delete(ids=["n7", "n7", "nobody"]) == (1, ["nobody"])
    assert delete(role="example") == (1, [])
    assert delete(group="g1") == (1, [])
    assert delete(filter={"must": [{"key": "number", "range": {"lt": 3}}]}) == (1, [])
    assert delete(label="l1", filter={"must_not": [{"key": "number", "match": 3}]}) == (1, [])
    assert delete(ids=[]) == (0, [])
    assert listed(client) == ["n3", "n4", "n6"]


@pytest.mark.parametrize(
    "body", [{}, {"filter": {}}, {"filter": {"must": []}}, {"filter": None}, {"id": "a"}, {"ids": "a"}]
)
def test_a_delete_that_names_nothing_deletes_nothing(shared: TestClient, body: object) -> None:
    post(shared, A, items=[{"id": "a"}])
    problem_of(shared.post(f"{PATH}/delete", json=body), 422)
    assert listed(shared) == ["a"]


def test_a_write_is_seen_by_the_next_request_of_another_process(serve: Serve) -> None:
    """Two applications on one folder, as two server processes would be."""
    with serve() as one, serve() as other:
        add(one, "c", {"a": A, "b": B})
        assert listed(other) == ["a", "b"]
        found = other.post("/v1/collections/c/query", json={"id": "a"}).json()
        assert [near["id"] for near in found["results"][0]] == ["b"]
        add(other, "c", {"c": C})
        assert one.post("/v1/collections/c/query", json={"id": "a", "k": 9}).json()["sequence"] == 2
        one.delete(f"{PATH}/b")
        found = other.post("/v1/collections/c/query", json={"id": "a"}).json()
        assert [near["id"] for near in found["results"][0]] == ["c"]
        other.patch(f"{PATH}/c", json={"role": "anomalous"})
        answer = one.post("/v1/collections/c/anomaly", json={"ids": ["c"], "neighbours": 9}).json()
        assert [near["id"] for near in answer["results"][0]["neighbours"]] == ["a"]


def test_a_collection_made_again_is_not_taken_for_the_old_one(serve: Serve) -> None:
    """The other process knows the old one at the very same sequence number."""
    with serve() as one, serve() as other:
        add(one, "c", {"a": A, "b": B})
        assert len(other.post("/v1/collections/c/query", json={"id": "a"}).json()["results"][0]) == 1
        assert one.delete("/v1/collections/c").status_code == 204
        problem_of(other.get("/v1/collections/c"), 404, "collection_unknown")
        add(one, "c", {"x": C, "y": A, "z": B})
        found = other.post("/v1/collections/c/query", json={"id": "x"}).json()["results"][0]
        assert sorted(near["id"] for near in found) == ["y", "z"]
        one.delete(f"{PATH}/z")
        add(one, "c", {"z": C})
        found = other.post("/v1/collections/c/query", json={"id": "x"}).json()["results"][0]
        assert found[0]["id"] == "z" and found[0]["distance"] == pytest.approx(0, abs=1e-5)


def test_everything_is_there_after_a_restart(serve: Serve) -> None:
    with serve() as client:
        post(client, A, B, items=[{"id": "a", "metadata": {"x": 1}}, {"id": "b", "role": "anomalous"}])
        before = client.get(PATH).json()
        score = client.post("/v1/collections/c/anomaly", files=files(C)).json()
    with serve() as client:
        assert client.get(PATH).json() == before
        assert client.post("/v1/collections/c/anomaly", files=files(C)).json() == score


@pytest.mark.parametrize(
    ("name", "limit"), [("image_limit_bytes", 1500), ("image_limit_pixels", 1024), ("image_limit_side_pixels", 63)]
)
def test_an_image_over_a_limit_is_refused_in_its_place(serve: Serve, name: str, limit: int) -> None:
    with serve(**{name: limit}) as client:
        small = png(1, side=16)
        answer = post(client, small, png(2, side=64), status=207)
        assert statuses(answer) == ["created", "refused"]
        assert answer["items"][1]["problem"]["code"] == "image_too_large"
        assert answer["items"][1]["problem"]["status"] == 413
