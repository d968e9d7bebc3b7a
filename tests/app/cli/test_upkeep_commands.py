"""Commands named after the paths: collections, images, groups, feedback, upkeep, snapshots, jobs."""

import csv
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.cli.main import main
from tests.app.cli.conftest import Ran
from tests.app.cli.serving import serving
from tests.conftest import png

Ask = Callable[..., Ran]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WEIGHTS", "stand-in"), ("IMAGE_SIZE", "32"), ("THREADS", "1")):
            patch.setenv(f"ODDITY_{name}", value)
        with serving(tmp_path_factory.mktemp("commands")) as url:
            yield url


@pytest.fixture
def ask(url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs `oddity` against the server, which is named in the environment."""
    monkeypatch.setenv("ODDITY_SERVER", url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else int(code is not None), out, err)

    return run


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Twenty-four images."""
    for number in range(24):
        (tmp_path / "bank").mkdir(exist_ok=True)
        (tmp_path / "bank" / f"{number:02}.png").write_bytes(png(number))
    return tmp_path / "bank"


def test_collections(ask: Ask) -> None:
    made = ask("collections", "put", "own", "-s", "neighbours=5", "-s", "metric=l2", "--json")
    assert made.code == 0, made.err
    assert (json.loads(made.out)["metric"], json.loads(made.out)["neighbours"]) == ("l2", 5)
    assert "neighbours" in ask("collections", "show", "own").out
    assert "own" in [one["name"] for one in json.loads(ask("collections", "list", "--json").out)]
    assert "own" in ask("collections", "list").out
    assert ask("collections", "put", "own", "-s", "nonsense=1").code == 2
    assert ask("collections", "put", "own", "-s", "nonsense").code == 2
    assert ask("collections", "delete", "own", "--yes").code == 0
    gone = ask("collections", "show", "own")
    assert gone.code == 1 and "no collection `own`" in gone.err


def test_stored_images_at_a_glance(ask: Ask, bank: Path) -> None:
    assert ask("ingest", bank, "-c", "glance").code == 0
    listed = ask("scores", "glance", "--top", 5)
    assert listed.code == 0 and "24 of 24 scored by dn2" in listed.out, listed.err
    told = json.loads(ask("scores", "glance", "--json").out)["images"]
    assert [one["score"] for one in told] == sorted((one["score"] for one in told), reverse=True)
    assert [one["id"] in listed.out for one in told] == [True] * 5 + [False] * 19
    assert json.loads(ask("scores", "glance", "--role", "anomalous", "--json").out)["images"] == []
    assert ask("scores", "glance", "--role", "strange").code == 2
    assert ask("scores", "glance", "--scorer", "unheard-of").code == 1

    rows = list(csv.DictReader(ask("map", "glance").out.splitlines()))
    assert len(rows) == 24 and all(-1 <= float(one[axis]) <= 1 for one in rows for axis in "xy")
    laid = json.loads(ask("map", "glance", "--json").out)
    assert [(one["id"], str(one["x"]), str(one["score"])) for one in laid["images"]] == [
        (one["id"], one["x"], one["score"]) for one in rows
    ]

    shown = ask("index", "glance")
    assert shown.code == 0 and "flat" in shown.out and "none yet" in shown.err
    assert json.loads(ask("index", "glance", "--json").out)["exact"] is True
    assert ask("index", "nowhere").code == 1


def test_images_and_feedback(ask: Ask, bank: Path, tmp_path: Path) -> None:
    archive = tmp_path / "bank.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(bank.iterdir()):
            file.write(path, f"good/{path.name}")
    ran = ask("images", "import", archive, "-c", "imported", "--label-from-folder")
    assert ran.code == 0, ran.err
    assert "24 created, 0 updated, 0 refused" in ran.err
    listed = json.loads(ask("images", "list", "-c", "imported", "--label", "good", "--limit", 0, "--json").out)
    assert len(listed) == 24
    assert len(json.loads(ask("images", "list", "-c", "imported", "--limit", 5, "--json").out)) == 5
    image = listed[0]["id"]
    assert image in ask("images", "list", "-c", "imported").out
    assert image in ask("images", "show", image, "-c", "imported").out
    assert ask("images", "get", image, "-c", "imported", "-o", tmp_path / "one.png").code == 0
    assert (tmp_path / "one.png").read_bytes() == (bank / "00.png").read_bytes()
    changed = ask("images", "change", image, "-c", "imported", "--metadata", '{"line": 3}', "--label", "", "--json")
    assert (json.loads(changed.out)["label"], json.loads(changed.out)["metadata"]["line"]) == (None, 3)
    chosen = '{"must": [{"key": "line", "match": 3}]}'
    assert [
        one["id"] for one in json.loads(ask("images", "list", "-c", "imported", "--filter", chosen, "--json").out)
    ] == [image]
    assert ask("images", "list", "-c", "imported", "--filter", "[]").code == 2

    given = ask("feedback", "give", "missed", image, "-c", "imported", "--note", "scratch")
    assert given.code == 0 and "normal to anomalous" in given.err
    (told,) = json.loads(ask("feedback", "list", "-c", "imported", "--json").out)
    assert "scratch" in ask("feedback", "list", "-c", "imported").out
    assert "is undone" in ask("feedback", "undo", told["id"], "-c", "imported").err
    other = listed[1]["id"]
    (pair,) = json.loads(ask("feedback", "ask", "-c", "imported", "--json").out)["pairs"]
    assert pair["left"] in ask("feedback", "ask", "-c", "imported").out
    compared = ask("feedback", "compare", image, other, "left", "-c", "imported", "--rater", "anna")
    assert compared.code == 0 and f"on {image} and {other} is taken" in compared.err
    rated = ask("feedback", "rate", image, "3.5", "-c", "imported", "--rater", "anna", "--json")
    assert (json.loads(rated.out)["value"], json.loads(rated.out)["rater"]) == (3.5, "anna")
    assert ask("feedback", "compare", image, image, "same", "-c", "imported").code == 2
    (tmp_path / "new.png").write_bytes(png(500))
    assert ask("feedback", "give", "false_alarm", tmp_path / "new.png", "-c", "imported", "--json").code == 0

    missing = ask("images", "delete", image, "nobody", "-c", "imported")
    assert missing.code == 1 and "no image nobody" in missing.err
    assert ask("images", "delete", "-c", "imported", "--label", "good", "--yes", "--json").code == 0
    assert len(json.loads(ask("images", "list", "-c", "imported", "--json").out)) == 1


def test_upkeep_snapshots_and_jobs(ask: Ask, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ask("ingest", bank, "-c", "kept").code == 0
    assert "too few to tell (30 are needed)" in ask("drift", "kept").err
    assert json.loads(ask("drift", "kept", "--hours", 2, "--json").out)["drifted"] is None
    both = ask("clean", "run", "kept", "--fraction", 0.1, "--scorer", "mine")
    assert both.code == 2 and "exactly one of" in both.err
    assert "2 of 24 images are taken out" in ask("clean", "run", "kept", "--fraction", 0.1).err
    (cleaning,) = json.loads(ask("clean", "list", "kept", "--json").out)
    assert "2 images are in the bank again" in ask("clean", "undo", "kept", cleaning["job"]).err
    assert "a bank of 5 stands for the whole" in ask("compress", "run", "kept", "--size", 5).err
    assert json.loads(ask("compress", "show", "kept").out)["size"] == 5
    assert ask("compress", "drop", "kept").code == 0
    assert "calibrated on 24 images" in ask("calibrate", "kept").err
    assert "24 alive" in ask("compact", "kept").err
    (bank / "again.png").write_bytes((bank / "00.png").read_bytes() + b"trailing")
    assert ask("ingest", bank, "-c", "kept").code == 0
    found = json.loads(ask("duplicates", "kept", "--level", "exact_pixels", "--json").out)
    assert [len(one["images"]) for one in found["sets"]] == [2]
    assert "exact_pixels" in ask("duplicates", "kept", "--level", "exact_pixels").out

    made = ask("snapshots", "make", "kept", "-o", tmp_path / "kept.tar")
    assert made.code == 0 and (tmp_path / "kept.tar").stat().st_size > 1000, made.err
    (snapshot,) = json.loads(ask("snapshots", "list", "kept", "--json").out)
    assert ask("snapshots", "download", "kept", snapshot["id"], "-o", tmp_path / "again.tar").code == 0
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "kept.tar").read_bytes()
    assert "with 25 images" in ask("snapshots", "restore", "back", tmp_path / "kept.tar").err
    assert "with 25 images" in ask("snapshots", "restore", "back-too", snapshot["id"]).err
    monkeypatch.chdir(tmp_path)
    for wrong, said in (
        (("kept.tar", "another"), "comes first"),
        ((tmp_path / "kept.tar", "another"), "holds no `/`"),
        (("another", "lost.tar"), "must be a file that is there"),
    ):
        refused = ask("snapshots", "restore", *wrong)
        assert refused.code == 2 and said in " ".join(refused.err.replace("│", " ").split()), refused.err
    assert ask("snapshots", "delete", "kept", snapshot["id"]).code == 0

    queued = ask("compact", "kept", "--no-wait", "--json")
    job = json.loads(queued.out)
    assert "has succeeded" in ask("jobs", "wait", job["id"]).err
    assert json.loads(ask("jobs", "show", job["id"]).out)["state"] == "succeeded"
    assert job["id"] in [one["id"] for one in json.loads(ask("jobs", "list", "-c", "kept", "--json").out)]
    assert "compact" in ask("jobs", "list", "--kind", "compact").out
    late = ask("jobs", "cancel", job["id"])
    assert late.code == 1 and "already succeeded" in late.err


def test_groups(ask: Ask, bank: Path) -> None:
    assert ask("ingest", bank, "-c", "sets").code == 0
    assert "has 2 images" in ask("groups", "put", "day", bank / "00.png", bank / "01.png", "-c", "sets").err
    assert "day" in ask("groups", "list", "-c", "sets").out
    scored = ask("groups", "score", bank / "02.png", bank / "03.png", "-c", "sets", "--json")
    assert len(json.loads(scored.out)["members"]) == 2
    plain = ask("groups", "score", bank / "02.png", bank / "03.png", "-c", "sets").out
    assert plain.count("p-value") == 1 and "drawn from the bank" in plain
    (bank / "rubbish.png").write_bytes(b"rubbish")
    by_images = ask("groups", "score", bank / "02.png", bank / "rubbish.png", "-c", "sets", "--pooling", "excess").out
    assert by_images.count("p-value") == 2 and "`image` must" in by_images, by_images
    for place in range(9):  # and `day`: ten
        files = [bank / f"{number:02}.png" for number in (place, (place + 1) % 10)]
        assert ask("groups", "put", f"g{place}", *files, "-c", "sets").code == 0
    told = ask("groups", "score", bank / "02.png", bank / "03.png", "-c", "sets", "--pooling", "excess").out
    assert "normal sets: 10, those registered" in " ".join(told.split()), told
    for place in range(9):
        assert ask("groups", "delete", f"g{place}", "-c", "sets").code == 0
    assert ask("groups", "delete", "day", "-c", "sets").code == 0
    assert json.loads(ask("groups", "list", "-c", "sets", "--json").out) == []


def test_a_report_is_one_file_about_the_strangest(ask: Ask, bank: Path, tmp_path: Path) -> None:
    assert ask("ingest", bank, "-c", "reported").code == 0
    new = tmp_path / "new <parts>"
    new.mkdir()
    for number in range(6):
        (new / f"{number}.png").write_bytes(png(100 + number, kind="stripes" if number == 3 else "noise"))
    (new / "broken.png").write_bytes(b"no image")
    out = tmp_path / "made" / "report.html"
    ran = ask("report", new, "-c", "reported", "-o", out, "--worst", 2, "--false-alarm-rate", 0.1, "--json")
    assert ran.code == 1  # one file is broken
    told = json.loads(ran.out)
    assert (told["images"], told["problems"]) == (6, 1)
    text = out.read_text(encoding="utf-8")
    assert "new &lt;parts&gt; against reported" in text and "<parts>" not in text
    assert text.count("<article>") == 2 and text.count("<figcaption>") == 6
    assert f"{told['anomalous']} of 6 images are anomalous" in text
    assert "broken.png" in text and "must be" in text
    for outside in ("http:", "https:", "<script", "<link", "@import", "url("):
        assert outside not in text
    addresses = [part.split('"', 1)[0] for part in text.split('src="')[1:]]
    assert addresses and all(one.startswith("data:image/") for one in addresses)
    shown = [line for line in text.splitlines() if line.startswith("<article>")]
    scores = [float(line.split("score ")[1].split(",")[0].split("<")[0]) for line in shown]
    assert scores == sorted(scores, reverse=True)
    nothing = ask("report", bank, "-c", "nowhere", "-o", out)
    assert nothing.code == 1 and "no collection" in nothing.err and out.read_text(encoding="utf-8") == text
