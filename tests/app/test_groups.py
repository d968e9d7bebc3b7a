"""Registered groups and the score of a set."""

import json

import numpy as np
import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from app.db.tables import VectorRow
from tests.app.working import core_of, finished
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of
from tests.oracles import dn2 as oracle

GROUPS = "/v1/collections/c/groups"
DRAWN = "/v1/collections/drawn/groups"
NAMED = "/v1/collections/named/groups"
IMAGES = {f"n{number:02}": png(number) for number in range(60)}
SET = [png(2000 + number) for number in range(4)]


def files(*images: bytes) -> list:
    return [("files", (f"{place}.png", data, "image/png")) for place, data in enumerate(images)]


def score(client: TestClient, path: str, *images: bytes, status: int = 200, **parameters: object) -> dict:
    answer = client.post(f"{path}/anomaly", files=files(*images), params=parameters)
    assert answer.status_code == status, answer.text
    return answer.json()


def score_stored(client: TestClient, path: str, *ids: str, **parameters: object) -> dict:
    answer = client.post(f"{path}/anomaly", json={"ids": ids, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def bank(shared: TestClient) -> TestClient:
    """The same images without groups and with fifteen. Tests that use it must not write."""
    names = list(IMAGES)
    shared.put("/v1/collections/named", json={"metric": "l2"}).raise_for_status()
    for collection in ("drawn", "named"):
        add(shared, collection, IMAGES)
    for number in range(15):
        members = names[4 * number : 4 * number + 4]
        assert shared.put(f"{NAMED}/g{number}", json={"ids": members}).status_code == 201
    return shared


@pytest.fixture
def few(client: TestClient) -> TestClient:
    """Six images of an application of this test's own."""
    add(client, "c", dict(list(IMAGES.items())[:6]))
    return client


def test_a_group_of_stored_images_keeps_its_order_and_is_replaced_whole(few: TestClient) -> None:
    body = {"ids": ["n03", "n01", "n02"], "metadata": {"part": 7}}
    made = few.put(f"{GROUPS}/g", json=body)
    assert made.status_code == 201
    assert made.json()["members"] == ["n03", "n01", "n02"]
    shown = {"name": "g", "members": ["n03", "n01", "n02"], "metadata": {"part": 7}}
    assert few.get(f"{GROUPS}/g").json() == shown and few.get(GROUPS).json() == {"groups": [shown]}
    again = few.put(f"{GROUPS}/g", json={"ids": ["n05"]})
    assert again.status_code == 200
    assert few.get(f"{GROUPS}/g").json() == {"name": "g", "members": ["n05"], "metadata": {}}
    assert few.delete(f"{GROUPS}/g").status_code == 204
    problem_of(few.get(f"{GROUPS}/g"), 404, "group_unknown")
    problem_of(few.delete(f"{GROUPS}/g"), 404, "group_unknown")
    assert few.get("/v1/collections/c").json()["images"] == 6  # its images stay


def test_files_become_images_of_the_collection_tagged_with_the_group(client: TestClient) -> None:
    client.put("/v1/collections/c")
    items = json.dumps([{"id": "a"}, {"id": "b"}, {"id": "c"}])
    made = client.put(f"{GROUPS}/g", files=files(SET[0], b"rubbish", SET[1]), data={"items": items})
    assert made.status_code == 207
    assert made.json()["members"] == ["a", "c"]
    assert [one["id"] for one in made.json()["refused"]] == ["b"]
    shown = {one["id"]: (one["group"], one["role"]) for one in client.get("/v1/collections/c/images").json()["images"]}
    assert shown == {"a": ("g", "normal"), "c": ("g", "normal")}


def test_a_known_defect_sent_again_in_a_set_stays_one(client: TestClient) -> None:
    add(client, "c", {"a": SET[0]}, role="anomalous")
    items = json.dumps([{"id": "a"}, {"id": "b"}])
    assert client.put(f"{GROUPS}/g", files=files(*SET[:2]), data={"items": items}).status_code == 201
    assert client.get("/v1/collections/c/images/a").json()["role"] == "anomalous"
    assert client.put(f"{GROUPS}/h", files=files(SET[2]), data={"role": "example"}).status_code == 201
    assert client.get("/v1/collections/c").json()["roles"]["example"] == 1


def test_a_set_with_a_damaged_image_is_told_and_compared_without_it(client: TestClient) -> None:
    add(client, "c", dict(list(IMAGES.items())[:24]))
    names = list(IMAGES)
    for number in range(12):
        client.put(f"{GROUPS}/g{number:02}", json={"ids": names[2 * number : 2 * number + 2]}).raise_for_status()
    before = client.get(GROUPS).json()
    core = core_of(client)
    with core.database.write() as session:
        session.execute(
            update(VectorRow).where(VectorRow.image_pk == core.shelf.get("c").entry("n05").pk).values(vector=b"")
        )
    core.shelf.drop("c")
    assert client.get(GROUPS).json() == before
    assert client.get(f"{GROUPS}/g02").json()["members"] == ["n04", "n05"]
    answer = score(client, GROUPS, *SET[:2])
    assert (answer["reference"], answer["calibration"]["n"]) == ("registered", 12)
    assert client.post(f"{GROUPS}/anomaly", json={"ids": ["n04", "n06"]}).status_code == 200


def test_what_cannot_be_registered_leaves_nothing_behind(few: TestClient) -> None:
    before = few.get("/v1/collections/c").json()
    twins = json.dumps([{"id": "new"}, {"id": "new"}])
    for answer in (
        few.put(f"{GROUPS}/g", json={"ids": ["n01", "n01"]}),
        few.put(f"{GROUPS}/g", files=files(SET[0], SET[0])),
        few.put(f"{GROUPS}/g", files=files(SET[0], SET[1]), data={"items": twins}),
    ):
        problem_of(answer, 422, "group_repeats_image")
    missing = problem_of(few.put(f"{GROUPS}/g", json={"ids": ["n01", "nobody"]}), 404, "image_unknown")
    assert missing["missing"] == ["nobody"]
    for answer in (
        few.put(f"{GROUPS}/g", json={}),
        few.put(f"{GROUPS}/g", json={"ids": []}),
        few.put(f"{GROUPS}/g", files=files(SET[0]), data={"ids": '["n01"]'}),
        few.put(f"{GROUPS}/a b", json={"ids": ["n01"]}),
        few.put(f"{GROUPS}/g", json={"ids": ["n01"], "colour": "red"}),
        few.put(f"{GROUPS}/g", json={"ids": ["n01"], "metadata": []}),
    ):
        problem_of(answer, 422)
    large = {"ids": ["n01"], "metadata": {"note": "x" * 2**16}}
    problem_of(few.put(f"{GROUPS}/g", json=large), 413, "metadata_too_large")
    assert few.get(GROUPS).json() == {"groups": []}
    assert few.get("/v1/collections/c").json()["images"] == before["images"]


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_order_of_a_set_does_not_matter(bank: TestClient, pooling: str) -> None:
    """Stored images: the same vectors in another order must give the same bits."""
    ids = ["n01", "n30", "n07", "n44", "n12"]
    forward, backward = (score_stored(bank, DRAWN, *order, pooling=pooling) for order in (ids, ids[::-1]))
    assert forward["score"] == backward["score"] and forward["p_value"] == backward["p_value"]
    assert forward["neighbours"] == backward["neighbours"]
    shares = [one["share"] for one in forward["members"]]
    np.testing.assert_allclose(shares, [one["share"] for one in backward["members"]][::-1], rtol=1e-9)


def test_the_order_matters_to_concat(bank: TestClient) -> None:
    ids = ["n01", "n30", "n07"]
    forward, backward = (score_stored(bank, DRAWN, *order, pooling="concat") for order in (ids, ids[::-1]))
    assert forward["score"] != backward["score"]


@pytest.mark.parametrize("pooling", ["mean", "max", "concat"])
@pytest.mark.parametrize("is_registered", [True, False])
def test_shares_sum_to_one_and_keep_the_order_of_the_files(bank: TestClient, pooling: str, is_registered: bool) -> None:
    answer = score(bank, NAMED if is_registered else DRAWN, *SET, pooling=pooling)
    assert answer["reference"] == ("registered" if is_registered else "drawn")
    assert answer["pooling"] == pooling and answer["scorer"] == "group"
    assert answer["calibration"]["n"] == (15 if is_registered else 30 // 4)
    assert len(answer["members"]) == 4
    assert sum(one["share"] for one in answer["members"]) == pytest.approx(1, abs=1e-9)
    assert (answer["anomalous"] is None) == (not is_registered)  # 7 sets are too few for a verdict, 15 are enough
    assert 0 < answer["p_value"] <= 1 and answer["score"] > 0
    if is_registered:
        assert {near["id"] for near in answer["neighbours"]} < {f"g{number}" for number in range(15)}
    else:
        assert all(near["id"] is None and len(near["members"]) == 4 for near in answer["neighbours"])


def test_excess_pools_the_scores_that_the_images_get_alone(bank: TestClient) -> None:
    alone = bank.post("/v1/collections/drawn/anomaly", files=files(*SET), params={"k": 3}).json()["results"]
    single = np.array([one["score"] for one in alone])
    calibration = bank.app.state.core.shelf.get("drawn").dn2.calibration(3).scores
    answer = score(bank, DRAWN, *SET, pooling="excess", k=3, false_alarm_rate=0.1)
    excess = np.maximum(single - np.median(calibration), 0)
    assert answer["score"] == pytest.approx(np.sqrt(np.mean(excess**2)))
    assert [one["score"] for one in answer["members"]] == single.tolist()
    assert [one["p_value"] for one in answer["members"]] == [one["p_value"] for one in alone]
    assert [one["share"] for one in answer["members"]] == pytest.approx(excess**2 / (excess**2).sum())
    assert (answer["scorer"], answer["pooling"], answer["reference"]) == ("dn2", "excess", "bank")
    assert answer["calibration"]["n"] == 60 // 4 and answer["anomalous"] in (True, False) and answer["neighbours"] == []
    assert score(bank, DRAWN, *SET[::-1], pooling="excess", k=3)["score"] == answer["score"]
    assert score(bank, DRAWN, SET[0], b"rubbish", pooling="excess", status=207)["members"][0]["share"] == 1
    refused = bank.post(f"{DRAWN}/anomaly", files=files(*SET), params={"pooling": "excess", "neighbours": 2})
    problem_of(refused, 422, "neighbours_not_offered")


def test_registered_sets_of_the_same_size_calibrate_excess(bank: TestClient) -> None:
    state = core_of(bank).shelf.get("named")
    vectors = {name: state.vectors(groups.members) for name, groups in state.groups.items()}
    usual = np.median(state.dn2.calibration().scores)

    def of_sets(sets: list[np.ndarray]) -> np.ndarray:
        """Each set against all others, by the slow arithmetic."""
        found = []
        for place, members in enumerate(sets):
            others = np.concatenate([one for other, one in enumerate(sets) if other != place])
            excess = np.maximum(oracle.scores(members, others, 2, "l2") - usual, 0)
            found.append(np.sqrt(np.mean(excess**2)))
        return np.array(found)

    normal = of_sets(list(vectors.values()))
    answer = score(bank, NAMED, *SET, pooling="excess")
    assert (answer["reference"], answer["calibration"]["n"]) == ("registered", 15)
    assert answer["p_value"] == pytest.approx((1 + (normal >= answer["score"]).sum()) / 16)
    middle = float(np.sort(normal)[7])
    stored = next(name for name, one in zip(vectors, normal, strict=True) if one == middle)
    again = score_stored(bank, NAMED, *bank.get(f"{NAMED}/{stored}").json()["members"], pooling="excess")
    assert again["score"] == pytest.approx(middle, rel=1e-4)
    assert again["p_value"] == pytest.approx((1 + 8) / 16)  # itself among them
    # Sets of another size say nothing of this one, and of fewer than ten nobody could give a verdict.
    assert score(bank, NAMED, *SET[:3], pooling="excess")["reference"] == "bank"
    assert score(bank, DRAWN, *SET, pooling="excess")["reference"] == "bank"


def test_registered_sets_follow_what_is_registered_and_say_nothing_of_a_compressed_bank(client: TestClient) -> None:
    add(client, "c", IMAGES)
    ids = list(IMAGES)
    for number in range(10):
        assert client.put(f"{GROUPS}/g{number}", json={"ids": ids[2 * number : 2 * number + 2]}).status_code == 201
    asked = [SET[0], SET[1]]
    by_sets = score(client, GROUPS, *asked, pooling="excess")
    assert (by_sets["reference"], by_sets["calibration"]["n"]) == ("registered", 10)
    assert client.delete(f"{GROUPS}/g3").status_code == 204
    by_bank = score(client, GROUPS, *asked, pooling="excess")
    assert (by_bank["reference"], by_bank["calibration"]["n"]) == ("bank", 30)
    assert by_bank["score"] == by_sets["score"]  # how strange it is; only against what it is judged has changed
    client.put(f"{GROUPS}/g3", json={"ids": ids[6:8]}).raise_for_status()
    assert score(client, GROUPS, *asked, pooling="excess") == {**by_sets, "sequence": by_bank["sequence"] + 1}
    client.patch(f"/v1/collections/c/images/{ids[6]}", json={"role": "unlabelled"}).raise_for_status()
    assert score(client, GROUPS, *asked, pooling="excess")["reference"] == "bank"  # nine are normal
    client.patch(f"/v1/collections/c/images/{ids[6]}", json={"role": "normal"}).raise_for_status()
    finished(client, "/v1/collections/c/compress", {"method": "kmeans", "size": 10})
    assert score(client, GROUPS, *asked, pooling="excess")["reference"] == "bank"


def test_the_calibration_of_excess_does_not_depend_on_how_the_bank_came_about(client: TestClient) -> None:
    names = list(IMAGES)[:24]
    add(client, "c", {name: IMAGES[name] for name in names})
    add(client, "other", {name: IMAGES[name] for name in [*names[::-1], "n30", "n31"]})
    for name in ("n30", "n31"):
        client.delete(f"/v1/collections/other/images/{name}").raise_for_status()
    one, other = (score(client, f"/v1/collections/{c}/groups", *SET[:2], pooling="excess") for c in ("c", "other"))
    assert one["calibration"] == other["calibration"] and one["calibration"]["n"] == 12
    assert one["score"] == other["score"]


def test_a_stored_set_is_scored_without_itself_by_excess_too(client: TestClient) -> None:
    twins = [png(500), png(500, 33), png(501), png(501, 33)]
    add(client, "c", {**dict(list(IMAGES.items())[:20]), **{f"t{place}": data for place, data in enumerate(twins)}})
    told = score_stored(client, GROUPS, *(f"t{place}" for place in range(4)), pooling="excess")
    alone = [
        one["score"]
        for one in client.post("/v1/collections/c/anomaly", json={"ids": ["t0", "t2"], "k": 1}).json()["results"]
    ]
    assert told["members"][0]["score"] > alone[0] and told["members"][2]["score"] > alone[1]
    whole = client.post(
        f"{GROUPS}/anomaly", json={"ids": [*list(IMAGES)[:20], *(f"t{n}" for n in range(4))], "pooling": "excess"}
    )
    problem_of(whole, 409, "nothing_to_compare")


def test_the_score_of_a_registered_set_against_a_reference_computed_here(bank: TestClient) -> None:
    core = bank.app.state.core
    state = core.shelf.get("named")
    pooled = np.stack(
        [
            state.vectors([state.entries.find(one) for one in list(IMAGES)[4 * number : 4 * number + 4]])
            .astype(float)
            .mean(0)
            for number in range(15)
        ]
    )
    embedder = core.embedders.get_default()
    query = core.embedders.embed(embedder, core.embedders.prepare(embedder.embedder, SET)).astype(float).mean(0)
    answer = score(bank, NAMED, *SET, k=2)
    far = np.sort(np.linalg.norm(pooled - query, axis=1))
    assert answer["score"] == pytest.approx(far[:2].mean(), rel=1e-4)
    between = np.linalg.norm(pooled[:, None] - pooled[None], axis=2)
    np.fill_diagonal(between, np.inf)
    calibration = np.sort(between, axis=1)[:, :2].mean(axis=1)
    assert answer["p_value"] == pytest.approx((1 + (calibration >= answer["score"]).sum()) / 16)


def test_sets_of_different_sizes(bank: TestClient) -> None:
    for size in (1, 2, 5):
        assert len(score(bank, DRAWN, *(SET * 2)[:size])["members"]) == size
    for size in (1, 3, 6):
        assert len(score(bank, NAMED, *(SET * 2)[:size], pooling="mean")["members"]) == size
    problem_of(bank.post(f"{NAMED}/anomaly?pooling=concat", files=files(*SET[:3])), 422, "set_size_mismatch")


def test_a_set_too_large_for_the_bank_is_told_how_many_images_are_needed(bank: TestClient) -> None:
    answer = bank.post(f"{DRAWN}/anomaly", json={"ids": list(IMAGES)[:40]})
    assert "80" in problem_of(answer, 409, "bank_too_small")["detail"]


def test_a_bad_file_has_its_problem_in_place_and_the_others_are_scored(bank: TestClient) -> None:
    answer = score(bank, DRAWN, SET[0], b"rubbish", SET[1], status=207)
    assert answer["members"][1]["problem"]["code"] == "image_unreadable"
    assert answer["members"][0]["share"] + answer["members"][2]["share"] == pytest.approx(1, abs=1e-9)
    problem_of(bank.post(f"{DRAWN}/anomaly", files=files(b"rubbish")), 422, "no_images")


def test_a_registered_group_counts_from_the_next_request(client: TestClient) -> None:
    names = list(IMAGES)[:20]
    add(client, "c", {name: IMAGES[name] for name in names})
    for number in range(9):
        client.put(f"{GROUPS}/g{number}", json={"ids": names[number : number + 1]}).raise_for_status()
    assert score(client, GROUPS, SET[0])["reference"] == "drawn"
    client.put(f"{GROUPS}/g9", json={"ids": ["n19"]})
    assert score(client, GROUPS, SET[0])["reference"] == "registered"
    client.delete(f"{GROUPS}/g9")
    assert score(client, GROUPS, SET[0])["reference"] == "drawn"


def test_a_deleted_image_leaves_its_group(few: TestClient) -> None:
    few.put(f"{GROUPS}/g", json={"ids": ["n01", "n02"]})
    few.delete("/v1/collections/c/images/n01")
    assert few.get(f"{GROUPS}/g").json()["members"] == ["n02"]


def test_the_false_alarm_rate_is_a_matter_of_the_request(bank: TestClient) -> None:
    strict, loose = (score(bank, NAMED, *SET, false_alarm_rate=rate) for rate in (0.07, 0.5))
    assert strict["score"] == loose["score"]
    assert strict["calibration"]["threshold"] > loose["calibration"]["threshold"]


@pytest.mark.parametrize("parameters", [{"pooling": "sum"}, {"k": 0}, {"heatmap": True}, {"neighbours": -1}])
def test_what_cannot_be_asked_is_refused(bank: TestClient, parameters: dict) -> None:
    problem_of(bank.post(f"{DRAWN}/anomaly", json={"ids": ["n01"], **parameters}), 422)


def test_banks_of_sets_do_not_pile_up(bank: TestClient) -> None:
    for size in range(1, 15):
        score(bank, DRAWN, *(png(3000 + number) for number in range(size)))
    kept = [one for one in bank.app.state.core.shelf.get("drawn").cache if one[0] == "group"]
    assert len(kept) == 8 and ("group", "mean", 14, 2) in kept


def test_a_stored_set_does_not_vouch_for_itself(bank: TestClient) -> None:
    names = [f"n{number:02}" for number in range(4)]
    for path in (NAMED, DRAWN):
        stored = score_stored(bank, path, *names, k=1, neighbours=5)
        uploaded = score(bank, path, *(IMAGES[name] for name in names), k=1)
        for near in stored["neighbours"]:
            assert near["id"] != "g0" and not set(names) & set(near["members"])
        assert stored["score"] > 0
        if path == NAMED:  # sent as new images, the same set meets itself: what leaving out prevents
            assert uploaded["score"] < 1e-3 < stored["score"]


def test_the_sets_drawn_as_reference_differ(few: TestClient) -> None:
    shown = score(few, GROUPS, png(700), neighbours=3)["neighbours"]
    members = [tuple(sorted(near["members"])) for near in shown]
    assert len(members) == 3 == len(set(members))
