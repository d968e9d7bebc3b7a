"""Images that crash, hang or exhaust what decodes them: each is refused in its place, and the server goes on."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import app.embedders
from app.main import create_app
from app.settings import Settings
from models.decoding.pool import DecodingPool
from tests.conftest import png
from tests.faults.broken_decoder import COMMAND, marked

C = "/v1/collections/c"
PNG = {"content-type": "image/png"}
FAULTS = {
    "abort": (422, "image_crashed"),
    "hoard": (413, "image_too_large"),
    "sleep": (422, "image_too_slow"),
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The real application, whose decoding processes have the faults that an image asks for."""
    settings = Settings(
        data=tmp_path_factory.mktemp("crashes"),
        weights="stand-in",
        image_size=32,
        threads=2,
        decoding="processes",
        decode_limit_s=4,
        decode_limit_memory_bytes=2**27,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app.embedders, "DecodingPool", partial(DecodingPool, command=COMMAND))
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            client.put(C).raise_for_status()
            yield client


def add(client: TestClient, images: list[bytes]) -> Any:
    return client.post(f"{C}/images", files=[("files", (f"{n}.png", data)) for n, data in enumerate(images)])


@pytest.mark.parametrize("fault", FAULTS)
def test_one_image_is_refused_and_the_others_are_stored(client: TestClient, fault: str) -> None:
    seed = 10 * (1 + list(FAULTS).index(fault))
    good, bad = [png(seed + n) for n in range(3)], marked(png(seed + 3), fault)
    answer = add(client, [good[0], bad, *good[1:]])
    assert answer.status_code == 207, answer.text
    status, code = FAULTS[fault]
    found = answer.json()["items"]
    assert (found[1]["problem"]["status"], found[1]["problem"]["code"]) == (status, code)
    assert ["problem" not in one for one in found] == [True, False, True, True]
    assert client.get(f"{C}/images/{found[0]['id']}/content").content == good[0]


def test_an_image_alone_is_refused_wherever_it_comes(client: TestClient) -> None:
    if client.get(C).json()["images"] < 3:
        add(client, [png(n) for n in range(5)]).raise_for_status()
    bad = marked(png(1), "abort")
    for path in ("images", "anomaly", "query", "explain"):
        answer = client.post(f"{C}/{path}", content=bad, headers=PNG)
        body = answer.json()
        problem = (body.get("items") or body.get("results") or [{"problem": body}])[0]["problem"]
        assert answer.status_code < 500 and (problem["status"], problem["code"]) == FAULTS["abort"], (path, answer.text)
    assert client.get("/readyz").status_code == 200


def test_other_requests_are_answered_meanwhile(client: TestClient) -> None:
    add(client, [png(50 + n) for n in range(4)]).raise_for_status()
    wrong: list[Any] = []

    def score(image: bytes) -> None:
        for _ in range(4):
            answer = client.post(f"{C}/anomaly", content=image, headers=PNG)
            wrong.extend(
                [answer.text] if answer.status_code != 200 or answer.json()["results"][0].get("problem") else []
            )

    threads = [threading.Thread(target=score, args=(png(60 + n),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for fault in ("abort", "hoard"):
        assert add(client, [marked(png(70), fault)]).json()["items"][0]["problem"]["code"] == FAULTS[fault][1]
    for thread in threads:
        thread.join()
    assert not wrong


def test_thumbnails_of_stored_bytes_are_made_there_too(client: TestClient, tmp_path: Path) -> None:
    # Stored when it still decoded: now its process dies of it.
    add(client, [png(80)]).raise_for_status()
    place = client.app.state.core.embedders.decoder.pool
    before = place.lost
    once = marked(png(81), f"once:{tmp_path / 'seen'}")
    (tmp_path / "seen").touch()
    name = add(client, [once]).json()["items"][0]["id"]
    (tmp_path / "seen").unlink()
    answer = client.get(f"{C}/images/{name}/thumbnail")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/webp"
    assert place.lost == before + 1


def test_nothing_of_it_is_left_on_the_disk_or_running_too_many(client: TestClient) -> None:
    assert client.post(f"{C}/anomaly", content=marked(png(90), "abort"), headers=PNG).json()
    metrics = {line.split()[0]: line.split()[1] for line in client.get("/metrics").text.splitlines() if line[0] != "#"}
    assert float(metrics["oddity_decoders"]) <= 2 and float(metrics["oddity_decoders_lost"]) >= 2
    assert not [name for name in os.listdir() if name.startswith("core.")]
