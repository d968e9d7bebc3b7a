"""Failures are sentences with an exit code; a service can be near or far."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import httpx2
import pytest

from app.cli.serve import announced_server
from app.settings import Settings
from app.storage import FolderFiles
from tests.app.cli.conftest import Oddity

ROOT = Path(__file__).parents[3]


def test_help_lists_every_command_without_loading_the_network() -> None:
    program = (
        "import sys\nfrom app.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print('loaded' if {'torch', 'faiss', 'sqlalchemy'} & set(sys.modules) else 'light')"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.splitlines()[-1] == "light"
    for name in ("serve", "demo", "ingest", "score", "search", "migrate", "weights", "bench"):
        assert re.search(rf"\b{name}\b", out)


@pytest.mark.parametrize("name", ["serve", "demo", "ingest", "score", "search", "migrate", "weights", "bench"])
def test_every_command_has_help(oddity: Oddity, name: str) -> None:
    ran = oddity(name, "--help")
    assert ran.code == 0
    assert f"oddity {name}" in ran.out


def test_a_mistyped_command_is_corrected(oddity: Oddity) -> None:
    ran = oddity("srve")
    assert ran.code == 2
    assert "serve" in ran.err


def test_no_service_is_a_sentence(oddity: Oddity, folder: Path) -> None:
    image = folder / "left" / "0.png"
    ran = oddity("search", image, "-c", "parts", "--server", "http://127.0.0.1:9")
    assert ran.code == 1
    assert "No service answers at http://127.0.0.1:9" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--server", "http://127.0.0.1:9", "--data", "d"], "not both"),
        (["--server", "127.0.0.1:9"], "must begin with http"),
    ],
)
def test_wrong_options_exit_with_2(oddity: Oddity, folder: Path, options: list[str], sentence: str) -> None:
    ran = oddity("search", folder / "left" / "0.png", "-c", "parts", *options)
    assert ran.code == 2
    assert sentence in ran.err


def test_a_wrong_setting_names_its_variable(oddity: Oddity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ODDITY_THREADS", "many")
    ran = oddity("migrate", "--data", tmp_path)
    assert ran.code == 2
    assert "`ODDITY_THREADS`" in ran.err


def test_the_data_folder_comes_from_the_environment(
    oddity: Oddity, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODDITY_DATA", str(tmp_path / "elsewhere"))
    assert oddity("ingest", folder / "left", "-c", "parts").code == 0
    assert (tmp_path / "elsewhere" / "oddity.db").exists()


def test_a_refusal_is_the_services_own_sentence(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    ran = oddity("ingest", folder, "-c", "not a name!", "--data", tmp_path / "d")
    assert ran.code == 2
    assert "1 to 128" in ran.err


def test_migrate_may_be_repeated(oddity: Oddity, tmp_path: Path) -> None:
    for _ in range(2):
        assert oddity("migrate", "--data", tmp_path / "d").code == 0
    assert (tmp_path / "d" / "oddity.db").exists()


def test_weights_are_listed_and_an_unknown_name_refused(oddity: Oddity, tmp_path: Path) -> None:
    listed = json.loads(oddity("weights", "list", "--data", tmp_path, "--json").out)
    assert listed["resnet18"]["torchvision"] is False
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / listed["resnet18"]["file"]).write_bytes(b"")
    assert json.loads(oddity("weights", "list", "--data", tmp_path, "--json").out)["resnet18"]["torchvision"] is True
    ran = oddity("weights", "fetch", "alexnet", "--data", tmp_path)
    assert ran.code == 1
    assert "got alexnet" in ran.err


def test_something_else_on_the_port_is_told(oddity: Oddity, folder: Path) -> None:
    server = HTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        ran = oddity(
            "search", folder / "left" / "0.png", "-c", "parts", "--server", f"http://127.0.0.1:{server.server_port}"
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert ran.code == 1
    assert "does not answer like Oddity" in ran.err


@contextmanager
def serving(data: Path) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    server = announced_server(Settings(data=data), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.is_announced:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_serve_tells_newcomers_of_the_demo_and_commands_reach_it(
    oddity: Oddity, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "right" / "broken.png").unlink()
    with serving(tmp_path / "d") as url:
        said = capsys.readouterr().err
        assert f"{url}/" in said
        assert f"oddity demo --server {url}" in said
        assert httpx2.get(url).status_code == 200
        ran = oddity("ingest", folder, "-c", "parts", "--server", url, "--json")
        assert (ran.code, json.loads(ran.out)["created"]) == (0, 12)
        out = tmp_path / "scores.csv"
        assert oddity("score", folder, "-c", "parts", "--server", url, "--out", out).code == 0
    capsys.readouterr()
    with serving(tmp_path / "d") as url:
        said = capsys.readouterr().err
        assert f"{url}/" in said
        assert "oddity demo" not in said


def test_collect_counts_or_deletes_what_nobody_needs(oddity: Oddity, tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = FolderFiles(data / "images")
    store.write([("ab" + "0" * 62, b"nobody's")])
    os.utime(store.path("ab" + "0" * 62), (0, 0))
    ran = oddity("collect", "--data", data, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == {
        "dry_run": True, "images": 1, "thumbnails": 0, "unfinished": 0, "deletions": 0, "answers": 0, "jobs": 0
    }  # fmt: skip
    assert store.exists("ab" + "0" * 62)
    ran = oddity("collect", "--data", data)
    assert ran.code == 0 and "Deleted 1 image files" in ran.err
    assert not store.exists("ab" + "0" * 62)
