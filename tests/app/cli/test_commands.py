"""Failures are sentences with an exit code; a service can be near or far."""

import gc
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer

from app.cli.console import short_number
from app.cli.main import COMMANDS, main
from app.storage import FolderFiles
from tests.app.cli.conftest import Oddity
from tests.app.cli.serving import serving

ROOT = Path(__file__).parents[3]


class Left:
    """What nothing refers to but itself."""


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


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Each command below this one, by the words that call it."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, one in below.items():
        yield from commands(one, f"{name} {word}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_that_can_be_typed(name: str) -> None:
    module = importlib.import_module(f"app.cli.{name}")
    for words, command in commands(typer.main.get_command(module.cli), name):
        assert command.help and command.help.strip(), words
        for parameter in command.params:
            told = getattr(parameter, "help", None) or parameter.name == "help" or name == "bench"
            assert told, f"{words}: {parameter.name}"
        if name == "bench":
            continue
        assert command.epilog and command.epilog.startswith("Examples:"), f"{words} has no example"
        for example in command.epilog.split("\n\n")[1:]:
            typed = shlex.split(example.partition(" | ")[0])
            assert typed[0] == "oddity" and typed[1 : 1 + len(words.split())] == words.split(), example
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            given = {one.partition("=")[0] for one in typed if one.startswith("-") and one != "-"}
            assert given <= known, example


def test_help_tells_the_exit_codes(oddity: Oddity) -> None:
    out = oddity("--help").out
    assert "Exit codes" in out and "130" in out
    assert "--install-completion" in out
    assert "--install-completion" not in oddity("search", "--help").out, "it is of `oddity` as a whole"
    shown = oddity("images", "list", "--help").out
    assert "Examples" in shown and "oddity images list -c parts --role anomalous" in shown


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("oddity sn", "snapshots"), ("oddity snapshots re", "restore"), ("oddity score --fa", "--false-alarm-rate")],
)
def test_the_shell_completes(
    typed: str, offered: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_ODDITY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    assert offered in capsys.readouterr().out.split()


def test_a_mistyped_command_is_corrected(oddity: Oddity) -> None:
    ran = oddity("srve")
    assert ran.code == 2
    assert "serve" in ran.err


def test_a_command_that_is_imported_already_keeps_no_garbage(oddity: Oddity) -> None:
    assert oddity("weights", "list").code == 0
    frozen, left = gc.get_freeze_count(), Left()
    left.itself, watched = left, weakref.ref(left)
    del left
    assert oddity("weights", "list").code == 0
    assert gc.get_freeze_count() <= frozen
    gc.collect()
    assert watched() is None


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


def test_where_weights_come_from_is_shown(oddity: Oddity, tmp_path: Path) -> None:
    card = json.loads(oddity("weights", "show", "resnet50", "--data", tmp_path, "--json").out)
    assert (card["id"], card["default_weights"], card["embedded"]) == ("resnet50", "stand-in", None)
    shown = oddity("weights", "show", "resnet50", "--data", tmp_path).out
    assert "not fetched" in shown and "BSD-3-Clause" in shown
    unknown = oddity("weights", "show", "alexnet", "--data", tmp_path)
    assert unknown.code == 2 and "resnet18" in unknown.err and "alexnet" in unknown.err


def test_numbers_keep_three_digits_however_small() -> None:
    assert [short_number(value) for value in (0.0, 6e-8, 0.0000126449, 0.14374, 12.5, 1234.56)] == [
        "0",
        "0",
        "0.0000126",
        "0.144",
        "12.5",
        "1235",
    ]
