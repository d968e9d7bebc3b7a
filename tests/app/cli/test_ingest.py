"""`oddity ingest`: counts, reasons, resuming, labels and groups."""

import json
from pathlib import Path

import pytest

from app.cli.client import open_client
from app.cli.ingest import ingest_pictures
from app.cli.sending import BATCH_FILES, Loaded, Picture, batches, folder_pictures, image_files
from tests.app.cli.conftest import Oddity
from tests.conftest import png


def images_of(data: Path, collection: str = "parts") -> list[dict]:
    with open_client(None, data) as client:
        return [one.model_dump(mode="json") for one in client.collection(collection).images(page=5)]


def test_refused_files_are_told_with_reasons_and_lose_no_other(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    ran = oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d", "--json")
    report = json.loads(ran.out)
    assert ran.code == 1
    assert (report["created"], report["skipped"]) == (12, 0)
    assert [(one["path"], one["code"]) for one in report["refused"]] == [("right/broken.png", "image_unreadable")]
    told = oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d")
    assert "right/broken.png: `image` must be" in told.err


def test_a_second_run_sends_only_what_is_missing(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    (folder / "right" / "broken.png").unlink()
    assert oddity("ingest", folder / "left", "-c", "parts", "--data", tmp_path / "d").code == 0
    second = json.loads(oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d", "--json").out)
    assert (second["created"], second["skipped"], second["duplicate"]) == (6, 6, 0)
    with open_client(None, tmp_path / "d") as client:
        before = client.collection("parts").get().revision
    third = json.loads(oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d", "--json").out)
    with open_client(None, tmp_path / "d") as client:
        assert client.collection("parts").get().revision == before
    assert (third["created"], third["skipped"]) == (0, 12)


def test_known_ids_are_asked_for_in_pages(
    oddity: Oddity, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.ingest.PAGE_LIMIT", 5)
    oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d")
    again = json.loads(oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d", "--json").out)
    assert (again["created"], again["skipped"], again["duplicate"]) == (0, 12, 0)


def test_labels_and_groups_come_from_folders(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    (folder / "left" / "day one").mkdir()
    (folder / "left" / "day one" / "x.png").write_bytes(png(500))
    (folder / "root.png").write_bytes(png(501))
    oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d", "--label-from-folder", "--group-from-folder")
    told = {one["metadata"]["filename"]: (one["label"], one["group"]) for one in images_of(tmp_path / "d")}
    assert told["left/0.png"] == ("left", "left")
    assert told["left/day one/x.png"] == ("day-one", "left-day-one")
    assert told["root.png"] == (None, None)


def test_two_folders_of_one_name_are_refused(oddity: Oddity, tmp_path: Path) -> None:
    for name in ("a b", "a-b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "x.png").write_bytes(png(1))
    ran = oddity("ingest", tmp_path / "images", "-c", "parts", "--data", tmp_path / "d", "--label-from-folder")
    assert ran.code == 2
    assert "`a b` and `a-b`" in ran.err


def test_a_role_is_kept_unless_told(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    oddity("ingest", folder / "left", "-c", "parts", "--data", tmp_path / "d", "--role", "anomalous")
    assert {one["role"] for one in images_of(tmp_path / "d")} == {"anomalous"}
    oddity("ingest", folder / "left", "-c", "parts", "--data", tmp_path / "d")
    assert {one["role"] for one in images_of(tmp_path / "d")} == {"anomalous"}
    told = oddity("ingest", folder / "left", "-c", "parts", "--data", tmp_path / "d", "--role", "normal", "--json")
    assert json.loads(told.out)["updated"] == 6
    assert {one["role"] for one in images_of(tmp_path / "d")} == {"normal"}


def test_the_same_bytes_twice_are_sent_once(quick: None, tmp_path: Path) -> None:
    pictures = [Picture(f"{number}.png", lambda: png(7)) for number in range(3)]
    with open_client(None, tmp_path / "d") as client:
        report = ingest_pictures(client, "parts", pictures)
    assert (report.created, report.skipped) == (1, 2)


def test_a_batch_too_large_is_sent_one_by_one(
    oddity: Oddity, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "left" / "large.png").write_bytes(png(1, side=64))
    largest = max(path.stat().st_size for path in image_files(folder) if path.name != "large.png")
    monkeypatch.setenv("ODDITY_BODY_LIMIT_BYTES", str(largest + 1000))
    report = json.loads(oddity("ingest", folder, "-c", "parts", "--data", tmp_path / "d", "--json").out)
    assert report["created"] == 12
    assert {one["path"]: one["code"] for one in report["refused"]} == {
        "left/large.png": "body_too_large",
        "right/broken.png": "image_unreadable",
    }


def test_a_file_that_cannot_be_read_is_refused_with_the_reason(quick: None, tmp_path: Path) -> None:
    pictures = [Picture("here.png", lambda: png(7)), Picture("gone.png", (tmp_path / "gone.png").read_bytes)]
    with open_client(None, tmp_path / "d") as client:
        report = ingest_pictures(client, "parts", pictures)
    assert report.created == 1
    assert report.refused[0]["path"] == "gone.png"
    assert "No such file" in report.refused[0]["detail"]


def test_files_are_found_in_a_stable_order_without_hidden_ones(folder: Path) -> None:
    (folder / ".trash").mkdir()
    (folder / ".trash" / "x.png").write_bytes(b"")
    (folder / "left" / ".hidden.png").write_bytes(b"")
    (folder / "left" / "LOUD.JPG").write_bytes(b"")
    names = [picture.name for picture in folder_pictures(folder)]
    assert names == sorted(names)
    assert "left/LOUD.JPG" in names
    assert not any("hidden" in name or "trash" in name or "notes" in name for name in names)


def test_batches_keep_order_and_limits() -> None:
    sizes = [1, 40 * 2**20, 1] + [1] * (2 * BATCH_FILES)
    images = [Loaded(Picture(str(place), bytes), bytes(size)) for place, size in enumerate(sizes)]
    made = list(batches(images))
    assert [image for batch in made for image in batch] == images
    assert [len(batch) for batch in made] == [1, 1, BATCH_FILES, BATCH_FILES, 1]


def test_files_that_are_not_images_by_name_are_told(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    (folder / "right" / "Thumbs.db").write_bytes(b"")
    told = oddity("ingest", folder / "right", "-c", "parts", "--data", tmp_path / "d")
    assert "left out" not in told.err
    for number in range(4):
        (folder / "right" / f"[b]{number}.csv").write_bytes(b"")
    told = oddity("ingest", folder / "right", "-c", "parts", "--data", tmp_path / "d", "--json")
    assert "4 files left out, not an image by name: [b]0.csv, [b]1.csv, [b]2.csv, …" in told.err
    json.loads(told.out)


def test_images_of_formats_that_are_not_read_are_refused_by_name(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    heads = {"HEIC": b"\0\0\0\x18ftypheic", "AVIF": b"\0\0\0\x18ftypavif", "JPEG XL": b"\xff\x0a"}
    names = {"photo.heic": "HEIC", "photo.avif": "AVIF", "photo.jxl": "JPEG XL"}
    for path, name in names.items():
        (folder / "left" / path).write_bytes(heads[name] + bytes(100))
    told = oddity("ingest", folder / "left", "-c", "parts", "--data", tmp_path / "d", "--json")
    refused = {one["path"]: one["detail"] for one in json.loads(told.out)["refused"]}
    assert set(refused) == set(names)
    assert all(f"got {name}" in refused[path] for path, name in names.items())


def test_a_folder_without_images_is_told(oddity: Oddity, tmp_path: Path) -> None:
    ran = oddity("ingest", tmp_path, "-c", "parts", "--data", tmp_path / "d")
    assert ran.code == 1
    assert "no image file below" in ran.err
