"""Ids, log lines, metrics, traces: what a service tells of itself, and what it keeps to itself."""

import json
import logging
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed
from pydantic import SecretStr
from starlette.testclient import TestClient

from app.main import create_app
from app.monitoring.instruments import OTHER, Names
from app.monitoring.tracing import TracingUnavailable, open_tracing
from app.observe import Lines
from app.settings import Settings
from tests.app.conftest import Serve
from tests.app.working import asked, core_of, finished
from tests.conftest import add, png

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(client: TestClient) -> Samples:
    """Every sample of a scrape."""
    text = client.get("/metrics").raise_for_status().text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parsed(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample; 0 where there is none yet."""
    return samples.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture(scope="module")
def busy(shared: TestClient) -> TestClient:
    """A service that has done something of everything."""
    add(shared, "seen", {f"i{n}": png(n) for n in range(30)})
    asked(shared, "seen", [png(100), png(101)])
    shared.post("/v1/collections/seen/query", json={"id": "i1", "k": 2}).raise_for_status()
    shared.get("/v1/collections/none")
    finished(shared, "/v1/collections/seen/calibrate")
    return shared


def test_an_answer_to_what_nobody_expected_carries_its_id_too(tmp_path: Path) -> None:
    app = create_app(Settings(data=tmp_path, weights="stand-in", image_size=32, threads=1))

    async def broken() -> None:
        raise ZeroDivisionError

    app.add_api_route("/broken", broken)
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/broken", headers={"x-request-id": "mine"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
        labels = {"method": "GET", "route": "/broken", "status": "500"}
        assert value(scraped(client), "oddity_requests_total", **labels) == 1


def test_lines_of_one_request_share_its_id_whoever_writes_them(shared: TestClient, caplog) -> None:
    lines: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(Lines(is_json=True).format(record))

    handler = Keeping()
    logger = logging.getLogger("oddity")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "oddity"):
            shared.get("/?secret=1", headers={"x-request-id": "r-1", "authorization": "Bearer s3"})
    finally:
        logger.removeHandler(handler)
    (line,) = [json.loads(one) for one in lines if '"request"' in one]
    assert (line["id"], line["status"], line["path"]) == ("r-1", 422, "/")
    assert "secret" not in str(lines) and "s3" not in str(lines)


def test_a_line_for_people_is_one_line_whatever_a_caller_sent() -> None:
    record = logging.makeLogRecord({"msg": "request", "levelname": "INFO", "facts": {"path": "/a\nINFO b", "ms": 1.5}})
    (line,) = Lines(is_json=False).format(record).splitlines()
    assert line.endswith(r'INFO request path="/a\nINFO b" ms=1.5')
    try:
        raise ValueError("x")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: x" in Lines(is_json=False).format(record).splitlines()[-1]
    assert "ValueError: x" in json.loads(Lines(is_json=True).format(record))["traceback"]


def test_requests_are_counted_by_template_never_by_what_callers_put_there(busy: TestClient) -> None:
    before = scraped(busy)
    for name in ("x1", "x2"):
        busy.get(f"/v1/collections/{name}")
        busy.get(f"/nothing/{name}")
        busy.request(f"ODD{name}", "/healthz")
    after = scraped(busy)

    def more(**labels: str) -> float:
        name = "oddity_requests_total"
        return value(after, name, **labels) - value(before, name, **labels)

    assert more(method="GET", route="/v1/collections/{c}", status="404") == 2
    assert more(method="GET", route="unknown", status="404") == 2
    assert more(method="other", route="/healthz", status="405") == 2
    assert not any("x1" in str(place) for place in after)


def test_stages_batches_and_queues_are_there(busy: TestClient) -> None:
    samples = scraped(busy)
    for stage in ("line", "decode", "embed", "store", "record", "follow", "calibrate", "score", "search"):
        assert value(samples, "oddity_stage_seconds_count", stage=stage) > 0, stage
    assert value(samples, "oddity_batch_images_sum") >= 32
    assert value(samples, "oddity_batch_images_bucket", le="16.0") == value(samples, "oddity_batch_images_count")
    assert value(samples, "oddity_slots_waiting") == 0 and value(samples, "oddity_queue_images") == 0
    assert value(samples, "oddity_requests_in_progress") == 1  # the scrape itself
    assert value(samples, "process_resident_memory_bytes") > 2**20 < value(samples, "oddity_disk_free_bytes")


def test_scores_jobs_and_indexes_are_there(busy: TestClient) -> None:
    samples = scraped(busy)
    scored = {"collection": "seen", "scorer": "dn2"}
    assert value(samples, "oddity_p_value_count", **scored) == 2
    verdicts = [value(samples, "oddity_verdicts_total", verdict=one, **scored) for one in ("anomalous", "normal")]
    assert sum(verdicts) == 2
    assert value(samples, "oddity_jobs", kind="calibrate", state="succeeded") == 1
    assert value(samples, "oddity_worker_up", where="thread") == 1
    assert value(samples, "oddity_index_vectors", collection="seen", part="bank") == 30
    assert value(samples, "oddity_index_recall", collection="seen", part="bank") == 1
    assert all(value(samples, "oddity_ready", check=one) == 1 for one in ("record", "embedding", "disk", "worker"))


def test_prometheus_may_ask_for_the_newer_format(busy: TestClient) -> None:
    answer = busy.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert any(family.name == "oddity_requests" for family in parsed_openmetrics(answer.text))


def test_names_beyond_the_limit_share_one_label(serve: Serve) -> None:
    names = Names(2)
    assert [names.label(one) for one in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]
    with serve(metrics_collections=1) as client:
        for name in ("one", "two", "three"):
            add(client, name, {f"{name}{n}": png(n) for n in range(3)})
            asked(client, name, [png(50)])
        labels = {dict(labels).get("collection") for _, labels in scraped(client)} - {None}
        assert labels == {"one", OTHER}
        samples = scraped(client)
        assert value(samples, "oddity_index_vectors", collection=OTHER, part="bank") == 6
        assert value(samples, "oddity_p_value_count", collection=OTHER, scorer="dn2") == 2


def test_two_services_in_a_process_count_apart(busy: TestClient, serve: Serve) -> None:
    with serve() as client:
        assert not any(name == "oddity_p_value_count" for name, _ in scraped(client))


def test_no_secret_is_measured_logged_or_traced(serve: Serve) -> None:
    with serve(otlp_headers=SecretStr("authorization=sesame")) as client:
        assert "sesame" not in client.get("/metrics").text
        settings = core_of(client).settings
        assert "sesame" not in settings.model_dump_json() and "sesame" not in repr(settings)


def test_a_record_that_is_away_is_told_and_the_rest_is_measured_all_the_same(serve: Serve, settings: Settings) -> None:
    with serve() as client:
        core_of(client).database.engine.dispose()
        settings.data.rename(settings.data.with_name("away"))
        samples = scraped(client)
        assert value(samples, "oddity_ready", check="record") == 0
        assert value(samples, "oddity_ready", check="disk") == 0
        assert ("oddity_slots_waiting", frozenset()) in samples
        assert not any(name == "oddity_jobs_oldest_queued_seconds" for name, _ in samples)
        settings.data.with_name("away").rename(settings.data)
        assert value(scraped(client), "oddity_ready", check="record") == 1


class Collector:
    """An OpenTelemetry collector: keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.headers: list[dict[str, str]] = []
        self.services: set[str] = set()
        keep = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = ExportTraceServiceRequest()
                sent.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                for resource in sent.resource_spans:
                    facts = {one.key: one.value.string_value for one in resource.resource.attributes}
                    keep.services.add(facts["service.name"])
                    for scope in resource.scope_spans:
                        keep.spans.extend(scope.spans)
                keep.headers.append({name.lower(): text for name, text in self.headers.items()})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_given: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_spans_by_stage_reach_a_collector(serve: Serve, collector: Collector) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    parent = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "r-7"}
    with serve(otlp_endpoint=collector.url, otlp_headers=SecretStr("x-key=sesame")) as client:
        add(client, "c", {f"i{n}": png(n) for n in range(3)})
        client.post("/v1/collections/c/anomaly?k=2", content=png(9), headers={"content-type": "image/png", **parent})
        finished(client, "/v1/collections/c/calibrate")
    assert collector.services == {"oddity"} and collector.headers[0]["x-key"] == "sesame"
    (request,) = [one for one in collector.spans if one.name == "POST /v1/collections/{c}/anomaly"]
    assert request.trace_id.hex() == trace and request.parent_span_id.hex() == "b7ad6b7169203331"
    facts = {one.key: one.value.string_value or one.value.int_value for one in request.attributes}
    assert (facts["oddity.request_id"], facts["http.response.status_code"]) == ("r-7", 200)
    below = {one.name for one in collector.spans if one.parent_span_id == request.span_id}
    assert {"line", "decode", "embed", "calibrate", "score"} <= below
    assert "calibrate" in {one.name for one in collector.spans if not one.parent_span_id}  # the job
    assert "k=2" not in str(collector.spans)


def test_a_collector_that_is_away_costs_no_request(serve: Serve) -> None:
    with serve(otlp_endpoint="http://127.0.0.1:9") as client:
        assert client.get("/v1/collections").status_code == 200


def test_without_an_endpoint_there_is_no_tracer(shared: TestClient) -> None:
    assert core_of(shared).observing.tracer is None


def test_traces_without_their_packages_end_the_start(settings: Settings, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "app.monitoring.otlp", None)
    with pytest.raises(TracingUnavailable, match=r"pip install 'oddity\[otel\]'"):
        open_tracing(settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:9"}), "oddity")


def test_many_requests_at_once_are_all_counted(busy: TestClient) -> None:
    labels = {"method": "GET", "route": "/healthz", "status": "200"}
    before = value(scraped(busy), "oddity_requests_total", **labels)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: busy.get("/healthz"), range(64)))
    assert value(scraped(busy), "oddity_requests_total", **labels) - before == 64


ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"\b(?:oddity|process)_[a-z_]+")


def named(path: Path) -> set[str]:
    """The metrics that a file asks for."""
    return set(NAME.findall(path.read_text()))


@pytest.mark.parametrize("path", ["docker/prometheus/alerts.yml", "docker/grafana/dashboards/oddity.json"])
def test_every_metric_of_dashboard_and_alerts_exists(busy: TestClient, path: str) -> None:
    asked_for = named(ROOT / path)
    assert len(asked_for) > 5
    there = set()
    for family in parsed(busy.get("/metrics").text):
        there |= {family.name, *(sample.name for sample in family.samples)}
    assert asked_for <= there
