"""Cleaning, compressing and calibrating over HTTP, judged by plain arithmetic on the stored vectors."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from starlette.testclient import TestClient

from app.compressed import CompressedScorer, compressed_scorer
from app.db.tables import VectorRow
from app.main import create_app
from app.settings import Settings
from app.shelf import CollectionState, Shelf
from app.upkeep.cleaning import bias_note
from models.catalog import installed
from models.contract import BankCleaner, Give, Need
from tests.app.working import asked, core_of, cosine_distances, finished, part, scores
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


BOTH = {"fraction": 0.1, "scorer": "x"}
# Methods by what they do: one that says what to keep of a bank, and one that does not.
OF_VECTORS = [one for one in installed().values() if not one.live and one.needs.required == (Need.VECTORS,)]
CLEANER = next(one.name for one in OF_VECTORS if Give.CLEANED_BANK in one.gives.outputs)
PLAIN = next(one.name for one in OF_VECTORS if one.gives.outputs == (Give.IMAGE_SCORE,) and one.status == "supported")
PROBES = [png(seed, kind=kind) for seed in (900, 901, 902) for kind in ("noise", "stripes")] + [part(903)]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A collection of the test's own."""
    return f"of_{request.node.name}"[:100].replace("[", ".").replace("]", "")


@pytest.fixture
def bank(client: TestClient, name: str) -> dict[str, bytes]:
    """Normal images of one kind, and four strangers among them: thirty in all."""
    images = {f"n{seed}": part(seed) for seed in range(26)}
    images |= {f"strange{seed}": png(500 + seed, kind="stripes") for seed in range(4)}
    add(client, name, images)
    return images


def state_of(client: TestClient, name: str) -> CollectionState:
    return core_of(client).shelf.get(name)


def roles(client: TestClient, name: str) -> dict[str, str]:
    page = client.get(f"/v1/collections/{name}/images", params={"limit": 1000}).json()
    return {image["id"]: image["role"] for image in page["images"]}


def by_hand(state: CollectionState, k: int = 2) -> dict[str, float]:
    """Leave-one-out scores of the whole bank."""
    pks = state.dn2.bank.ids()
    vectors = state.vectors(pks)
    distances = cosine_distances(vectors, vectors)
    np.fill_diagonal(distances, np.inf)
    means = np.sort(distances, axis=1)[:, :k].mean(axis=1)
    return {state.entries[pk].image_id: mean for pk, mean in zip(pks.tolist(), means.tolist(), strict=True)}


def test_cleaning_drops_the_strangest_and_says_what_that_does_to_the_promise(
    client: TestClient, name: str, bank: dict[str, bytes]
) -> None:
    expected = by_hand(state_of(client, name), k=5)  # as many as are dropped, 4.2 of 30, rounded up
    assert asked(client, name, PROBES)["calibration"]["biased"] is None
    assert scores(client, name, [bank["strange0"]], k=1)[0] < 1e-6
    result = finished(client, f"/v1/collections/{name}/clean", {"fraction": 0.14})

    strangest = sorted(expected, key=lambda one: -expected[one])[:4]  # floor(0.14 * 30)
    assert set(strangest) == {f"strange{seed}" for seed in range(4)}, "or the test proves nothing"
    assert [one["id"] for one in result["images"]] == strangest
    assert [one["score"] for one in result["images"]] == pytest.approx([expected[one] for one in strangest], rel=1e-4)
    assert (result["scored"], result["dropped"]) == (30, 4)
    kept = sorted(expected.values())[:-4]
    assert result["largest_score_kept"] == pytest.approx(kept[-1], rel=1e-4)

    now = roles(client, name)
    assert {one for one in now if now[one] == "unlabelled"} == set(strangest)
    after = asked(client, name, PROBES)
    assert after["calibration"]["n"] == 26
    note = after["calibration"]["biased"]
    assert note["direction"] == "more_false_alarms"
    assert note["fraction"] == pytest.approx(4 / 30)
    as_dropped = scores(client, name, [bank["strange0"]], k=1)
    assert as_dropped[0] > 0.1


def test_undoing_a_cleaning_restores_every_score_exactly(client: TestClient, name: str, bank: dict[str, bytes]) -> None:
    before = asked(client, name, PROBES, false_alarm_rate=0.1)
    job = _cleaned(client, name, 0.3)
    between = asked(client, name, PROBES, false_alarm_rate=0.1)
    assert between["results"] != before["results"]
    assert between["calibration"] != before["calibration"]

    answer = client.request("DELETE", f"/v1/collections/{name}/clean/{job}").json()
    assert (answer["undone"]["restored"], answer["undone"]["left"], answer["biased"]) == (9, [], None)
    after = asked(client, name, PROBES, false_alarm_rate=0.1)
    assert after["results"] == before["results"]
    assert after["calibration"] == before["calibration"]
    again = client.request("DELETE", f"/v1/collections/{name}/clean/{job}").json()
    assert again["undone"] == answer["undone"], "undoing twice changes nothing more"


def _cleaned(client: TestClient, name: str, fraction: float) -> str:
    answer = client.post(f"/v1/collections/{name}/clean", json={"fraction": fraction}, params={"wait": 60})
    assert answer.json()["state"] == "succeeded", answer.text
    job_id: str = answer.json()["id"]
    return job_id


def test_undoing_leaves_alone_what_was_decided_since(client: TestClient, name: str, bank: dict[str, bytes]) -> None:
    job = _cleaned(client, name, 0.14)
    client.patch(f"/v1/collections/{name}/images/strange0", json={"role": "anomalous"}).raise_for_status()
    client.delete(f"/v1/collections/{name}/images/strange1").raise_for_status()
    answer = client.request("DELETE", f"/v1/collections/{name}/clean/{job}").json()
    assert answer["undone"]["restored"] == 2
    assert answer["undone"]["left"] == [{"id": "strange0", "role": "anomalous"}]
    assert answer["undone"]["deleted"] == 1
    now = roles(client, name)
    assert (now["strange0"], now["strange2"]) == ("anomalous", "normal")


def test_each_cleaning_is_undone_by_itself(client: TestClient, name: str, bank: dict[str, bytes]) -> None:
    first = _cleaned(client, name, 0.14)
    second = _cleaned(client, name, 0.14)
    path = f"/v1/collections/{name}/clean"
    listed = client.get(path).json()
    assert [one["job"] for one in listed["cleanings"]] == [first, second]
    assert listed["biased"]["fraction"] == pytest.approx(1 - (26 / 30) * (23 / 26))
    answer = client.request("DELETE", f"{path}/{first}").json()
    assert answer["biased"]["cleanings"] == [second]
    assert sum(role == "unlabelled" for role in roles(client, name).values()) == 3
    assert client.request("DELETE", f"{path}/{second}").json()["biased"] is None
    assert set(roles(client, name).values()) == {"normal"}


def test_an_image_dropped_again_stays_out_when_the_first_cleaning_is_undone(
    client: TestClient, name: str, bank: dict[str, bytes]
) -> None:
    first = _cleaned(client, name, 0.14)
    for seed in range(4):
        client.patch(f"/v1/collections/{name}/images/strange{seed}", json={"role": "normal"}).raise_for_status()
    second = _cleaned(client, name, 0.14)
    answer = client.request("DELETE", f"/v1/collections/{name}/clean/{first}").json()
    assert answer["undone"]["restored"] == 0
    assert roles(client, name)["strange0"] == "unlabelled"
    client.request("DELETE", f"/v1/collections/{name}/clean/{second}").raise_for_status()
    assert roles(client, name)["strange0"] == "normal"


def test_what_a_cleaning_dropped_is_listed_page_by_page(client: TestClient, name: str, bank: dict[str, bytes]) -> None:
    job = _cleaned(client, name, 0.5)
    expected = finished_images(client, job)
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = client.get(f"/v1/collections/{name}/clean/{job}", params={"limit": 5, "cursor": cursor}).json()
        assert len(page["images"]) <= 5
        seen += [{"id": one["id"], "score": one["score"]} for one in page["images"]]
        cursor = page["next"]
    assert len(expected) == 15
    assert sorted(seen, key=lambda one: one["id"]) == sorted(expected, key=lambda one: one["id"])
    assert [one["score"] for one in seen] == sorted((one["score"] for one in seen), reverse=True)


def finished_images(client: TestClient, job: str) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = client.get(f"/v1/jobs/{job}").json()["result"]["images"]
    return images


def test_a_fitted_scorer_cleans_by_its_own_choice(client: TestClient, name: str, bank: dict[str, bytes]) -> None:
    path = f"/v1/collections/{name}"
    problem_of(client.post(f"{path}/clean", json={"scorer": CLEANER}), 409, "scorer_not_fitted")
    for scorer in (CLEANER, PLAIN):
        fitted = client.put(f"{path}/scorers/{scorer}", params={"wait": 60}, json={})
        assert fitted.json()["state"] == "succeeded", fitted.text
    state = state_of(client, name)
    fit = core_of(client).fitted.serving(state.id, CLEANER)
    assert fit is not None and isinstance(fit.scorer, BankCleaner)
    chosen = fit.scorer.cleaned_bank()
    expected = [state.entries[pk].image_id for pk in chosen.dropped.tolist()]
    assert len(expected) > 1, "or the test proves nothing"
    refused = client.post(f"{path}/clean", json={"scorer": PLAIN})
    assert "cleaned_bank" in problem_of(refused, 422, "cleaning_not_offered")["detail"]

    add(client, name, {expected[0]: part(77)})  # other bytes than when the scorer was fitted: not what it meant
    result = finished(client, f"{path}/clean", {"scorer": CLEANER})
    assert [one["id"] for one in result["images"]] == expected[1:]
    assert [one["score"] for one in result["images"]] == pytest.approx(chosen.scores[1:].tolist())
    looked_at = chosen.kept.size + chosen.dropped.size
    assert (result["scorer"], result["fraction"], result["scored"]) == (CLEANER, None, looked_at)
    assert looked_at < len(bank), "images kept for calibration are not chosen among"
    now = roles(client, name)
    assert {one for one in now if now[one] == "unlabelled"} == set(expected[1:])
    assert result["biased"]["fraction"] == pytest.approx((len(expected) - 1) / looked_at)
    (shown,) = client.get(f"{path}/clean").json()["cleanings"]
    assert shown["scorer"] == CLEANER
    undone = client.delete(f"{path}/clean/{shown['job']}").json()
    assert undone["undone"]["restored"] == len(expected) - 1
    assert set(roles(client, name).values()) == {"normal"}


def test_a_cleaning_of_nothing_leaves_the_promise_whole(client: TestClient, name: str, bank: dict[str, bytes]) -> None:
    result = finished(client, f"/v1/collections/{name}/clean", {"fraction": 0.0})
    assert (result["dropped"], result["biased"]) == (0, None)
    assert bias_note([("job", {"dropped": 1, "scored": 10})]) is not None


def test_what_cannot_be_cleaned_is_refused_at_once(client: TestClient, name: str) -> None:
    client.put(f"/v1/collections/{name}").raise_for_status()
    path = f"/v1/collections/{name}/clean"
    for body in (
        {"fraction": 0.51},
        {"fraction": -0.1},
        {},
        {"fraction": 0.1, "k": 0},
        {"fraction": 0.1, "f": 1},
        BOTH,
        {"scorer": "x", "k": 2},
    ):
        assert client.post(path, json=body).status_code == 422, body
    small = client.post(path, json={"fraction": 0.1})
    assert (small.status_code, small.json()["code"]) == (409, "bank_too_small")
    assert client.post("/v1/collections/nowhere/clean", json={"fraction": 0.1}).status_code == 404
    missing = client.request("DELETE", f"{path}/{'0' * 32}")
    assert (missing.status_code, missing.json()["code"]) == (404, "cleaning_unknown")


def scorer_in(state: CollectionState) -> CompressedScorer:
    scorer = compressed_scorer(state)
    assert scorer is not None
    return scorer


METHODS = pytest.mark.parametrize("method", ["kmeans", "coreset"])


@METHODS
def test_a_compressed_bank_is_calibrated_on_images_it_was_not_chosen_from(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    result = finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 8, "seed": 1})
    state = state_of(client, name)
    scorer = scorer_in(state)
    kept = scorer.calibration()
    assert result["report"]["rows"] == len(scorer.small.bank) == 8
    assert kept.ids.size == 10
    assert not np.isin(kept.ids, scorer.small.bank.ids()).any()

    rows = scorer.small.bank.vectors(scorer.small.bank.ids())
    by_hand_scores = np.sort(cosine_distances(state.vectors(kept.ids), rows), axis=1)[:, :2].mean(axis=1)
    assert kept.scores == pytest.approx(by_hand_scores, rel=1e-4, abs=1e-6)
    assert asked(client, name, PROBES)["calibration"]["n"] == 10
    in_sets = scorer.calibration_in_sets(3)
    assert in_sets.shape == (3, 3) and np.isin(in_sets, kept.scores).all() and np.unique(in_sets).size == 9
    # What it must not be: leave-one-out among the chosen rows.
    among = scorer.small.calibration().scores
    assert np.sort(among).tolist() != pytest.approx(np.sort(by_hand_scores)[: among.size].tolist(), rel=0.05)


@METHODS
def test_the_cost_in_accuracy_is_measured_on_images_that_neither_bank_holds(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    without = finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 8})
    assert without["report"]["roc_auc_whole"] is None
    defects = {f"d{seed}": png(700 + seed, kind="stripes" if seed % 2 else "noise") for seed in range(5)}
    add(client, name, defects, role="anomalous")
    report = finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 8})["report"]

    state = state_of(client, name)
    scorer = scorer_in(state)
    aside = scorer.calibration_ids
    members = np.setdiff1d(state.dn2.bank.ids(), aside)
    known = state.dn2.anomalous.ids()
    probes = state.vectors(np.concatenate([aside, known]))
    small = scorer.small.bank.vectors(scorer.small.bank.ids())

    def hand(rows: np.ndarray) -> np.ndarray:
        return np.sort(cosine_distances(probes, rows), axis=1)[:, :2].mean(axis=1)

    of_whole, of_small = hand(state.vectors(members)), hand(small)
    n = aside.size
    assert (report["images"], report["calibration_images"], report["anomalous_images"]) == (20, n, 5)
    assert report["spearman"] == pytest.approx(spearmanr(of_whole[:n], of_small[:n]).statistic, abs=1e-6)
    assert report["mean_score_ratio"] == pytest.approx((of_small[:n] / of_whole[:n]).mean(), rel=1e-3)
    truth = np.arange(probes.shape[0]) >= n
    assert report["roc_auc_whole"] == pytest.approx(roc_auc_score(truth, of_whole))
    assert report["roc_auc_compressed"] == pytest.approx(roc_auc_score(truth, of_small))


@METHODS
def test_as_many_rows_as_images_score_like_the_bank_itself(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    add(client, name, {f"twin{seed}": bank[f"n{seed}"] for seed in range(10)})  # twins are two rows, not one
    probes = [*PROBES, *(bank[f"n{seed}"] for seed in range(10))]
    report = finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 1000})["report"]
    assert (report["rows"], report["spearman"], report["mean_score_ratio"]) == (30, pytest.approx(1), 1.0)
    compressed = scores(client, name, probes)
    aside = [state_of(client, name).entries[pk].image_id for pk in scorer_in(state_of(client, name)).calibration_ids]
    client.request("DELETE", f"/v1/collections/{name}/compress").raise_for_status()
    assert len(aside) == 10
    whole = scores(client, name, probes)
    client.post(f"/v1/collections/{name}/images/delete", json={"ids": aside}).raise_for_status()
    assert scores(client, name, probes) == compressed, "the bank without what was set aside"
    assert whole != compressed


@METHODS
def test_going_back_to_the_whole_bank_restores_every_score(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    before = asked(client, name, PROBES)
    finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 6})
    shown = client.get(f"/v1/collections/{name}/compress").json()
    assert (shown["method"], shown["now"]["rows"]) == (method, 6)
    assert asked(client, name, PROBES)["results"] != before["results"]
    assert client.request("DELETE", f"/v1/collections/{name}/compress").status_code == 204
    after = asked(client, name, PROBES)
    assert (after["results"], after["calibration"]) == (before["results"], before["calibration"])
    for verb in ("GET", "DELETE"):
        answer = client.request(verb, f"/v1/collections/{name}/compress")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_compressed")


@METHODS
def test_a_compressed_bank_is_the_same_after_a_restart(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 6})
    add(client, name, {"late": part(800)})
    client.delete(f"/v1/collections/{name}/images/n3").raise_for_status()
    served = state_of(client, name)
    loaded = Shelf(core_of(client).database).get(name)
    queries = served.vectors(served.dn2.bank.ids()[:5])
    one, other = scorer_in(served), scorer_in(loaded)
    assert one.facts == other.facts
    assert one.score(queries).score.tolist() == other.score(queries).score.tolist()
    assert one.calibration().scores.tolist() == other.calibration().scores.tolist()


@METHODS
def test_images_that_come_later_join_the_small_bank_at_once(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 6})
    stranger = png(42, kind="stripes")
    before = asked(client, name, [stranger], k=1)["results"][0]
    assert before["score"] > 1e-3
    add(client, name, {"late": stranger})
    after = asked(client, name, [stranger], k=1)["results"][0]
    assert after["score"] == pytest.approx(0, abs=1e-6)
    assert after["neighbours"][0]["id"] == "late"
    facts = client.get(f"/v1/collections/{name}/compress").json()["now"]
    assert (facts["added_since"], facts["images_gone"]) == (1, 0)


def test_a_deleted_image_takes_its_row_of_a_coreset_with_it(
    client: TestClient, name: str, bank: dict[str, bytes]
) -> None:
    finished(client, f"/v1/collections/{name}/compress", {"method": "coreset", "size": 6})
    probe = [png(901, kind="stripes")]
    nearest = asked(client, name, probe, neighbours=1)["results"][0]["neighbours"][0]["id"]
    client.delete(f"/v1/collections/{name}/images/{nearest}").raise_for_status()
    shown = [one["id"] for one in asked(client, name, probe, neighbours=10)["results"][0]["neighbours"]]
    assert len(shown) == 5
    assert nearest not in shown
    facts = client.get(f"/v1/collections/{name}/compress").json()["now"]
    assert (facts["rows"], facts["rows_gone"], facts["images_gone"]) == (5, 1, 1)


def test_a_kmeans_centre_stays_while_one_of_its_images_does_and_says_how_stale_it_is(
    client: TestClient, name: str, bank: dict[str, bytes]
) -> None:
    finished(client, f"/v1/collections/{name}/compress", {"method": "kmeans", "size": 4})
    state = state_of(client, name)
    made = state.compressed
    assert made is not None
    sizes = np.bincount(made.member_places[made.member_places >= 0])
    centre = int(np.argmax(sizes))
    members = made.member_pks[made.member_places == centre]
    assert members.size > 2, "or the test proves nothing"
    ids = {pk: state.entries[pk].image_id for pk in members.tolist()}
    shown = int(made.centre_pks[centre])
    distances = cosine_distances(made.centres[centre][None], state.vectors(members))[0]
    expected = dict(zip(members.tolist(), distances.tolist(), strict=True))
    assert shown == min(expected, key=lambda pk: expected[pk])

    client.delete(f"/v1/collections/{name}/images/{ids[shown]}").raise_for_status()
    del expected[shown]
    scorer = scorer_in(state_of(client, name))
    assert min(expected, key=lambda pk: expected[pk]) in scorer.small.bank.ids(), "the next nearest is shown"
    assert (scorer.facts["rows"], scorer.facts["images_gone"]) == (4, 1)

    client.post(f"/v1/collections/{name}/images/delete", json={"ids": [ids[pk] for pk in expected]}).raise_for_status()
    facts = client.get(f"/v1/collections/{name}/compress").json()["now"]
    assert (facts["rows"], facts["rows_gone"], facts["images_gone"]) == (3, 1, members.size)


@METHODS
def test_an_image_sent_again_with_other_bytes_counts_as_a_new_one(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 6})
    state = state_of(client, name)
    aside = state.entries[int(scorer_in(state).calibration_ids[0])].image_id
    stranger = png(77, kind="stripes")
    add(client, name, {aside: stranger})
    facts = client.get(f"/v1/collections/{name}/compress").json()["now"]
    assert (facts["added_since"], facts["calibration_images"], facts["calibration_images_gone"]) == (1, 9, 1)
    assert asked(client, name, [stranger], k=1)["results"][0]["neighbours"][0]["id"] == aside


@METHODS
def test_a_taught_defect_counts_in_a_compressed_bank_too(
    client: TestClient, name: str, bank: dict[str, bytes], method: str
) -> None:
    finished(client, f"/v1/collections/{name}/compress", {"method": method, "size": 6})
    defect = png(88, kind="stripes")
    before = scores(client, name, [defect])[0]
    add(client, name, {"defect": defect}, role="anomalous")
    assert scores(client, name, [defect])[0] == pytest.approx(1000 * before, rel=1e-3)


def test_groups_are_set_aside_whole_and_do_not_vouch_for_themselves(client: TestClient, name: str) -> None:
    client.put(f"/v1/collections/{name}").raise_for_status()
    images = [(f"{of}-{shot}", part(10 * of + shot), f"part{of}") for of in range(12) for shot in range(3)]
    items = [{"id": image_id, "group": group} for image_id, _, group in images]
    files = [("files", (f"{image_id}.png", data)) for image_id, data, _ in images]
    path = f"/v1/collections/{name}/images"
    client.post(path, files=files, data={"items": json.dumps(items)}).raise_for_status()
    finished(client, f"/v1/collections/{name}/compress", {"method": "coreset", "size": 12})
    state = state_of(client, name)
    aside = {state.entries[pk].group for pk in scorer_in(state).calibration_ids.tolist()}
    others = {state.entries[pk].group for pk in scorer_in(state).small.bank.ids().tolist()}
    assert len(aside) == 4  # the fewest whole groups of three that make ten
    assert not aside & others

    group = sorted(name for name in aside if name is not None)[0]
    late = [("files", ("late.png", part(5000)))]
    client.post(path, files=late, data={"items": json.dumps([{"id": "late", "group": group}])}).raise_for_status()
    state = state_of(client, name)
    left = {state.entries[pk].group for pk in scorer_in(state).calibration_ids.tolist()}
    assert left == aside - {group}
    assert scorer_in(state).facts["calibration_images_left_out"] == 3


def test_what_cannot_be_compressed_is_refused_at_once(client: TestClient, name: str) -> None:
    add(client, name, {f"n{seed}": part(seed) for seed in range(19)})
    path = f"/v1/collections/{name}/compress"
    for body in ({"method": "magic", "size": 5}, {"method": "kmeans"}, {"method": "kmeans", "size": 0}):
        assert client.post(path, json=body).status_code == 422, body
    small = client.post(path, json={"method": "kmeans", "size": 5})
    assert (small.status_code, small.json()["code"]) == (409, "bank_too_small")
    add(client, name, {"n19": part(19)})
    assert finished(client, path, {"method": "kmeans", "size": 5})["report"]["rows"] == 5


@pytest.mark.parametrize("compressed", [False, True])
def test_calibrating_shows_what_the_service_promises(
    client: TestClient, name: str, bank: dict[str, bytes], compressed: bool
) -> None:
    if compressed:
        finished(client, f"/v1/collections/{name}/compress", {"method": "coreset", "size": 6})
    result = finished(client, f"/v1/collections/{name}/calibrate")
    assert (result["compressed"], result["k"], result["n"]) == (compressed, 2, 10 if compressed else 30)
    assert result["kept"] == {"equal": True}
    for threshold in result["thresholds"]:
        served = asked(client, name, PROBES[:1], false_alarm_rate=threshold["requested"])["calibration"]
        assert served == {**threshold, "biased": None}
    assert [one["supported"] for one in result["thresholds"]] == [False, False, not compressed, compressed or True]

    expected = (
        scorer_in(state_of(client, name)).calibration().scores
        if compressed
        else list(by_hand(state_of(client, name)).values())
    )
    quantiles = {one["share"]: one["score"] for one in result["scores"]["quantiles"]}
    assert quantiles[0.5] == pytest.approx(np.median(expected), rel=1e-4)
    assert (quantiles[0.0], quantiles[1.0]) == (
        pytest.approx(min(expected), rel=1e-4),
        pytest.approx(max(expected), rel=1e-4),
    )
    histogram = result["scores"]["histogram"]
    assert (len(histogram["counts"]), len(histogram["edges"]), sum(histogram["counts"])) == (20, 21, result["n"])
    other = finished(client, f"/v1/collections/{name}/calibrate", {"k": 5})
    assert other["k"] == 5
    assert other["scores"] != result["scores"]


def test_a_kept_calibration_that_is_wrong_is_found_out_and_replaced(
    client: TestClient, name: str, bank: dict[str, bytes]
) -> None:
    wrong = asked(client, name, PROBES)
    core = core_of(client)
    state = state_of(client, name)
    strange, plain = state.entry("strange0").pk, state.entry("n0").pk
    with core.database.write() as session:  # behind the service's back: no step of the sequence tells of it
        rows = [session.get_one(VectorRow, (pk, state.embedding_id)) for pk in (strange, plain)]
        rows[0].vector, rows[0].checksum = rows[1].vector, None
    assert asked(client, name, PROBES)["results"] == wrong["results"]
    result = finished(client, f"/v1/collections/{name}/calibrate")
    assert result["kept"]["equal"] is False
    assert asked(client, name, PROBES)["results"] != wrong["results"]
    assert finished(client, f"/v1/collections/{name}/calibrate")["kept"] == {"equal": True}
