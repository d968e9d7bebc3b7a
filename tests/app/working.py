"""Jobs over HTTP, and a collection as arrays, for tests that check one against the other."""

import io
from typing import Any

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from app.core import Core


def core_of(client: TestClient) -> Core:
    """What the application behind a client is made of."""
    core: Core = client.app.state.core  # type: ignore[attr-defined]
    return core


def part(seed: int, spread: float = 5.0, scratch: int = 0, again: float = 0.0) -> bytes:
    """A picture of a part: a fixed shading, its own brightness and grain, and a red scratch of some pixels.

    `again` is the grain of a second photograph of the same part.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32]
    shading = np.stack([100 + 2 * x, 90 + 2 * y, 120 + x], axis=-1)
    pixels = shading + random.normal(0, spread, (32, 32, 3)) + random.uniform(-10, 10, 3)
    pixels[12 : 12 + scratch, 10 : 10 + scratch] = (220, 40, 60)
    if again:
        pixels += np.random.default_rng(seed + 10**6).normal(0, again, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def finished(client: TestClient, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The result of a job that is expected to succeed."""
    answer = client.post(path, json=body or {}, params={"wait": 60})
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert job["state"] == "succeeded", job
    result: dict[str, Any] = job["result"]
    return result


def asked(client: TestClient, collection: str, images: list[bytes], **parameters: Any) -> dict[str, Any]:
    """The answer of /anomaly about these images."""
    files = [("files", (f"{place}.png", data)) for place, data in enumerate(images)]
    answer = client.post(f"/v1/collections/{collection}/anomaly", files=files, params=parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def scores(client: TestClient, collection: str, images: list[bytes], **parameters: Any) -> list[float]:
    """Scores of these images, in order."""
    return [one["score"] for one in asked(client, collection, images, **parameters)["results"]]


def cosine_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 - cos, in float64, the obvious way."""
    left = a / np.linalg.norm(a, axis=1, keepdims=True).astype(np.float64)
    right = b / np.linalg.norm(b, axis=1, keepdims=True).astype(np.float64)
    return 1.0 - left @ right.T
