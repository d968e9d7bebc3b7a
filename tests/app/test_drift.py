"""GET /drift: quiet while images are like the normal ones, loud when the camera changes, and honest about too few."""

from collections.abc import Iterator

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.drift.watch import DriftWatch
from app.main import create_app
from app.settings import Settings
from tests.app.test_observe import scraped, value
from tests.app.working import asked, core_of, part
from tests.conftest import add
from tests.contract.problem_shape import problem_of

PARTS = 60


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service with lines of parts."""
    settings = Settings(
        data=tmp_path_factory.mktemp("line"), weights="stand-in", image_size=32, threads=1, drift_flush_s=3600
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for name in ("quiet", "loud", "few", "stored", "torn"):
            add(client, name, {f"p{n}": part(n) for n in range(PARTS)})
        yield client


def drift(client: TestClient, name: str, **query: object) -> dict:
    return client.get(f"/v1/collections/{name}/drift", params=query).raise_for_status().json()


def test_images_like_the_normal_ones_and_others(line: TestClient) -> None:
    asked(line, "quiet", [part(1000 + n) for n in range(50)])
    asked(line, "loud", [part(1000 + n) for n in range(20)])
    asked(line, "loud", [part(2000 + n, scratch=9) for n in range(30)])  # dirt on the lens
    quiet, loud = drift(line, "quiet"), drift(line, "loud")
    for one in (quiet, loud):
        assert (one["n"], one["enough"], one["calibration_n"], one["scorers"]) == (50, True, PARTS, ["dn2"])
        assert sum(one["histogram"]["counts"]) == 50 == pytest.approx(sum(one["histogram"]["expected"]))
        assert [sum(hour[what] for hour in one["hours"]) for what in ("n", "alarms")] == [50, one["alarms"]["seen"]]
    assert quiet["drifted"] is False and quiet["p_value"] > 0.01
    assert loud["drifted"] is True and loud["direction"] == "stranger" and loud["p_value"] < 1e-3
    assert loud["alarms"]["seen"] > 5 * loud["alarms"]["expected"] and loud["spread"]["gap"] > 0.3
    assert drift(line, "loud", level=loud["p_value"] / 2)["drifted"] is False
    # Sixty images cannot show a rate of 1 %: the least they can is looked at, and said.
    assert loud["alarms"]["rate"] == 0.02 and drift(line, "loud", false_alarm_rate=0.1)["alarms"]["rate"] == 0.1
    # The same is told to Prometheus.
    watch = DriftWatch(core_of(line))
    for name in ("quiet", "loud"):
        watch._answering.add((core_of(line).shelf.get(name).id, "dn2"))
    watch.turn()
    told = {p for p, n in watch.found().values() if n == 50}
    assert told == {quiet["p_value"], loud["p_value"]}


def test_too_few_are_said_to_be_too_few(line: TestClient) -> None:
    nothing = drift(line, "few")
    assert (nothing["n"], nothing["enough"], nothing["drifted"], nothing["hours"]) == (0, False, None, [])
    asked(line, "few", [part(1000 + n) for n in range(29)])
    few = drift(line, "few")
    assert (few["n"], few["n_needed"], few["enough"], few["drifted"], few["p_value"]) == (29, 30, False, None, None)
    asked(line, "few", [part(3000)])
    assert drift(line, "few")["enough"]
    before = drift(line, "few", against="before")
    assert (before["n_before"], before["enough"], before["drifted"]) == (0, False, None)


def test_what_is_stored_is_not_news(line: TestClient) -> None:
    line.post("/v1/collections/stored/anomaly", json={"ids": [f"p{n}" for n in range(40)]}).raise_for_status()
    assert drift(line, "stored")["n"] == 0


def test_an_image_that_cannot_be_read_is_not_counted(line: TestClient) -> None:
    files = [("files", ("a.png", part(5000))), ("files", ("b.png", b"text"))]
    assert line.post("/v1/collections/torn/anomaly", files=files).status_code == 207
    assert drift(line, "torn")["n"] == 1


@pytest.mark.parametrize("query", ["hours=0", "level=0.7", "against=never", "false_alarm_rate=1", "houres=3"])
def test_a_wrong_parameter_is_refused(line: TestClient, query: str) -> None:
    problem_of(line.get(f"/v1/collections/few/drift?{query}"), 422, "invalid")


def test_an_unknown_collection(line: TestClient) -> None:
    problem_of(line.get("/v1/collections/none/drift"), 404, "collection_unknown")


def test_it_reaches_the_scrape(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(
        data=tmp_path_factory.mktemp("scrape"), weights="stand-in", image_size=32, threads=1, drift_flush_s=0.05
    )
    with TestClient(create_app(settings)) as client:
        add(client, "c", {f"p{n}": part(n) for n in range(20)})
        asked(client, "c", [part(100 + n) for n in range(30)])
        place = {"collection": "c", "scorer": "dn2"}
        while not (told := value(scraped(client), "oddity_drift_images", **place)):
            pass
        assert told == 30 and np.isfinite(value(scraped(client), "oddity_drift_p_value", **place))
