"""Makes the files of `old_records` with the code of an earlier version, through its own interface.

    git worktree add /tmp/old COMMIT
    cd /tmp/old && PYTHONPATH=/tmp/old python .../tests/record/make_old_record.py .../tests/record/old_records

writes `<revision>.sql` (the whole record as SQL, every row as that version wrote it), `<revision>.json` (what it
answered) and, where it made snapshots, `<revision>.tar`.
"""

import io
import json
import os
import sqlite3
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

os.environ["ODDITY_JOBS"] = "thread"

from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings

IMAGES = 11  # one more than a verdict needs, for one is a known defect
C = "/v1/collections/old"


def picture(seed: int) -> bytes:
    """A small picture of few bytes: flat squares of seeded colours."""
    random = np.random.default_rng(seed)
    squares = random.integers(90, 160, (2, 2, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(squares.repeat(16, axis=0).repeat(16, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def main(folder: Path) -> None:
    """Fill a collection, ask it, and write everything down."""
    with tempfile.TemporaryDirectory() as data:
        settings = Settings(data=Path(data), weights="stand-in", image_size=32, threads=1)
        with TestClient(create_app(settings)) as client:
            told, snapshot = fill_and_ask(client)
        with sqlite3.connect(Path(data) / "oddity.db") as record:
            ((revision,),) = record.execute("SELECT version_num FROM alembic_version")
            dump = "\n".join(record.iterdump()) + "\n"
    folder.mkdir(exist_ok=True)
    (folder / f"{revision}.sql").write_text(dump)
    (folder / f"{revision}.json").write_text(json.dumps(told, indent=1) + "\n")
    if snapshot is not None:
        (folder / f"{revision}.tar").write_bytes(snapshot)


def fill_and_ask(client: TestClient) -> tuple[dict, bytes | None]:
    """What a filled collection answers, and its snapshot."""
    client.put(C, json={"false_alarm_rate": 0.2}).raise_for_status()
    items = [{"id": f"i{n}", "metadata": {"line": n % 2}} for n in range(IMAGES)]
    files = [("files", (f"{n}.png", picture(n))) for n in range(IMAGES)]
    client.post(f"{C}/images", files=files, data={"items": json.dumps(items)}).raise_for_status()
    client.put(f"{C}/groups/pair", json={"ids": ["i0", "i1"]}).raise_for_status()
    client.post(f"{C}/feedback", json={"kind": "missed", "id": "i10"}).raise_for_status()
    client.put("/v1/collections/gone").raise_for_status()
    client.delete("/v1/collections/gone").raise_for_status()
    scored = client.post(f"{C}/anomaly", files=[("files", ("q.png", picture(n))) for n in (100, 101)])
    found = client.post(f"{C}/query", json={"id": "i3", "k": 4, "filter": {"line": 1}})
    told = {
        "collection": client.get(C).raise_for_status().json(),
        "images": client.get(f"{C}/images").raise_for_status().json(),
        "anomaly": scored.raise_for_status().json(),
        "query": found.json() if found.is_success else None,
        "groups": client.get(f"{C}/groups").json(),
    }
    taken = client.post(f"{C}/snapshots", json={"images": False}, params={"wait": 60})
    if taken.status_code == 422:
        taken = client.post(f"{C}/snapshots", json={}, params={"wait": 60})
    if not taken.is_success:
        return told, None
    where = f"{C}/snapshots/{taken.json()['id']}"
    content = client.get(where)
    if content.headers["content-type"].startswith("application/json"):
        content = client.get(f"{where}/content")
    return told, content.raise_for_status().content


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
