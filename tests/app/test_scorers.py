"""Fitted scorers over HTTP: asking for a fit, scoring by it, staleness, refits, deletion, refusals."""

import base64
import importlib
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from models.errors import StateDamaged
from models.fitting import CALIBRATION_SHARE
from tests.app.working import asked, core_of, part, scores
from tests.conftest import add
from tests.contract.problem_shape import problem_of

pytestmark = pytest.mark.usefixtures("outside_methods")
IMAGES = {f"n{number:02}": part(number) for number in range(60)}
QUERIES = [part(1000), part(1001), part(1002, scratch=10)]


@pytest.fixture(scope="module")
def served(outside_methods: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """One service for the tests that keep to collections of their own, with a bank in `c`."""
    settings = Settings(data=tmp_path_factory.mktemp("served"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        add(client, "c", IMAGES)
        yield client


def fit(client: TestClient, collection: str, scorer: str, **body: Any) -> dict[str, Any]:
    """The finished job of a fit that is expected to succeed."""
    answer = client.put(f"/v1/collections/{collection}/scorers/{scorer}", json=body, params={"wait": 60})
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    assert job["state"] == "succeeded", job
    return job


def shown(client: TestClient, collection: str, scorer: str) -> dict[str, Any]:
    answer = client.get(f"/v1/collections/{collection}/scorers/{scorer}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def vectors(client: TestClient, collection: str) -> dict[int, np.ndarray]:
    state = core_of(client).shelf.get(collection)
    return {pk: state.vectors([pk])[0] for pk in state.dn2.bank.ids().tolist()}


def outside() -> Any:
    return importlib.import_module("outside_methods.spread")


def test_a_fit_is_a_job_whose_end_puts_the_scorer_to_use(served: TestClient) -> None:
    answer = served.put("/v1/collections/c/scorers/spread", json={"params": {"factor": 2.0}, "seed": 3})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}" and job["kind"] == "fit"
    done = fit(served, "c", "spread", params={"factor": 2.0}, seed=3)
    told = shown(served, "c", "spread")
    assert (told["state"], told["serving"], told["method"], told["seed"]) == ("ready", True, "spread", 3)
    assert told["params"] == {"factor": 2.0, "jitter": 0.0, "refuse": False, "waits": False}
    assert told["problem"] is None and told["job"] == done["id"]
    made = told["fit"]
    assert made["revision"] == done["result"]["revision"] == served.get("/v1/collections/c").json()["revision"]
    assert made["images"] + made["calibration"]["n"] == len(IMAGES)
    assert made["calibration"]["n"] == round(CALIBRATION_SHARE * len(IMAGES))
    assert made["fingerprint"] == served.get("/v1/collections/c").json()["fingerprint"]
    assert made["bytes"] > 0 and made["seconds"] >= 0 and made["heatmap"] is False
    assert made["stale"] == {"added": 0, "removed": 0, "revisions": 0, "embedding": False}
    assert made["findings"] == {"seen": made["images"]}, "what the method tells about the fit"
    listed = served.get("/v1/collections/c/scorers").json()["scorers"]
    assert "spread" in [one["id"] for one in listed]
    assert all(one["state"] == "ready" for one in listed if one["live"])


def test_scores_are_the_methods_own_and_calibrated_on_images_it_did_not_see(served: TestClient) -> None:
    fit(served, "c", "mine", method="spread")
    bank = vectors(served, "c")
    fitted = core_of(served).fitted.serving(core_of(served).shelf.get("c").id, "mine")
    assert fitted is not None
    seen = set(fitted.scorer.export().arrays["seen"].tolist())
    assert seen < set(bank) and fitted.members.tolist() == sorted(bank)
    aside = sorted(set(bank) - seen)
    mean = np.mean([bank[pk] for pk in sorted(seen)], axis=0, dtype=np.float32)
    expected = sorted(float(np.linalg.norm(bank[pk] - mean)) for pk in aside)
    assert sorted(fitted.calibration.tolist()) == pytest.approx(expected, rel=1e-5)

    body = asked(served, "c", QUERIES, scorer="mine", false_alarm_rate=0.1)
    assert (body["scorer"], body["method"], body["k"]) == ("mine", "spread", None)
    assert body["calibration"]["n"] == len(aside) and body["fit"]["revision"] == fitted.sequence
    for one in body["results"]:
        at_least = sum(value >= one["score"] for value in fitted.calibration)
        assert one["p_value"] == pytest.approx((1 + at_least) / (len(aside) + 1))
        assert one["anomalous"] == (one["score"] > body["calibration"]["threshold"])
        assert len(one["neighbours"]) == 3 and one["details"] == {}
    assert body["results"][2]["score"] > max(one["score"] for one in body["results"][:2])


def test_a_score_does_not_depend_on_its_mates(served: TestClient) -> None:
    fit(served, "c", "contrast")
    together = asked(served, "c", QUERIES, scorer="contrast", heatmap=True)["results"]
    for query, mated in zip(QUERIES, together, strict=True):
        (alone,) = asked(served, "c", [query], scorer="contrast", heatmap=True)["results"]
        assert {**alone, "neighbours": None} == {**mated, "neighbours": None}


def test_a_heat_map_has_one_scale_and_points_at_the_defect(served: TestClient) -> None:
    fit(served, "c", "contrast")
    good, _, scratched = asked(served, "c", QUERIES, scorer="contrast", heatmap=True)["results"]
    assert [good["heatmap"][name] for name in ("low", "border", "high")] == [
        scratched["heatmap"][name] for name in ("low", "border", "high")
    ]
    heat = {}
    for name, one in (("good", good), ("scratched", scratched)):
        told = one["heatmap"]
        heat[name] = np.frombuffer(base64.b64decode(told["values"]), "<f4").reshape(told["shape"])
        assert heat[name].max() == pytest.approx(one["score"])
        assert told["region"] == {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0}
        overlay = Image.open(io.BytesIO(base64.b64decode(told["overlay"].partition(",")[2])))
        assert overlay.size == (32, 32) and overlay.mode == "RGBA"
    assert np.unravel_index(heat["scratched"].argmax(), (4, 4)) in [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert heat["good"].max() < good["heatmap"]["high"] < heat["scratched"].max()
    assert set(good["details"]) == {"terms", "tags"}
    assert isinstance(good["details"]["terms"]["features"], float) and len(good["details"]["terms"]["cells"]) == 16
    assert scratched["details"]["tags"]["where"] in [f"cell {place}" for place in (5, 6, 9, 10)]
    assert "heatmap" not in asked(served, "c", QUERIES[:1], scorer="contrast")["results"][0]


def test_stored_images_are_scored_too_and_those_that_took_part_are_named(served: TestClient) -> None:
    fit(served, "c", "contrast")
    served.put("/v1/collections/d").raise_for_status()
    answer = served.post("/v1/collections/c/anomaly", json={"ids": ["n01", "none"], "scorer": "contrast"})
    assert answer.status_code == 207
    first, second = answer.json()["results"]
    assert (first["id"], first["took_part"]) == ("n01", True) and "n01" not in [o["id"] for o in first["neighbours"]]
    assert second["problem"]["code"] == "image_unknown"
    assert first["score"] == scores(served, "c", [IMAGES["n01"]], scorer="contrast")[0]


def test_a_broken_file_is_a_problem_in_its_place(served: TestClient) -> None:
    fit(served, "c", "contrast")
    files = [("files", ("a.png", b"no image")), ("files", ("b.png", QUERIES[0]))]
    answer = served.post("/v1/collections/c/anomaly", files=files, params={"scorer": "contrast", "control": "fdr"})
    assert answer.status_code == 207
    first, second = answer.json()["results"]
    assert first["problem"]["code"] == "image_unreadable" and second["flagged"] is False


def test_staleness_counts_what_came_and_went(served: TestClient) -> None:
    add(served, "stale", dict(list(IMAGES.items())[:40]))
    fit(served, "stale", "spread")
    before = scores(served, "stale", QUERIES, scorer="spread")
    add(served, "stale", {"x1": part(501), "x2": part(502), "x3": part(503)})
    served.delete("/v1/collections/stale/images/n00").raise_for_status()
    served.patch("/v1/collections/stale/images/n01", json={"role": "unlabelled"}).raise_for_status()
    served.patch("/v1/collections/stale/images/n02", json={"metadata": {"a": 1}}).raise_for_status()
    add(served, "stale", {"n03": part(504)})  # other bytes under the same id
    stale = shown(served, "stale", "spread")["fit"]["stale"]
    assert (stale["added"], stale["removed"]) == (4, 3) and stale["revisions"] > 0
    assert scores(served, "stale", QUERIES, scorer="spread") == before
    fit(served, "stale", "spread")
    assert shown(served, "stale", "spread")["fit"]["stale"]["added"] == 0
    assert scores(served, "stale", QUERIES, scorer="spread") != before


def test_a_refit_serves_only_when_it_is_done_and_a_failed_one_never(served: TestClient) -> None:
    add(served, "refit", IMAGES)
    fit(served, "refit", "spread")
    before = scores(served, "refit", QUERIES, scorer="spread")
    gate = outside().GO_ON
    gate.clear()
    try:
        again = {"params": {"factor": 3.0, "waits": True}}
        first = served.put("/v1/collections/refit/scorers/spread", json=again).json()
        assert shown(served, "refit", "spread")["state"] == "fitting"
        assert shown(served, "refit", "spread")["serving"] is True
        assert scores(served, "refit", QUERIES, scorer="spread") == before
        repeated = served.put("/v1/collections/refit/scorers/spread", json=again)
        assert repeated.status_code == 202 and repeated.json()["id"] == first["id"]  # the same fit is under way
    finally:
        gate.set()
    finished = fit(served, "refit", "spread", **again)
    assert scores(served, "refit", QUERIES, scorer="spread") == pytest.approx([3 * one for one in before], rel=1e-6)
    assert finished["parameters"]["params"]["factor"] == 3.0
    answer = served.put(
        "/v1/collections/refit/scorers/spread", json={"params": {"refuse": True}}, params={"wait": 60}
    ).json()
    assert answer["state"] == "failed" and answer["problem"]["code"] == "fit_refused"
    told = shown(served, "refit", "spread")
    assert told["state"] == "ready" and told["problem"]["code"] == "fit_refused" and told["serving"]
    assert told["fit"]["params"]["factor"] == 3.0
    assert scores(served, "refit", QUERIES, scorer="spread") == pytest.approx([3 * one for one in before], rel=1e-6)


def test_a_first_fit_that_fails_leaves_nothing_to_score_by(served: TestClient) -> None:
    add(served, "refused", IMAGES)
    job = served.put(
        "/v1/collections/refused/scorers/spread", json={"params": {"refuse": True}}, params={"wait": 60}
    ).json()
    assert job["problem"]["detail"] == "The bank of method `spread` must please it; got this one."
    told = shown(served, "refused", "spread")
    assert (told["state"], told["serving"], told["fit"]) == ("failed", False, None)
    answer = served.post("/v1/collections/refused/anomaly?scorer=spread", json={"ids": ["n01"]})
    problem_of(answer, 409, "scorer_not_fitted")


def test_a_fit_can_be_cancelled_and_another_one_takes_its_place(served: TestClient) -> None:
    add(served, "cancel", IMAGES)
    gate = outside().GO_ON
    gate.clear()
    path = "/v1/collections/cancel/scorers/spread"
    try:
        job = served.put(path, json={"params": {"waits": True}}).json()
        served.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        ended = served.put(path, json={"params": {"factor": 5.0}}, params={"wait": 60}).json()
        assert ended["state"] == "succeeded"
        assert served.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
        # A fit that was not cancelled is, when another is asked for.
        job = served.put(path, json={"params": {"waits": True}}).json()
        fit(served, "cancel", "spread", params={"factor": 7.0})
        assert served.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    finally:
        gate.set()
    assert shown(served, "cancel", "spread")["fit"]["params"]["factor"] == 7.0
    assert not list((core_of(served).settings.data / "fitting").iterdir())


def test_the_seed_decides_and_the_same_fit_gives_the_same_bytes(served: TestClient) -> None:
    shas = [
        fit(served, "c", name, method="spread", params={"jitter": 0.5}, seed=seed)["result"]["sha256"]
        for name, seed in (("s1", 1), ("s2", 1), ("s3", 2))
    ]
    assert shas[0] == shas[1] != shas[2]


def test_deleting_a_scorer_and_a_collection(served: TestClient) -> None:
    add(served, "gone", IMAGES)
    fit(served, "gone", "spread")
    assert len(scores(served, "gone", QUERIES, scorer="spread")) == 3
    core = core_of(served)
    fit_id = core.fitted.serving(core.shelf.get("gone").id, "spread").id
    served.delete("/v1/collections/gone/scorers/spread").raise_for_status()
    assert fit_id not in core.fitted._kept
    problem_of(served.get("/v1/collections/gone/scorers/spread"), 404, "scorer_unknown")
    problem_of(served.delete("/v1/collections/gone/scorers/spread"), 404, "scorer_unknown")
    answer = served.post("/v1/collections/gone/anomaly?scorer=spread", json={"ids": ["n01"]})
    problem_of(answer, 409, "scorer_not_fitted")
    fit(served, "gone", "spread")
    scores(served, "gone", QUERIES, scorer="spread")
    fit_id = core.fitted.serving(core.shelf.get("gone").id, "spread").id
    served.delete("/v1/collections/gone").raise_for_status()
    assert fit_id not in core.fitted._kept
    with core.database.read() as session:
        tables = ("fit_parts", "fits")
        left = {one: session.connection().exec_driver_sql(f"SELECT count(*) FROM {one}").scalar() for one in tables}
        kept = session.connection().exec_driver_sql("SELECT count(*) FROM scorers WHERE fit_id IS NOT NULL").scalar()
    assert left["fits"] == kept and left["fit_parts"] >= kept


def test_refusals(served: TestClient) -> None:
    put = served.put
    problem_of(put("/v1/collections/none/scorers/spread"), 404, "collection_unknown")
    problem_of(put("/v1/collections/c/scorers/nothing"), 422, "method_unknown")
    problem_of(put("/v1/collections/c/scorers/x", json={"method": "nothing"}), 422, "method_unknown")
    problem_of(put("/v1/collections/c/scorers/dn2"), 409, "scorer_live")
    problem_of(put("/v1/collections/c/scorers/x", json={"method": "dn2"}), 409, "scorer_live")
    problem_of(put("/v1/collections/c/scorers/contrast", json={"method": "spread"}), 409, "scorer_taken")
    problem_of(put("/v1/collections/c/scorers/spread", json={"seed": -1}), 422, "invalid")
    problem_of(put("/v1/collections/c/scorers/spread", json={"unknown": 1}), 422, "invalid")
    problem_of(put("/v1/collections/c/scorers/a b"), 422, "invalid")
    sentence = problem_of(
        put("/v1/collections/c/scorers/spread", json={"params": {"factor": 0}}), 422, "parameter_invalid"
    )["detail"]
    assert sentence == "`factor` of method `spread` must be greater than 0; got 0."
    sentence = problem_of(put("/v1/collections/c/scorers/spread", json={"params": {"k": 1}}), 422)["detail"]
    assert "`k` of method `spread` is not one of its parameters" in sentence
    served.put("/v1/collections/empty").raise_for_status()
    body = problem_of(put("/v1/collections/empty/scorers/contrast"), 409, "scorer_needs")
    assert body["missing"] == ["pixels", "maps"] and "normal images" in body["detail"]
    fit(served, "c", "spread")
    score = "/v1/collections/c/anomaly?scorer=spread"
    problem_of(served.post(f"{score}&heatmap=true", json={"ids": ["n01"]}), 422, "heatmap_not_offered")
    problem_of(served.post(f"{score}&k=3", json={"ids": ["n01"]}), 422, "k_not_offered")
    problem_of(served.post("/v1/collections/c/anomaly?scorer=never", json={"ids": ["n01"]}), 409, "scorer_not_fitted")


def test_a_bank_too_small_to_calibrate_is_a_failed_job_that_says_so(served: TestClient) -> None:
    add(served, "few", dict(list(IMAGES.items())[:19]))
    job = served.put("/v1/collections/few/scorers/spread", params={"wait": 60}).json()
    assert job["problem"]["code"] == "bank_too_small" and "at least 20 normal images" in job["problem"]["detail"]


def test_another_embedding_makes_it_stale(served: TestClient) -> None:
    add(served, "embedding", IMAGES)
    fit(served, "embedding", "spread")
    served.post("/v1/collections/embedding/images/delete", json={"ids": list(IMAGES)}).raise_for_status()
    served.patch("/v1/collections/embedding", json={"image_size": 48}).raise_for_status()
    add(served, "embedding", dict(list(IMAGES.items())[:3]))
    answer = served.post("/v1/collections/embedding/anomaly?scorer=spread", json={"ids": ["n01"]})
    assert "fit it again" in problem_of(answer, 409, "stale_embedding")["detail"]
    told = shown(served, "embedding", "spread")
    assert told["serving"] is False and told["fit"]["stale"]["embedding"] is True


def test_a_restart_finds_the_scorer_as_it_was(outside_methods: Path, settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        add(client, "c", IMAGES)
        fit(client, "c", "contrast")
        before = asked(client, "c", QUERIES, scorer="contrast", heatmap=True)["results"]
    with TestClient(create_app(settings)) as client:
        assert asked(client, "c", QUERIES, scorer="contrast", heatmap=True)["results"] == before


def test_a_damaged_state_is_refused(served: TestClient) -> None:
    add(served, "damaged", IMAGES)
    fit(served, "damaged", "spread")
    core = core_of(served)
    with core.database.write() as session:
        connection = session.connection()
        statement = "SELECT max(id) FROM fits"
        fit_id = connection.exec_driver_sql(statement).scalar()
        data = connection.exec_driver_sql(f"SELECT data FROM fit_parts WHERE fit_id = {fit_id}").scalar()
        connection.exec_driver_sql(
            f"UPDATE fit_parts SET data = ? WHERE fit_id = {fit_id}", (data[:-1] + bytes([data[-1] ^ 1]),)
        )
    problem_of(
        served.post("/v1/collections/damaged/anomaly?scorer=spread", json={"ids": ["n01"]}), 500, "scorer_damaged"
    )
    with pytest.raises(StateDamaged, match="must have SHA-256"):
        core.fitted.get(fit_id)
    assert shown(served, "damaged", "spread")["fit"]["findings"] is None


def test_memory_is_bounded_and_what_made_room_comes_back(outside_methods: Path, settings: Settings) -> None:
    budget = settings.model_copy(update={"scorer_budget_bytes": 2**20})
    with TestClient(create_app(budget)) as client:
        add(client, "c", IMAGES)
        core = core_of(client)
        core.fitted._budget_bytes = 6000  # two of the three
        told = {}
        for name in ("a", "b", "d"):
            fit(client, "c", name, method="spread")
            told[name] = scores(client, "c", QUERIES, scorer=name)
        assert core.fitted.memory()[0] == 2 and core.fitted.memory()[1] <= 6000
        assert scores(client, "c", QUERIES, scorer="a") == told["a"]


def test_eight_requests_at_once(served: TestClient) -> None:
    fit(served, "c", "contrast")
    core_of(served).fitted.forget(list(core_of(served).fitted._kept))
    expected = scores(served, "c", QUERIES, scorer="contrast")
    found: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: found.append(scores(served, "c", QUERIES, scorer="contrast"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


def test_whole_groups_are_held_out(served: TestClient) -> None:
    served.put("/v1/collections/groups").raise_for_status()
    items = [{"id": name, "group": f"part-{place // 6}"} for place, name in enumerate(IMAGES)]
    served.post(
        "/v1/collections/groups/images",
        files=[("files", (f"{name}.png", data)) for name, data in IMAGES.items()],
        data={"items": json.dumps(items)},
    ).raise_for_status()
    fit(served, "groups", "spread")
    core = core_of(served)
    state = core.shelf.get("groups")
    loaded = core.fitted.serving(state.id, "spread")
    seen = set(loaded.scorer.export().arrays["seen"].tolist())
    group_of = {pk: state.entries[pk].group for pk in state.dn2.bank.ids().tolist()}
    fitted_groups = {group_of[pk] for pk in seen}
    held_groups = {group_of[pk] for pk in group_of if pk not in seen}
    assert held_groups and not fitted_groups & held_groups
    assert loaded.calibration.size == 12


def test_a_snapshot_names_the_scorers_that_it_does_not_hold(served: TestClient) -> None:
    add(served, "kept", IMAGES)
    fit(served, "kept", "mine", method="spread", params={"factor": 2.0}, seed=5)
    made = served.post("/v1/collections/kept/snapshots", params={"wait": 60}).json()["result"]
    answer = served.post(
        "/v1/collections/back/restore", json={"snapshot": made["snapshot"]}, params={"wait": 60}
    ).json()["result"]
    assert "Fit again what is still wanted: `mine`" in answer["notice"]
    (dropped,) = answer["scorers_dropped"]
    recipe = {name: dropped[name] for name in ("method", "params", "seed")}
    assert recipe["params"]["factor"] == 2.0
    problem_of(served.get("/v1/collections/back/scorers/mine"), 404, "scorer_unknown")
    again = fit(served, "back", dropped["id"], **recipe)
    assert again["result"]["images"] == shown(served, "kept", "mine")["fit"]["images"]
    expected = scores(served, "kept", QUERIES, scorer="mine")
    assert scores(served, "back", QUERIES, scorer="mine") == pytest.approx(expected, rel=1e-6)


def test_a_set_is_judged_by_the_pooled_scores_of_its_images(served: TestClient) -> None:
    bank = {f"n{number:03}": part(number) for number in range(150)}
    add(served, "sets", bank)
    fit(served, "sets", "spread")
    path = "/v1/collections/sets/groups/anomaly"
    files = [("files", (f"{place}.png", data)) for place, data in enumerate(QUERIES)]
    single = [one["score"] for one in asked(served, "sets", QUERIES, scorer="spread")["results"]]
    fitted = core_of(served).fitted.serving(core_of(served).shelf.get("sets").id, "spread")
    assert fitted is not None
    excess = np.sqrt(np.mean(np.maximum(np.array(single) - np.median(fitted.calibration), 0) ** 2))
    for pooling, expected in (("mean", np.mean(single)), ("max", np.max(single)), ("excess", excess)):
        answer = served.post(path, files=files, params={"scorer": "spread", "pooling": pooling})
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert told["score"] == pytest.approx(expected)
        assert (told["scorer"], told["reference"], told["neighbours"]) == ("spread", "held_out", [])
        assert [one["score"] for one in told["members"]] == single
        assert sum(one["share"] for one in told["members"]) == pytest.approx(1.0)
        assert int(np.argmax([one["share"] for one in told["members"]])) == int(np.argmax(single))
        held_out = round(CALIBRATION_SHARE * len(bank))
        assert told["calibration"]["n"] == held_out // len(QUERIES) and told["anomalous"] in (True, False)
        assert 1 / (told["calibration"]["n"] + 1) <= told["p_value"] <= 1
    turned = served.post(path, files=files[::-1], params={"scorer": "spread"}).json()
    assert turned["score"] == served.post(path, files=files, params={"scorer": "spread"}).json()["score"]
    stored = served.post(path, json={"ids": ["n000", "n001"], "scorer": "spread"}).json()
    assert [one["took_part"] for one in stored["members"]] == [True, True]
    few = served.post(path, json={"ids": sorted(bank)[:20], "scorer": "spread"}).json()
    assert (few["calibration"]["n"], few["anomalous"]) == (1, None)
    plain = served.post(path, files=files).json()
    assert plain["scorer"] == "group"


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"scorer": "nobody"}, 409, "scorer_not_fitted"),
        ({"scorer": "spread", "pooling": "concat"}, 422, "pooling_not_offered"),
        ({"scorer": "spread", "k": 3}, 422, "k_not_offered"),
        ({"scorer": "spread", "neighbours": 3}, 422, "neighbours_not_offered"),
    ],
)
def test_what_a_fitted_scorer_cannot_do_with_a_set_is_refused(
    served: TestClient, parameters: dict[str, Any], status: int, code: str
) -> None:
    if served.get("/v1/collections/c/scorers/spread").status_code == 404:
        fit(served, "c", "spread")
    answer = served.post("/v1/collections/c/groups/anomaly", json={"ids": ["n00", "n01"], **parameters})
    problem_of(answer, status, code)
