"""Classes are as durable as images, change in one step, and are followed by other servers."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import event
from starlette.testclient import TestClient

from app.classes import registering
from app.classes.schemas import RegisterParameters
from app.core import Core
from app.db.engine import Database
from app.idempotency import Request
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

C = "/v1/collections/c"


def drawn(kind: int, seed: int) -> bytes:
    """Bars across or upright, with noise of their own."""
    random = np.random.default_rng([kind, seed])
    pixels = np.full((32, 32, 3), 60.0)
    bars = np.arange(32) % 8 < 4
    pixels[bars if kind else slice(None), slice(None) if kind else bars] = (60 + 150 * kind, 200, 210 - 150 * kind)
    buffer = io.BytesIO()
    noisy = (pixels + random.normal(0, 12, pixels.shape)).clip(0, 255)
    Image.fromarray(noisy.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def files(*images: bytes) -> list:
    return [("files", (f"{place}.png", data)) for place, data in enumerate(images)]


def put(client: TestClient, label: str, kind: int, seeds: range, **more: Any) -> Any:
    return client.put(f"{C}/classes/{label}", files=files(*[drawn(kind, seed) for seed in seeds]), **more)


def classified(client: TestClient, after: int | None = None) -> dict:
    asked = {} if after is None else {"after": after}
    answer = client.post(f"{C}/classify", files=files(drawn(0, 90), drawn(1, 90)), params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_another_server_knows_a_class_that_was_made_changed_and_deleted(client: TestClient, other: TestClient) -> None:
    client.put(C)
    problem_of(other.post(f"{C}/classify", files=files(drawn(0, 1))), 409, "no_classes")
    assert put(client, "across", 0, range(4)).status_code == 201
    made = put(client, "upright", 1, range(4)).json()
    here, there = classified(client), classified(other, made["sequence"])
    assert [one["label"] for one in there["results"]] == ["across", "upright"]
    assert json.dumps(here) == json.dumps(there)  # both computed it, from the same record
    extended = put(other, "upright", 1, range(4, 7)).json()
    assert classified(client, extended["sequence"])["calibration"]["n"] == 11
    gone = other.delete(f"{C}/classes/across")
    assert gone.status_code == 204
    left = classified(client, int(gone.headers["Oddity-Sequence"]))
    assert left["results"][0]["probabilities"] == {"upright": 1.0}
    listed = client.get(f"{C}/classes").json()
    assert listed == other.get(f"{C}/classes").json()
    assert [(one["label"], one["count"]) for one in listed["classes"]] == [("upright", 7)]


def test_files_stored_images_and_what_they_replace_change_in_one_step(client: TestClient, core: Core) -> None:
    """What fails on the way leaves the class, the images and the key as they were."""
    add(client, "c", {"a": png(1), "b": png(2)})
    put(client, "across", 0, range(2))
    before = [client.get(f"{C}/{what}").json() for what in ("classes", "images")]
    parameters = RegisterParameters(mode="replace", ids=["a", "b"])
    key = Request(f"PUT {C}/classes/across", "once", "0" * 64)

    class Broken(Exception):
        pass

    def fail(*_: Any) -> None:
        raise Broken

    uploads = [registering.Upload(drawn(0, 5))]
    event.listen(core.database.engine, "commit", fail)
    with pytest.raises(Broken):
        registering.put_class(core, "c", "across", uploads, parameters, key)
    event.remove(core.database.engine, "commit", fail)
    assert [client.get(f"{C}/{what}").json() for what in ("classes", "images")] == before
    answer, is_repeat = registering.put_class(core, "c", "across", uploads, parameters, key)
    assert answer.status == 200 and not is_repeat and answer.body["count"] == 3
    assert len(answer.body["released"]) == 2
    again, is_repeat = registering.put_class(core, "c", "across", uploads, parameters, key)
    assert is_repeat and again.body == answer.body
    assert client.get(C).json()["roles"] == {"normal": 0, "anomalous": 0, "unlabelled": 2, "example": 3}


def test_a_class_survives_and_its_labels_may_be_of_any_script(client: TestClient, database: Database) -> None:
    client.put(C)
    for label in ("Ölfleck", "キズ", "a.b-c_d"):
        assert put(client, label, 0, range(2)).status_code == 201  # the same two images move from class to class
    assert [one["label"] for one in client.get(f"{C}/classes").json()["classes"]] == ["a.b-c_d"]
    add(client, "c", {"x": png(3)}, role="example", label="キズ")
    assert client.get(f"{C}/classes/キズ").json()["examples"] == ["x"]
    assert client.delete(f"{C}/classes/キズ?images=delete").status_code == 204
    assert client.get(C).json()["images"] == 2
    database.check()
