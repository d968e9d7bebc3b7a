"""Stored images at a glance: the scores are those that scoring answers, the choice is bounded, changes show at once."""

import json

import pytest
from starlette.testclient import TestClient

from app.overview import service
from models.catalog import installed
from models.contract import Need
from tests.conftest import png
from tests.contract.problem_shape import problem_of

METHOD = next(  # a kept one that looks at vectors alone
    card.name
    for card in installed().values()
    if card.role == "scorer"
    and card.status == "supported"
    and not card.live
    and set(card.needs.required) <= {Need.VECTORS}
)


def fill(client: TestClient, name: str, **roles: int) -> None:
    assert client.put(f"/v1/collections/{name}", json={"false_alarm_rate": 0.1}).status_code == 201
    number = 0
    for role, count in roles.items():
        images = [("files", (f"{role}-{one}.png", png(number + one), "image/png")) for one in range(count)]
        number += count
        assert client.post(f"/v1/collections/{name}/images", files=images, data={"role": role}).status_code == 201


@pytest.fixture(scope="module")
def filled(shared: TestClient) -> str:
    fill(shared, "glance", normal=14, unlabelled=5, anomalous=2)
    return "/v1/collections/glance"


def test_scores_are_those_that_scoring_answers(shared: TestClient, filled: str) -> None:
    told = shared.get(f"{filled}/scores").json()
    assert len(told["images"]) == 21 == told["stored"]
    scores = [one["score"] for one in told["images"]]
    assert scores == sorted(scores, reverse=True)
    asked = shared.post(
        f"{filled}/anomaly", json={"ids": [one["id"] for one in told["images"]], "neighbours": 0}
    ).json()
    for one, other in zip(told["images"], asked["results"], strict=True):
        assert one["id"] == other["id"] and one["anomalous"] == other["anomalous"]
        assert (one["score"], one["p_value"]) == pytest.approx((other["score"], other["p_value"]), rel=1e-6)
    calibration = dict(told["calibration"])
    border = calibration.pop("scores")
    assert calibration == asked["calibration"]
    assert border == sorted(border) and len(border) == calibration["n"] == 14


def test_a_stored_image_of_a_group_is_judged_without_it_on_either_path(shared: TestClient) -> None:
    path = "/v1/collections/bursts"
    shared.put(path).raise_for_status()
    images = {f"p{part}-{shot}": (part, png(part, side=32 + shot)) for part in range(8) for shot in range(2)}
    items = json.dumps([{"id": name, "group": f"part{part}"} for name, (part, _) in images.items()])
    files = [("files", (f"{name}.png", data, "image/png")) for name, (_, data) in images.items()]
    assert shared.post(f"{path}/images", files=files, data={"items": items}).status_code == 201
    told = {one["id"]: one for one in shared.get(f"{path}/scores").json()["images"]}
    asked = shared.post(f"{path}/anomaly", json={"ids": list(images)}).json()["results"]
    for one in asked:
        other = told[one["id"]]
        assert (one["score"], one["p_value"]) == (other["score"], other["p_value"])
        assert one["id"].partition("-")[0] not in {near["id"].partition("-")[0] for near in one["neighbours"]}


def test_every_path_measures_at_unit_length_and_fits_learn_from_what_was_given(shared: TestClient) -> None:
    path = "/v1/collections/scaled"
    shared.put(path, json={"metric": "l2", "normalize": True}).raise_for_status()
    for role, ids in (("normal", [f"n{number}" for number in range(24)]), ("unlabelled", ["twin"])):
        files = [("files", ("a.png", png(int(name[1:]) if role == "normal" else 3), "image/png")) for name in ids]
        items = json.dumps([{"id": name, "role": role} for name in ids])
        assert shared.post(f"{path}/images", files=files, data={"items": items}).status_code == 201
    sent = [("files", ("a.png", png(3), "image/png"))]
    for asked in ({"files": sent}, {"json": {"ids": ["twin"]}}, {"json": {"id": "n3"}}):
        near = shared.post(f"{path}/query", **asked).json()["results"][0]
        distances = {one["id"]: one["distance"] for one in near}
        for name in {"n3", "twin"} & set(distances):
            assert distances.pop(name) == pytest.approx(0, abs=1e-5)
        assert len(distances) >= 8 and all(0 < one <= 2**0.5 for one in distances.values())
    shared.put(f"{path}/scorers/{METHOD}", params={"wait": 60}).raise_for_status()
    by_file = shared.post(f"{path}/anomaly", files=sent, params={"scorer": METHOD}).json()["results"][0]
    by_id = shared.post(f"{path}/anomaly", json={"ids": ["n3"], "scorer": METHOD}).json()["results"][0]
    told = {one["id"]: one for one in shared.get(f"{path}/scores", params={"scorer": METHOD}).json()["images"]}
    assert by_id["score"] == pytest.approx(by_file["score"], rel=1e-4)
    assert told["n3"]["score"] == pytest.approx(by_file["score"], rel=1e-4)


def test_another_rate_moves_the_border(shared: TestClient, filled: str) -> None:
    told = shared.get(f"{filled}/scores?false_alarm_rate=0.3").json()
    border = told["calibration"]["scores"]
    assert told["calibration"]["threshold"] == border[-4] and told["calibration"]["false_alarm_rate"] == 4 / 15
    assert [one["anomalous"] for one in told["images"]] == [one["score"] > border[-4] for one in told["images"]]


def test_a_role_is_asked_for(shared: TestClient, filled: str) -> None:
    for role, count in (("unlabelled", 5), ("anomalous", 2), ("normal", 14), ("example", 0)):
        images = shared.get(f"{filled}/scores?role={role}").json()["images"]
        assert len(images) == count and all(one["role"] == role for one in images)


def test_the_choice_is_bounded_and_fair(shared: TestClient, filled: str) -> None:
    roles = [one["role"] for one in shared.get(f"{filled}/scores?limit=6").json()["images"]]
    assert roles.count("normal") == 3 and len(roles) == 6
    newest = shared.get(f"{filled}/scores?limit=2").json()["images"]
    assert "anomalous" in {one["role"] for one in newest}  # they came last
    everything = [one["role"] for one in shared.get(f"{filled}/scores?limit=18").json()["images"]]
    assert everything.count("normal") == 11 and len(everything) == 18


@pytest.mark.parametrize("layout", ["principal", "neighbours"])
def test_a_map_has_a_place_for_each_image(shared: TestClient, filled: str, layout: str) -> None:
    told = shared.get(f"{filled}/map?layout={layout}").json()
    assert told["layout"] == layout and len(told["images"]) == 21
    for axis in "xy":
        assert all(-1.00001 <= one[axis] <= 1.00001 for one in told["images"])
    scores = {one["id"]: one["score"] for one in shared.get(f"{filled}/scores").json()["images"]}
    assert {one["id"]: one["score"] for one in told["images"]} == scores
    assert shared.get(f"{filled}/map?layout={layout}").json() == told


def test_a_change_shows_at_once(shared: TestClient) -> None:
    fill(shared, "changing", normal=12, unlabelled=2)
    c = "/v1/collections/changing"
    before = shared.get(f"{c}/map").json()["images"]
    image = next(one for one in shared.get(f"{c}/scores").json()["images"] if one["role"] == "unlabelled")
    assert shared.delete(f"{c}/images/{image['id']}").status_code == 204
    for path in ("map", "scores"):
        left = shared.get(f"{c}/{path}").json()["images"]
        assert {one["id"] for one in left} == {one["id"] for one in before} - {image["id"]}
    assert len(shared.get(f"{c}/map?limit=5").json()["images"]) == 5


def test_what_cannot_be_compared_says_so(shared: TestClient) -> None:
    fill(shared, "lonely", unlabelled=2)
    problem_of(shared.get("/v1/collections/lonely/scores"), 409, "bank_too_small")
    problem_of(shared.get("/v1/collections/lonely/map"), 409, "bank_too_small")
    fill(shared, "one", normal=1)
    told = shared.get("/v1/collections/one/scores").json()
    assert told["images"] == [] and told["calibration"]["n"] == 0
    assert shared.get("/v1/collections/one/map").json()["images"] == []
    assert shared.put("/v1/collections/empty").status_code == 201
    assert shared.get("/v1/collections/empty/map").json()["images"] == []
    problem_of(shared.get("/v1/collections/none/map"), 404, "collection_unknown")
    problem_of(shared.get("/v1/collections/lonely/map?limit=2001"), 422, "invalid")


@pytest.fixture(scope="module")
def fitted(shared: TestClient) -> str:
    fill(shared, "judged", normal=24, unlabelled=3)
    fit = shared.put(f"/v1/collections/judged/scorers/{METHOD}", json={}, params={"wait": 60})
    assert fit.json()["state"] == "succeeded", fit.text
    return "/v1/collections/judged"


def test_scores_of_a_fitted_scorer_are_those_that_scoring_answers(shared: TestClient, fitted: str) -> None:
    told = shared.get(f"{fitted}/scores?scorer={METHOD}&false_alarm_rate=0.2").json()
    ids = [one["id"] for one in told["images"]]
    assert sorted(ids) == sorted(one["id"] for one in shared.get(f"{fitted}/scores").json()["images"])
    asked = shared.post(
        f"{fitted}/anomaly",
        json={"ids": ids, "scorer": METHOD, "false_alarm_rate": 0.2, "neighbours": 0},
    ).json()
    for one, other in zip(told["images"], asked["results"], strict=True):
        for field in ("id", "score", "p_value", "anomalous", "took_part"):
            assert one[field] == other[field], field
    assert [one["score"] for one in told["images"]] == sorted((one["score"] for one in told["images"]), reverse=True)
    assert [one["took_part"] for one in told["images"]] == [one["role"] == "normal" for one in told["images"]]
    calibration = dict(told["calibration"])
    border = calibration.pop("scores")
    assert calibration == asked["calibration"] and border == sorted(border) and len(border) == calibration["n"]
    for field in ("scorer", "method", "fit", "k", "fingerprint"):
        assert told[field] == asked[field]
    assert shared.get(f"{fitted}/scores?scorer={METHOD}&role=anomalous").json()["images"] == []
    only = shared.get(f"{fitted}/scores?scorer={METHOD}&role=unlabelled").json()["images"]
    assert only == [
        one | {"anomalous": only[row]["anomalous"]}
        for row, one in enumerate(one for one in told["images"] if one["role"] == "unlabelled")
    ]


def test_a_map_has_the_same_places_for_every_scorer(shared: TestClient, fitted: str) -> None:
    live = {one["id"]: one for one in shared.get(f"{fitted}/map").json()["images"]}
    told = shared.get(f"{fitted}/map?scorer={METHOD}").json()
    assert told["scorer"] == told["method"] == METHOD
    assert {one["id"]: (one["x"], one["y"]) for one in told["images"]} == {
        name: (one["x"], one["y"]) for name, one in live.items()
    }
    scores = {one["id"]: one["score"] for one in shared.get(f"{fitted}/scores?scorer={METHOD}").json()["images"]}
    assert {one["id"]: one["score"] for one in told["images"]} == scores


def test_a_slow_scorer_goes_on_where_it_was(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(shared, "slow", normal=40)
    assert shared.put(f"/v1/collections/slow/scorers/{METHOD}", json={}, params={"wait": 60}).status_code == 200
    c = f"/v1/collections/slow/scores?scorer={METHOD}"
    clock = iter(range(1000))
    with monkeypatch.context() as patched:
        patched.setattr(service, "ANSWER_S", 1.5)
        patched.setattr(service, "monotonic", lambda: float(next(clock)))
        told = problem_of(shared.get(c), 503, "still_scoring")
        assert (told["done"], told["total"]) == (16, 40)
        again = shared.get(c)
        assert again.headers["retry-after"] == "1"
        assert (again.json()["done"], again.json()["total"]) == (32, 40)
    assert len(shared.get(c).json()["images"]) == 40


def test_only_what_is_fitted_can_be_asked(shared: TestClient, filled: str) -> None:
    for path in ("scores", "map"):
        problem_of(shared.get(f"{filled}/{path}?scorer={METHOD}"), 409, "scorer_not_fitted")
