"""Every block of code in the documents does what the page says, in the order of the page, against a server.

Blocks marked `sh` and `python` are run, `json` and `toml` are read. One that cannot be run here has a comment before it
that says why: `<!-- not run: … -->`.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.cli.demo import textures_scene
from tests.app.cli.serving import serving

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "app" / "client" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?P<before>[^\n]*)\n+(?P<fence>```)(?P<language>[^\n]*)\n(?P<text>.*?)\n```", re.DOTALL)
LANGUAGES = {"sh", "python", "json", "toml", "text"}
NOT_RUN = re.compile(r"<!-- not run: \S.+ -->")
# Answers of 4xx and 5xx fail a block; make is asked what it would do, not to build an environment.
PRELUDE = """
set -euo pipefail
curl() { command curl --fail-with-body --silent --show-error "$@"; }
make() { command make --dry-run --directory {root} "$@"; }
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    is_run: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("fence")) + 1,
            found["language"].strip(),
            found["text"],
            not NOT_RUN.search(found["before"]),
        )
        for found in FENCE.finditer(text)
    ]


RUN = [page for page in PAGES if any(one.language in ("sh", "python") and one.is_run for one in blocks(page))]


@dataclass(frozen=True)
class World:
    """A folder with the files that the pages speak of, and a server."""

    folder: Path
    url: str

    def run(self, block: Block) -> None:
        """Run a block; what it prints when it fails is the assertion's message."""
        text = block.text.replace("http://127.0.0.1:8000", self.url).replace("localhost:8000", self.url[7:])
        command = [sys.executable, "-c", text]
        if block.language == "sh":
            command = ["bash", "-c", PRELUDE.replace("{root}", shlex.quote(str(ROOT))) + text]
        path = os.pathsep.join([str(self.folder / ".bin"), os.environ["PATH"]])
        python = os.pathsep.join([str(ROOT), str(ROOT / "app" / "client")])
        environment = {**os.environ, "PATH": path, "PYTHONPATH": python, "ODDITY_SERVER": self.url, "COLUMNS": "160"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{block}\n{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("docs")
    made = textures_scene()
    (folder / ".bin").mkdir()
    (folder / ".bin" / "oddity").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m app.cli "$@"\n')
    (folder / ".bin" / "oddity").chmod(0o755)
    for place in ("good", "new"):
        (folder / place).mkdir()
    for number, one in enumerate(made.bank[:36]):
        (folder / "good" / one.name).write_bytes(one.data)
        part = folder / "good-by-part" / f"part-{number // 6}"
        part.mkdir(parents=True, exist_ok=True)
        (part / one.name).write_bytes(one.data)
    for one in (made.belonging[0], *(stranger for stranger in made.strangers if "scratch" in stranger.name)):
        (folder / "new" / one.name).write_bytes(one.data)
    for kind in ("weave", "scratch"):
        (folder / "kinds" / kind).mkdir(parents=True)
        images = made.bank if kind == "weave" else [one for one in made.strangers if kind in one.name]
        for one in images[:5]:
            (folder / "kinds" / kind / one.name).write_bytes(one.data)
    for name, one in (("good-1.jpg", made.bank[0]), ("good-2.jpg", made.bank[1]), ("new.jpg", made.belonging[1])):
        (folder / name).write_bytes(one.data)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("WEIGHTS", "stand-in"), ("IMAGE_SIZE", "32"), ("JOBS", "thread")):
            patch.setenv(f"ODDITY_{name}", value)
        with serving(tmp_path_factory.mktemp("service")) as url:
            world = World(folder, url)
            world.run(Block(ROOT / "README.md", 0, "sh", f"oddity demo --server {url} --json", True))
            world.run(Block(ROOT / "README.md", 0, "sh", "oddity ingest good/ -c parts", True))
            yield world


@pytest.mark.docs
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page_runs(page: Path, world: World) -> None:
    for block in blocks(page):
        if block.language in ("sh", "python") and block.is_run:
            world.run(block)


@pytest.mark.docs
def test_a_block_that_fails_is_told(world: World) -> None:
    for language, text in (("sh", "curl http://127.0.0.1:8000/v1/nothing"), ("sh", "false | cat"), ("python", "1 / 0")):
        with pytest.raises(AssertionError):
            world.run(Block(ROOT / "README.md", 0, language, text, True))


def test_every_block_says_what_it_is() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert block.language in LANGUAGES, f"{block}: a block must be one of {', '.join(sorted(LANGUAGES))}"
            if block.language == "json":
                json.loads(block.text)
            if block.language == "toml":
                tomllib.loads(block.text)


def test_no_code_hides_in_an_indented_block() -> None:
    hidden = re.compile(r"\n\n {4}\S[^\n]*")
    assert hidden.search("Words:\n\n    oddity serve\n")
    for page in PAGES:
        found = hidden.search(FENCE.sub("", page.read_text(encoding="utf-8")))
        assert not found, f"{page.relative_to(ROOT)}: {found[0].strip()!r} must stand between fences, and be run"


@pytest.mark.docs
def test_the_pages_are_built_without_a_broken_link(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    python = os.pathsep.join([str(ROOT), str(ROOT / "app" / "client")])
    environment = {**os.environ, "PYTHONPATH": python, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in ("index.html", "rest.html", "recipes/inspection-line.html", "methods/dn2.html", "client.html"):
        assert (tmp_path / "site" / page).stat().st_size > 2000
    assert "/v1/collections/{c}/anomaly" in (tmp_path / "site" / "rest.html").read_text(encoding="utf-8")
