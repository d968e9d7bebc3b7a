"""Duplicates: four levels that are never mixed, found in blocks, and told page by page."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import pdist, squareform
from starlette.testclient import TestClient

from app.core import Core
from app.duplicates import searching, service
from app.duplicates.searching import Pairs, close_pairs, sets_of
from app.jobs.runner import Runner
from app.jobs.service import cancel, get_job
from app.main import HANDLERS, create_app
from app.settings import Settings
from models.decoding.decoder import Decoder
from models.images import ImageLimits
from models.perceptual import hash_distance, perceptual_hash
from tests.app.working import core_of, finished
from tests.conftest import add
from tests.contract.problem_shape import problem_of

DECODER = Decoder(ImageLimits())


def scene(seed: int, side: int = 96) -> np.ndarray:
    """Pixels of a picture with large shapes: blocks of seeded colours, smoothly scaled up."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 255, (5, 5, 3), dtype=np.uint8))
    return np.asarray(small.resize((side, side), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), weights="stand-in", image_size=32, threads=2)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        images = {f"apart{number}": encoded(scene(number)) for number in range(12)}
        one, two = scene(100), scene(101)
        images.update({"bytes1": encoded(one), "bytes2": encoded(one), "pixels": encoded(one, compress_level=0)})
        images.update(
            {
                "packed": encoded(one, "JPEG", quality=75),
                "resized": encoded(np.asarray(Image.fromarray(one).resize((72, 72), Image.Resampling.BICUBIC))),
            }
        )
        images.update({"two": encoded(two), "two packed": encoded(two, "JPEG", quality=75)})
        add(client, "parts", images)
        yield client


def groups(result: dict[str, Any]) -> dict[str, list[set[str]]]:
    found: dict[str, list[set[str]]] = {}
    for one in result["groups"]:
        found.setdefault(one["level"], []).append({image["id"] for image in one["images"]})
    return found


def search(client: TestClient, **parameters: Any) -> dict[str, Any]:
    return finished(client, "/v1/collections/parts/duplicates", parameters)


def test_each_level_tells_only_its_own(client: TestClient) -> None:
    result = search(client)
    assert groups(result) == {
        "exact_bytes": [{"bytes1", "bytes2"}],
        "exact_pixels": [{"bytes1", "pixels"}],
        "near": [{"bytes1", "packed", "resized"}, {"two", "two packed"}],
    }
    assert result["levels"] == {
        "exact_bytes": {"groups": 1, "images": 2},
        "exact_pixels": {"groups": 1, "images": 2},
        "near": {"groups": 2, "images": 5},
    }
    assert result["near_distance_from"] == "copies"
    assert (result["compared"], result["crowded"], result["unreadable"]) == (17, 0, 0)
    copies = {
        image["id"]: image["copies"]
        for one in result["groups"]
        for image in one["images"]
        if one["level"] != "exact_bytes"
    }
    assert copies["bytes1"] == 3, "at the later levels it stands for all images with its pixels"
    near = [one for one in result["groups"] if one["level"] == "near"]
    for one in near:
        for image in one["images"]:
            assert image["nearest"] in {other["id"] for other in one["images"]} - {image["id"]}
            assert image["distance"] <= result["near_distance"]
            assert image["hash_distance"] <= result["near_hash_bits"]


def test_similar_is_only_found_when_asked_for_and_holds_no_near_pair(client: TestClient) -> None:
    """Everything is similar at that distance, but what is near is told as near alone."""
    result = search(client, levels=["near", "similar"], similar_distance=10.0)
    found = groups(result)
    assert found["near"] == [{"bytes1", "packed", "resized"}, {"two", "two packed"}]
    (all_of_them,) = found["similar"]
    assert len(all_of_them) == 17
    alone = search(client, levels=["similar"], similar_distance=result["near_distance"])
    assert "near" not in groups(alone)
    pairs = {(one["id"], one["nearest"]) for group in alone["groups"] for one in group["images"]}
    assert ("two", "two packed") not in pairs


def test_the_hash_keeps_apart_what_the_embedding_does_not(client: TestClient) -> None:
    wide = groups(search(client, levels=["near"], near_distance=10.0))
    assert wide["near"] == [{"bytes1", "packed", "resized"}, {"two", "two packed"}]
    wider = groups(search(client, levels=["near"], near_distance=10.0, near_hash_bits=32))
    assert max(len(one) for one in wider["near"]) > 3, "the control: it is the hash that kept them apart"
    none = search(client, levels=["near"], near_distance=0.0)
    assert groups(none) == {}, "and the embedding decides too"


def test_a_role_narrows_the_search(client: TestClient) -> None:
    add(client, "roles", {"a": encoded(scene(1)), "b": encoded(scene(1))}, role="anomalous")
    add(client, "roles", {"c": encoded(scene(1))})
    path = "/v1/collections/roles/duplicates"
    exact = {"levels": ["exact_bytes"]}
    assert groups(finished(client, path, exact)) == {"exact_bytes": [{"a", "b", "c"}]}
    assert groups(finished(client, path, {**exact, "role": "anomalous"})) == {"exact_bytes": [{"a", "b"}]}
    assert groups(finished(client, path, {**exact, "role": "normal"})) == {}


def test_pages_are_counted_in_images(client: TestClient) -> None:
    result = search(client)
    seen: list[tuple[str, int, str]] = []
    cursor = ""
    while cursor is not None:
        page = client.get(result["path"], params={"limit": 2, "cursor": cursor}).json()
        assert sum(len(one["images"]) for one in page["groups"]) <= 2
        seen += [(one["level"], one["group"], image["id"]) for one in page["groups"] for image in one["images"]]
        cursor = page["next"]
    assert seen == [(one["level"], one["group"], image["id"]) for one in result["groups"] for image in one["images"]]
    near = client.get(result["path"], params={"level": "near"}).json()
    assert {one["level"] for one in near["groups"]} == {"near"}
    assert client.get(f"/v1/collections/parts/duplicates/{'0' * 32}").json()["code"] == "duplicates_unknown"
    refused = client.post("/v1/collections/parts/duplicates", json={"levels": ["exact"]})
    assert refused.status_code == 422
    assert client.post("/v1/collections/none/duplicates").json()["code"] == "collection_unknown"


def pixel_hashes(client: TestClient, collection: str) -> dict[str, str | None]:
    listed = client.get(f"/v1/collections/{collection}/images").json()["images"]
    return {one["id"]: one["pixel_sha256"] for one in listed}


def test_pixels_are_hashed_once_and_only_where_others_may_have_them(client: TestClient, monkeypatch: Any) -> None:
    one, alone = scene(600), scene(601, side=80)
    images = {"a": encoded(one), "b": encoded(one, compress_level=0), "c": encoded(scene(602)), "alone": encoded(alone)}
    add(client, "lazily", images)
    assert set(pixel_hashes(client, "lazily").values()) == {None}, "adding decodes no larger than the network needs"
    hashed: list[bytes] = []
    made = Decoder.pixel_sha256
    monkeypatch.setattr(Decoder, "pixel_sha256", lambda self, data: hashed.append(data) or made(self, data))
    path, exact = "/v1/collections/lazily/duplicates", {"levels": ["exact_pixels"]}
    result = finished(client, path, exact)
    assert (groups(result), result["unreadable"]) == ({"exact_pixels": [{"a", "b"}]}, 0)
    found = pixel_hashes(client, "lazily")
    assert found["a"] == found["b"] == made(DECODER, images["a"]) != found["c"] is not None
    assert found["alone"] is None
    assert groups(finished(client, path, exact)) == groups(result)
    assert sorted(hashed) == sorted(images[name] for name in "abc")

    add(client, "lazily", {"b": images["c"]})
    assert pixel_hashes(client, "lazily")["b"] is None, "the hash of other bytes is not kept"
    assert groups(finished(client, path, exact)) == {}, "b and c have the same bytes, which is another level"
    assert pixel_hashes(client, "lazily")["b"] == found["c"]
    assert finished(client, path, {"levels": ["near"]})["compared"] == 3


def test_the_same_bytes_are_one_picture_though_nobody_hashed_them(client: TestClient) -> None:
    one, other = encoded(scene(700)), encoded(scene(701, side=80))
    add(client, "unhashed", {"a": one, "a again": one, "b": other})
    result = finished(client, "/v1/collections/unhashed/duplicates", {"levels": ["exact_bytes", "near"]})
    assert (groups(result), result["compared"]) == ({"exact_bytes": [{"a", "a again"}]}, 2)
    assert set(pixel_hashes(client, "unhashed").values()) == {None}


def test_an_image_that_came_again_after_its_bytes_were_hashed_is_the_same_picture(client: TestClient) -> None:
    one, packed = encoded(scene(800)), encoded(scene(800), compress_level=0)
    add(client, "again", {"a": one, "packed": packed, "other": encoded(scene(801, side=80))})
    path, asked = "/v1/collections/again/duplicates", {"levels": ["exact_pixels", "near"], "near_distance": 1.0}
    assert groups(finished(client, path, asked))["exact_pixels"] == [{"a", "packed"}]
    client.delete("/v1/collections/again/images/packed").raise_for_status()
    add(client, "again", {"a again": one})  # no other file has its size now, so that nobody hashes it
    hashes = pixel_hashes(client, "again")
    assert hashes["a"] is not None is hashes["a again"]
    result = finished(client, path, asked)
    assert (groups(result), result["compared"]) == ({}, 2)


def test_images_without_bytes_are_counted_and_not_guessed(client: TestClient) -> None:
    add(client, "gone", {"a": encoded(scene(500)), "b": encoded(scene(500), "JPEG", quality=75)})
    core = core_of(client)
    for entry in core.shelf.get("gone").entries.values():
        core.store.files.remove(entry.sha256)
    path = "/v1/collections/gone/duplicates"
    result = finished(client, path, {"near_distance": 1.0})
    assert (result["unreadable"], groups(result)) == (2, {})
    result = finished(client, path, {"levels": ["exact_pixels"]})
    assert (result["unreadable"], groups(result)) == (2, {}), "two that cannot be hashed are not the same picture"
    job = client.post(path, json={"levels": ["near"]}, params={"wait": 60}).json()
    assert (job["state"], job["problem"]["code"]) == ("failed", "bytes_missing")
    empty = client.put("/v1/collections/empty")
    assert empty.status_code == 201
    assert finished(client, "/v1/collections/empty/duplicates")["groups"] == []


class Quiet:
    """A job's context that is never stopped."""

    def check(self) -> None:
        pass

    def progress(self, done: int, total: int | None = None, stage: str | None = None) -> None:
        pass


def every_pair(state: Any, pks: np.ndarray, bound: float) -> set[tuple[int, int]]:
    """The pairs within a bound, the slow way."""
    distances = squareform(pdist(state.vectors(pks).astype(np.float64), "cosine"))
    return {(a, b) for a, b in zip(*np.nonzero(distances <= bound), strict=True) if a < b}


@pytest.mark.parametrize("first", [1, 2, 16])
def test_blocks_and_widening_find_every_pair(client: TestClient, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    monkeypatch.setattr(searching, "BLOCK_ROWS", 3)
    monkeypatch.setattr(searching, "NEIGHBOURS_FIRST", first)
    state = core_of(client).shelf.get("parts")
    pks = np.array(sorted(state.entries), np.int64)[1:]
    distances = np.sort(pdist(state.vectors(pks).astype(np.float64), "cosine"))
    for bound in (distances[5] + 1e-6, float(np.median(distances)) + 1e-6, 3.0):
        pairs, crowded = close_pairs(state, pks, float(bound), Quiet())  # type: ignore[arg-type]
        found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
        assert len(found) == pairs.first.size, "each pair once"
        assert found == every_pair(state, pks, float(bound))
        assert crowded == 0


def test_a_crowd_is_looked_at_up_to_a_limit_and_counted(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "NEIGHBOURS_FIRST", 4)
    monkeypatch.setattr(searching, "NEIGHBOURS_MAX", 4)
    state = core_of(client).shelf.get("parts")
    pks = np.array(sorted(state.entries), np.int64)
    pairs, crowded = close_pairs(state, pks, 3.0, Quiet())  # type: ignore[arg-type]
    assert crowded == pks.size
    assert pairs.first.size < pks.size * 4


def test_more_pairs_than_memory_is_meant_to_hold_end_the_search(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "PAIRS_MAX", 40)
    path = "/v1/collections/parts/duplicates"
    body = {"levels": ["similar"], "near_distance": 0.0, "similar_distance": 2.0}
    job = client.post(path, json=body, params={"wait": 60}).json()
    assert (job["state"], job["problem"]["code"]) == ("failed", "too_many_pairs")
    assert "smaller" in job["problem"]["detail"]


@pytest.mark.parametrize("name", ["near_distance", "similar_distance"])
def test_a_distance_is_a_finite_number(client: TestClient, name: str) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/v1/collections/parts/duplicates", content=f'{{"{name}": 1e999}}', headers=headers)
    problem_of(answer, 422, "invalid")


def test_sets_are_connected_pairs() -> None:
    pairs = Pairs(np.array([0, 1, 5, 6]), np.array([1, 4, 6, 7]), np.array([0.3, 0.1, 0.2, 0.2], np.float32))
    found = sets_of(pairs, 9)
    assert [[(one.place, one.nearest, one.pair) for one in members] for members in found] == [
        [(0, 1, 0), (1, 4, 1), (4, 1, 1)],
        [(5, 6, 2), (6, 5, 2), (7, 6, 3)],
    ]
    assert sets_of(pairs.chosen(np.zeros(4, bool)), 9) == []


def test_cancelling_stops_at_the_next_block(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "BLOCK_ROWS", 2)
    core: Core = core_of(client)
    blocks: list[int] = []
    nearest = searching.CollectionState.nearest

    def searched(self: Any, *given: Any) -> Any:
        blocks.append(1)
        if len(blocks) == 2:
            (running,) = client.get("/v1/jobs", params={"state": "running"}).json()["jobs"]
            cancel(core, running["id"])
        return nearest(self, *given)

    monkeypatch.setattr(searching.CollectionState, "nearest", searched)
    clock = iter(range(0, 10**6, 10))
    monkeypatch.setattr(service, "copy_distance", lambda *_: 0.1)
    job, _ = service.submit_duplicates(core, "parts", service.DuplicatesParameters(), None)
    Runner(core, HANDLERS, monotonic=lambda: float(next(clock))).run_one()
    assert get_job(core, job["id"])["state"] == "cancelled"
    assert len(blocks) == 2


def test_the_hash_of_a_copy_is_close_and_of_another_picture_is_not() -> None:
    for seed in range(8):
        original = encoded(scene(seed))
        mine = perceptual_hash(DECODER.grey(original))
        for copy in DECODER.altered_copies(original):
            assert hash_distance(mine, perceptual_hash(DECODER.grey(copy))) <= 6
        assert hash_distance(mine, perceptual_hash(DECODER.grey(encoded(scene(seed + 50))))) > 12
        assert len(DECODER.altered_copies(original)) == 3
        assert hash_distance(mine, mine) == 0
