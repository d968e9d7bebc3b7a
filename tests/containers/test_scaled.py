"""compose.scaled.yaml, run: two servers behind one name, one of them killed under a client that goes on."""

import json
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml
from oddity_client import Client, Collection, Retries

from tests.conftest import png
from tests.containers.conftest import Note
from tests.containers.engine import Engine, until
from tests.containers.test_image import is_ready, state
from tests.rules.source_tree import ROOT

NORMAL = 20
MORE = 60  # images that are added while a server is killed
PATIENT = Retries(tries=8)

# Run in the container of the worker, which has Python and is on the network of all services.
ADDRESSES = "import socket; print(*sorted({a[4][0] for a in socket.getaddrinfo('oddity', 8000, socket.AF_INET)}))"
ASK = """
import sys, urllib.request
url, key = sys.argv[1:]
asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
print(urllib.request.urlopen(asked, timeout=30).read().decode())
"""


class Deployment:
    """The services of the compose file, from a copy of docker/ with secrets and a port of its own."""

    def __init__(self, engine: Engine, compose: Engine, folder: Path) -> None:
        shutil.copytree(ROOT / "docker", folder)
        self.project = f"oddity-check-{secrets.token_hex(4)}"
        self.key = secrets.token_hex(24)
        self._engine, self._compose = engine, compose
        (folder / "prometheus" / "key").write_text(self.key)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._file = folder / "compose.scaled.yaml"
        told = self._file.read_text().replace("127.0.0.1:8000:8000", f"127.0.0.1:{port}:8000")
        services = yaml.safe_load(told)["services"]
        self.services = [name for name in services if name != "grafana"]  # a picture of what Prometheus has
        (folder / ".env").write_text(
            f"POSTGRES_PASSWORD={secrets.token_hex(16)}\nODDITY_ADMIN_KEY={self.key}\nGRAFANA_PASSWORD=x\n"
        )
        self._file.write_text(told)

    def compose(self, *arguments: str) -> str:
        """What a compose command prints."""
        return self._compose("-p", self.project, "-f", self._file.name, *arguments, cwd=self._file.parent)

    def up(self) -> None:
        """Make and start what is not there; the image is built already."""
        self.compose("up", "--detach", "--no-build", *self.services)

    def containers(self, service: str) -> list[str]:
        """Containers of a service, whether they run or not."""
        labels = [f"label=com.docker.compose.{one}" for one in (f"project={self.project}", f"service={service}")]
        return self._engine("ps", "--all", "--quiet", "--filter", labels[0], "--filter", labels[1]).split()

    def python(self, code: str, *arguments: str) -> str:
        """What a program prints that runs in the worker's container, on the network of all services."""
        return self._engine("exec", self.containers("worker")[0], "python", "-c", code, *arguments)

    def servers(self) -> list[str]:
        """Addresses of the servers, as the name `oddity` is resolved."""
        return self.python(ADDRESSES).split()

    def prometheus(self, path: str) -> dict:
        """Data of an answer of Prometheus."""
        return json.loads(self.python(ASK, f"http://prometheus:9090{path}", ""))["data"]


@pytest.fixture
def deployment(engine: Engine, compose: Engine, image: str, tmp_path: Path) -> Iterator[Deployment]:
    """Everything in the file but Grafana, started; gone afterwards, with its volumes."""
    made = Deployment(engine, compose, tmp_path / "docker")
    try:
        made.up()
        yield made
    finally:
        made.compose("down", "--volumes", "--timeout", "45")


def test_two_servers_are_one_service(engine: Engine, deployment: Deployment, note: Note) -> None:
    note("scaled_ready_s", round(until(lambda: is_ready(deployment.url), "ready behind the proxy"), 1))
    until(lambda: len(deployment.servers()) == 2, "two servers under one name")
    with Client(deployment.url, api_key=deployment.key, retries=PATIENT) as client:
        parts = client.collection("parts")
        parts.put()
        added = parts.add([png(seed) for seed in range(NORMAL)], role="normal")
        assert added.created == NORMAL
        for server in deployment.servers():  # a write through one is found through each
            url = f"http://{server}:8000/v1/collections/parts"
            assert json.loads(deployment.python(ASK, url, deployment.key))["images"] == NORMAL
        client.wait(parts.calibrate())  # only the worker does it
        check_watching(deployment)
        check_request_id(deployment)
        check_kill(engine, deployment, parts, note)

    servers = [one for one in deployment.containers("oddity") if state(engine, one)["Status"] == "running"]
    assert len(servers) == 1
    deployment.compose("stop", "--timeout", "45")
    for name in [*servers, *deployment.containers("worker")]:
        assert state(engine, name)["ExitCode"] == 0, engine.tried("logs", name)

    deployment.up()
    until(lambda: is_ready(deployment.url), "ready again")
    with Client(deployment.url, api_key=deployment.key, retries=PATIENT) as client:
        assert client.collection("parts").get().images == NORMAL + MORE


def check_watching(deployment: Deployment) -> None:
    """Prometheus sees both servers and the worker, and has read its rules."""

    def up() -> list[str]:
        targets = deployment.prometheus("/api/v1/targets?state=active")["activeTargets"]
        return sorted(one["labels"]["job"] for one in targets if one["health"] == "up")

    until(lambda: up() == ["oddity", "oddity", "oddity-worker"], "both servers and the worker are watched")
    written = yaml.safe_load((ROOT / "docker" / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]

    def rules() -> list[dict]:
        groups = deployment.prometheus("/api/v1/rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until(lambda: {rule["health"] for rule in rules()} == {"ok"}, "every rule is evaluated without an error")
    assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in written}


def check_request_id(deployment: Deployment) -> None:
    """The caller's own id goes through the proxy, and comes back."""
    answer = httpx2.get(f"{deployment.url}/healthz", headers={"X-Request-ID": "mine-17"})
    assert answer.headers["x-request-id"] == "mine-17"


def check_kill(engine: Engine, deployment: Deployment, parts: Collection, note: Note) -> None:
    """One of two servers is killed: a client that repeats what it got no answer to notices a pause."""
    victim = deployment.containers("oddity")[0]
    done, pauses = threading.Event(), []

    def go_on() -> None:
        for seed in range(1000, 1000 + MORE):
            begun = time.monotonic()
            assert parts.add([png(seed)], role="normal").created == 1
            assert parts.query([png(seed)], k=1).results[0][0].distance < 1e-3
            pauses.append(time.monotonic() - begun)
        done.set()

    client = threading.Thread(target=go_on)
    client.start()
    until(lambda: len(pauses) >= MORE // 4, "the client is at work")
    engine("kill", victim)
    client.join()
    assert done.is_set(), "the client met an error that it could not get over"
    assert state(engine, victim)["Status"] == "exited"
    note("longest_pause_when_killed_s", round(max(pauses), 2))
