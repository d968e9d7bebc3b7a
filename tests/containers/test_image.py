"""The image alone: what it may do, what it serves, how it ends, what is left then."""

import json
import secrets
from collections.abc import Iterator

import httpx2
import pytest
from oddity_client import Client, NotAllowed

from tests.conftest import png
from tests.containers.conftest import Note
from tests.containers.engine import Engine, until

CLOSED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
USER = "10001:10001"


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    """A volume of this test's own."""
    name = f"oddity-check-{secrets.token_hex(4)}"
    engine("volume", "create", name)
    yield name
    engine("volume", "rm", "--force", name)


@pytest.fixture
def container(engine: Engine, image: str, volume: str) -> Iterator[str]:
    """A name; the container of this name is gone afterwards."""
    name = f"{volume}-server"
    yield name
    engine.tried("rm", "--force", name)


def begin(engine: Engine, image: str, volume: str, name: str) -> tuple[str, float]:
    """Start the service; its address, and seconds until it was ready."""
    engine("run", "--detach", "--name", name, *CLOSED, "--volume", f"{volume}:/data", "-p", "127.0.0.1::8000", image)
    return address(engine, name), until(lambda: is_ready(address(engine, name)), "ready")


def address(engine: Engine, name: str) -> str:
    """Where the service in a container listens; an engine may choose another port at each start."""
    return f"http://{engine('port', name, '8000').splitlines()[0]}"


def is_ready(url: str) -> bool:
    """Whether requests would be served."""
    try:
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


def end(engine: Engine, name: str) -> tuple[int, float]:
    """SIGTERM; the status that the container ended with, and seconds until then."""
    engine("kill", "--signal", "TERM", name)
    seconds = until(lambda: state(engine, name)["Status"] == "exited", "end")
    return state(engine, name)["ExitCode"], seconds


def state(engine: Engine, name: str) -> dict:
    """What the engine says of a container."""
    return json.loads(engine("inspect", "--format", "{{json .State}}", name))


def test_it_is_nobody_and_says_how_it_is(engine: Engine, image: str) -> None:
    config = json.loads(engine("image", "inspect", image))[0]["Config"]
    assert config["User"] == USER and config["Entrypoint"] == ["/opt/oddity/bin/start.sh"]
    assert "/data" in config["Volumes"] and "8000/tcp" in config["ExposedPorts"]
    health = json.loads(engine("image", "inspect", image))[0]
    assert "healthcheck.py" in json.dumps(config.get("Healthcheck") or health.get("HealthCheck"))


def test_it_does_not_start_where_others_reach_it_without_a_key(engine: Engine, image: str, volume: str) -> None:
    status, told = engine.tried("run", "--rm", *CLOSED, "--volume", f"{volume}:/data", image)
    assert status == 2 and "oddity keys create" in told, told


def test_it_serves_ends_and_goes_on(engine: Engine, image: str, volume: str, container: str, note: Note) -> None:
    told = engine(
        "run", "--rm", *CLOSED, "--volume", f"{volume}:/data", image, "keys", "create", "first", "--scope", "admin"
    )
    (key,) = (word for word in told.split() if word.startswith("oddity_"))
    url, seconds = begin(engine, image, volume, container)
    note("first_start_s", round(seconds, 1))

    assert engine("exec", container, "id", "-u") == "10001"
    for path in ("/opt/oddity/bin/x", "/etc/x", "/x"):
        status, told = engine.tried("exec", container, "touch", path)
        assert status != 0 and "Read-only" in told, told
    engine("exec", container, "python", "/opt/oddity/bin/healthcheck.py")

    normal = [png(seed) for seed in range(20)]
    with Client(url) as stranger, pytest.raises(NotAllowed):
        list(stranger.collections())
    with Client(url, api_key=key) as client:
        parts = client.collection("parts")
        parts.put()
        assert parts.add(normal, role="normal").created == len(normal)
        before = parts.score([png(100, kind="stripes")]).results[0]
        client.wait(parts.calibrate())  # by the worker beside the server

    status, seconds = end(engine, container)
    note("stop_s", round(seconds, 1))
    assert status == 0, engine.tried("logs", container)

    engine("start", container)
    note("second_start_s", round(until(lambda: is_ready(address(engine, container)), "ready again"), 1))
    with Client(address(engine, container), api_key=key) as client:
        parts = client.collection("parts")
        assert parts.get().images == len(normal)
        assert parts.score([png(100, kind="stripes")]).results[0].score == before.score
        assert parts.content(next(iter(parts.images())).id) in normal
    assert end(engine, container)[0] == 0
