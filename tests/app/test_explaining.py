"""Explanations over HTTP: of the score that is served, by the nearest images and by maps that find a planted defect."""

import base64
import io
import json
import sys
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.explaining import subjects
from models.catalog import installed
from models.contract import Give, Need
from tests.app.working import core_of, cosine_distances, finished
from tests.conftest import add
from tests.contract.problem_shape import problem_of

C = "/v1/collections/parts"
MAPS = ["occlusion", "gradient", "lime", "shap"]
PLACES = {"upper": (4, 4), "lower": (20, 18)}  # of the defect's corner: rows and columns
DEFECT = 8  # pixels a side
GRID = 4  # cells of 8 pixels
QUICK = {"grid": GRID, "evaluations": 97, "steps": 8}


def sheet(seed: int, place: str | None = None, width: int = 32) -> bytes:
    """A shaded sheet with its own grain; a defect is a red square."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :width]
    pixels = np.stack([110 + x, 90 + 2 * y, 120 + x], axis=-1) + random.normal(0, 1.5, (32, width, 3))
    if place is not None:
        top, left = PLACES[place]
        pixels[top : top + DEFECT, left : left + DEFECT] = (220, 40, 60)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def files(*images: bytes) -> list:
    return [("files", (f"{place}.png", data, "image/png")) for place, data in enumerate(images)]


def method_with(what: Callable[[str], bool]) -> str:
    """The first method of this repository that is fitted to vectors alone and has this."""
    return next(
        name
        for name, card in installed().items()
        if not card.live and card.needs.required == (Need.VECTORS,) and what(name)
    )


SLOPED = method_with(
    lambda name: "slopes" in getattr(signature(installed().method(name).fit).return_annotation, "__dict__", {})
)
SELF = method_with(lambda name: Give.EXPLANATION in installed()[name].gives.outputs)


@pytest.fixture(scope="module")
def served(outside_methods: object, shared: TestClient) -> Iterator[TestClient]:
    """Normal sheets, two classes of defects, and fitted scorers. Tests that use it must not write."""
    add(shared, "parts", {f"n{seed}": sheet(seed) for seed in range(30)})
    for place, first in (("upper", 200), ("lower", 300)):
        items = json.dumps([{"id": f"{place}{seed}"} for seed in range(6)])
        images = [sheet(first + seed, place) for seed in range(6)]
        shared.put(f"{C}/classes/{place}", files=files(*images), data={"items": items}).raise_for_status()
    for method in (SLOPED, SELF, "contrast", "spread"):
        fit = shared.put(f"{C}/scorers/{method}", json={"params": {}}, params={"wait": 60})
        assert fit.status_code == 200 and fit.json()["state"] == "succeeded", fit.text
    yield shared


def asked(client: TestClient, *images: bytes, status: int = 200, **parameters: Any) -> dict:
    answer = client.post(f"{C}/explain", files=files(*images), params=parameters)
    assert answer.status_code == status, answer.text
    return answer.json()


def values(told: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(told["values"]), "<f4").reshape(told["shape"])


def share_inside(told: dict, place: str) -> float:
    """How much of what a map holds for the score lies in the cells that the defect touches."""
    positive = np.clip(values(told), 0, None)
    top, left = (one * GRID // 32 for one in PLACES[place])
    low, right = ((one + DEFECT - 1) * GRID // 32 for one in PLACES[place])
    return float(positive[top : low + 1, left : right + 1].sum() / positive.sum())


# --- examples ---


def test_examples_are_what_brute_force_finds_of_every_kind(served: TestClient) -> None:
    answer = asked(served, sheet(900, "upper"), neighbours=4)
    (one,) = answer["results"]
    plain = served.post(f"{C}/anomaly", files=files(sheet(900, "upper")), params={"neighbours": 4}).json()
    assert answer["explained_by"] == "examples" and "map" not in one
    assert {name: one[name] for name in ("score", "p_value", "anomalous")} == {
        name: plain["results"][0][name] for name in ("score", "p_value", "anomalous")
    }
    normal = [{name: near[name] for name in ("id", "distance", "metadata")} for near in one["examples"]["normal"]]
    assert normal == plain["results"][0]["neighbours"] and len(normal) == 4
    # By hand: the means of the last stage's maps, and their cosines.
    core = core_of(served)
    state = core.shelf.get("parts", None)
    embedder = core.embedders.of(state).embedder
    stored = {
        **{f"n{seed}": sheet(seed) for seed in range(30)},
        **{f"{p}{seed}": sheet(first + seed, p) for p, first in (("upper", 200), ("lower", 300)) for seed in range(6)},
    }
    prepared = [embedder.prepare(data, core.embedders.limits) for data in (sheet(900, "upper"), *stored.values())]
    query, *rows = embedder.maps(prepared, [4])[4].mean(axis=(1, 2))
    distances = dict(zip(stored, cosine_distances(query[None], np.stack(rows))[0], strict=True))
    shown = [("n", one["examples"]["normal"])]
    shown += [(kind["label"], kind["examples"]) for kind in one["examples"]["classes"]]
    assert [name for name, _ in shown] == ["n", "upper", "lower"]  # the class of its own kind first
    for prefix, examples in shown:
        nearest = sorted((name for name in stored if name.startswith(prefix)), key=lambda name: distances[name])[:4]
        assert [near["id"] for near in examples] == nearest
        assert [near["distance"] for near in examples] == pytest.approx([distances[name] for name in nearest], abs=1e-5)
    thumbnail = served.get(one["examples"]["classes"][0]["examples"][0]["thumbnail"])
    assert thumbnail.status_code == 200 and thumbnail.headers["content-type"].startswith("image/")


def test_a_bank_image_explains_itself_first_and_not_when_asked_by_its_id(served: TestClient) -> None:
    (sent,) = asked(served, sheet(7))["results"]
    assert sent["examples"]["normal"][0]["id"] == "n7"
    assert sent["examples"]["normal"][0]["distance"] == pytest.approx(0.0, abs=1e-5)
    answer = served.post(f"{C}/explain", json={"ids": ["n7", "upper2"], "classes": 1}).json()
    by_id, example = answer["results"]
    assert "n7" not in [near["id"] for near in by_id["examples"]["normal"]] and by_id["id"] == "n7"
    (own,) = example["examples"]["classes"]
    assert own["label"] == "upper" and "upper2" not in [near["id"] for near in own["examples"]]


def test_known_defects_are_shown(client: TestClient) -> None:
    add(client, "parts", {f"n{seed}": sheet(seed) for seed in range(3)})
    add(client, "parts", {"bad": sheet(50, "lower")}, role="anomalous")
    (one,) = asked(client, sheet(51, "lower"))["results"]
    assert [near["id"] for near in one["examples"]["anomalous"]] == ["bad"] and one["examples"]["classes"] == []


# --- maps ---


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("place", ["lower", pytest.param("upper", marks=pytest.mark.slow)])
def test_a_map_finds_the_planted_defect(served: TestClient, method: str, place: str) -> None:
    (one,) = asked(served, sheet(901, place), method=method, window=1, **QUICK)["results"]
    told = one["map"]
    assert told["value"] == pytest.approx(one["score"], rel=1e-4) and told["target"] == "score"
    assert told["baseline"] == {"kind": "normal", "id": one["examples"]["normal"][0]["id"]}
    assert told["baseline_value"] < 0.3 * told["value"]
    elsewhere = next(other for other in PLACES if other != place)
    assert share_inside(told, place) > 0.85 > 0.2 > share_inside(told, elsewhere)
    # Negative control: cells in another order hold little of it where the defect is.
    shuffled = np.random.default_rng(0).permutation(values(told).ravel()).astype("<f4")
    random = {**told, "values": base64.b64encode(shuffled.tobytes()).decode()}
    assert share_inside(random, place) < 0.85
    overlay = np.asarray(Image.open(io.BytesIO(base64.b64decode(told["overlay"].partition(",")[2]))))
    assert overlay.shape == (32, 32, 4) and overlay[:, :, 3].max() > 150
    # A normal image has no such place: on the same scale its map is pale.
    (usual,) = asked(served, sheet(902), method=method, window=1, **QUICK)["results"]
    assert usual["map"]["high"] == told["high"]
    assert np.abs(values(usual["map"])).max() < 0.25 * values(told).max()


def test_shapley_values_and_gradients_add_up_to_the_difference(served: TestClient) -> None:
    image = sheet(903, "lower")
    for baseline in ("normal", "blur", "mean"):
        told = asked(served, image, method="shap", baseline=baseline, **QUICK)["results"][0]["map"]
        assert values(told).sum() == pytest.approx(told["value"] - told["baseline_value"], abs=1e-5)
        assert told["baseline"]["kind"] == baseline and told["evaluations"] == 97
    told = asked(served, image, method="gradient", grid=GRID, steps=64)["results"][0]["map"]
    difference = told["value"] - told["baseline_value"]
    assert values(told).sum() == pytest.approx(difference, rel=0.1)
    lime = asked(served, image, method="lime", **QUICK)["results"][0]["map"]  # the control: promises no such thing
    assert abs(values(lime).sum() - difference) > 0.01 * difference


def test_any_fitted_scorer_is_explained_by_asking_it(served: TestClient) -> None:
    for scorer, method in ((SLOPED, "gradient"), ("contrast", "occlusion"), ("spread", "occlusion")):
        asking = {"scorer": scorer, "method": method, "window": 1, **QUICK}
        (one,) = asked(served, sheet(904, "upper"), **asking)["results"]
        told = one["map"]
        assert told["value"] == pytest.approx(one["score"], rel=1e-3) and one["examples"]["normal"]
        assert share_inside(told, "upper") > 0.6 > 0.2 > share_inside(told, "lower"), (scorer, method)


def test_a_scorer_that_explains_itself_is_heard(served: TestClient) -> None:
    (one,) = asked(served, sheet(905, "upper"), scorer=SELF)["results"]
    assert one["own"]["sentence"].endswith(".") and set(one["own"]["examples"]) == {"towards", "away"}
    (other,) = asked(served, sheet(905, "upper"))["results"]
    assert "own" not in other


# --- classes ---


@pytest.mark.parametrize("method", MAPS)
def test_the_probability_of_a_class_rests_on_its_defect(served: TestClient, method: str) -> None:
    asking = {"scorer": "few_shot_lr", "method": method, "window": 1, **QUICK}
    answer = asked(served, sheet(906, "lower"), **asking)
    (one,) = answer["results"]
    told = one["map"]
    assert one["label"] == told["label"] == "lower" and told["target"] == "probability"
    assert told["value"] == pytest.approx(one["probabilities"]["lower"], rel=1e-3)
    assert told["baseline"] == {"kind": "blur"} and told["high"] == 0.5
    assert share_inside(told, "lower") > 0.5 > share_inside(told, "upper")
    # The other class is spoken against by the same cells.
    (against,) = asked(served, sheet(906, "lower"), label="upper", **asking)["results"]
    assert np.corrcoef(values(told).ravel(), values(against["map"]).ravel())[0, 1] < -0.9


def test_how_strange_to_all_classes_is_explained_too(served: TestClient) -> None:
    asking = {"scorer": "few_shot_lr", "target": "score", "method": "shap", **QUICK}
    (one,) = asked(served, sheet(907), **asking)["results"]
    told = one["map"]
    assert told["value"] == pytest.approx(one["score"], rel=1e-4) and told["label"] is None
    assert values(told).sum() == pytest.approx(told["value"] - told["baseline_value"], abs=1e-5)


# --- what cannot be ---


@pytest.mark.parametrize(
    ("parameters", "status", "code"),
    [
        ({"method": "guess"}, 422, "invalid"),
        ({"colour": "red"}, 422, "invalid"),
        ({"grid": 1}, 422, "parameter_invalid"),
        ({"method": "occlusion", "grid": 33}, 422, "parameter_invalid"),
        ({"method": "shap", "evaluations": 20}, 422, "parameter_invalid"),
        ({"method": "lime", "evaluations": 10_001}, 422, "parameter_invalid"),
        ({"target": "probability"}, 422, "probability_not_offered"),
        ({"scorer": "spread", "method": "occlusion", "label": "x"}, 422, "probability_not_offered"),
        ({"label": "upper", "target": "score"}, 422, "conflicting_parameters"),
        ({"scorer": "few_shot_lr", "label": "none"}, 422, "class_unknown"),
        ({"scorer": "few_shot_lr", "k": 3}, 422, "k_not_offered"),
        ({"scorer": "contrast", "method": "gradient"}, 422, "gradient_not_offered"),
        ({"scorer": "nothing"}, 409, "scorer_not_fitted"),
    ],
)
def test_a_wrong_wish_is_refused(served: TestClient, parameters: dict, status: int, code: str) -> None:
    answer = served.post(f"{C}/explain", files=files(sheet(1)), params=parameters)
    body = problem_of(answer, status, code)
    assert body["detail"].endswith(".")


def test_maps_are_bounded_in_number_and_time(served: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {"ids": [f"n{seed}" for seed in range(17)]}
    problem_of(served.post(f"{C}/explain", json={**many, "method": "occlusion"}), 422, "too_many_images")
    assert len(served.post(f"{C}/explain", json=many).json()["results"]) == 17  # examples are cheap
    monkeypatch.setattr(subjects, "remaining_s", lambda _: 0.0)
    for method in MAPS:
        answer = served.post(f"{C}/explain", files=files(sheet(1)), params={"method": method, **QUICK})
        assert "`evaluations`" in problem_of(answer, 503, "deadline_passed")["detail"]


def test_without_captum_the_answer_names_the_extra(served: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "models.methods.explain.sampling", raising=False)
    monkeypatch.delattr(sys.modules["models.methods.explain"], "sampling", raising=False)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    answer = served.post(f"{C}/explain", files=files(sheet(1)), params={"method": "lime", **QUICK})
    assert "oddity[explain]" in problem_of(answer, 409, "library_missing")["detail"]


def test_a_bad_file_keeps_its_place_and_the_bank_may_be_empty(served: TestClient) -> None:
    answer = asked(served, b"no image", sheet(908), status=207, method="occlusion", **QUICK)
    assert answer["results"][0]["problem"]["code"] == "image_unreadable" and answer["results"][1]["map"]
    # Classes without a single normal image.
    base = "/v1/collections/kinds"
    served.put(base).raise_for_status()
    for kind, place in enumerate(PLACES):
        images = [sheet(400 + 10 * kind + seed, place) for seed in range(3)]
        served.put(f"{base}/classes/{place}", files=files(*images)).raise_for_status()
    asking = {"scorer": "few_shot_lr", "method": "occlusion", **QUICK}
    (one,) = served.post(f"{base}/explain", files=files(sheet(909, "upper")), params=asking).json()["results"]
    assert one["examples"]["normal"] == [] and one["map"]["label"] == "upper"
    refused = served.post(f"{base}/explain", files=files(sheet(1)), params={**asking, "baseline": "normal"})
    problem_of(refused, 409, "bank_too_small")


@pytest.mark.parametrize("metric", [{"metric": "l2", "normalize": True}, {}])
def test_a_compressed_bank_is_explained_by_what_is_left_of_it(served: TestClient, metric: dict) -> None:
    name = "small-l2" if metric else "small"
    base = f"/v1/collections/{name}"
    served.put(base, json=metric).raise_for_status()
    add(served, name, {f"n{seed}": sheet(seed) for seed in range(24)})
    finished(served, f"{base}/compress", {"method": "kmeans", "size": 5})
    for method in ("occlusion", "gradient"):
        asking = {"method": method, "window": 1, **QUICK}
        (one,) = served.post(f"{base}/explain", files=files(sheet(911, "lower")), params=asking).json()["results"]
        assert one["map"]["value"] == pytest.approx(one["score"], rel=1e-4)
        assert share_inside(one["map"], "lower") > 0.8
        assert one["map"]["baseline"]["id"] == one["examples"]["normal"][0]["id"]


def test_the_map_of_an_oblong_image_lies_on_it(served: TestClient) -> None:
    told = asked(served, sheet(910, width=64), method="occlusion", **QUICK)["results"][0]["map"]
    assert told["region"] == {"left": 0.0, "top": 0.0, "right": 1.0, "bottom": 1.0}
    overlay = Image.open(io.BytesIO(base64.b64decode(told["overlay"].partition(",")[2])))
    assert overlay.size == (64, 32)
