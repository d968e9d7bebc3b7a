"""One method = one folder + its tests: each folder complete, and named nowhere else."""

import re
from pathlib import Path

import pytest

from models import method_pages
from models.catalog import installed
from models.contract import Give
from tests.rules.source_tree import EVERYWHERE, ROOT, Finding, Source, sources, unskipped

METHODS = ROOT / "models" / "methods"
FOLDERS = sorted(path for path in METHODS.iterdir() if path.is_dir() and path.name != "__pycache__")
NAMES = [path.name for path in FOLDERS]
FILES = ("__init__.py", "card.toml", "README.md", "method.py")


def homes(name: str) -> tuple[str, ...]:
    """Where a method may be named: its folder, its tests, its oracle."""
    return (f"models/methods/{name}/", f"tests/models/methods/test_{name}", f"tests/oracles/{name}")


def mentions(source: Source, names: list[str]) -> list[Finding]:
    """Lines outside its homes that name a method."""
    return [
        Finding(source, number, f"names the method {name}")
        for name in names
        if not source.path.startswith(homes(name))
        for number, line in enumerate(source.text.splitlines(), start=1)
        if re.search(rf"\b{name}\b", line)
    ]


def imported_insides(source: Source, live: list[str]) -> list[Finding]:
    """Imports of a method by the service: only a live one's public names."""
    found = []
    for one in source.imports():
        parts = one.target.split(".")
        if parts[:2] == ["models", "methods"] and len(parts) > 2:
            if parts[2] not in live:
                found.append(Finding(source, one.line, f"{one.target} is reached through the catalogue only"))
            elif len(parts) > 4:
                found.append(
                    Finding(source, one.line, f"{one.target} is inside the method, not one of its public names")
                )
    return found


def test_the_catalogue_finds_every_folder():
    assert [name for name in installed() if (METHODS / name).is_dir()] == NAMES
    assert NAMES


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_a_folder_is_complete(folder: Path):
    missing = [name for name in FILES if not (folder / name).is_file()]
    assert not missing
    assert list((ROOT / "tests" / "models" / "methods").glob(f"test_{folder.name}*.py"))
    assert len((folder / "card.toml").read_text().splitlines()) > 10


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_a_readme_has_every_heading_in_order(folder: Path):
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == method_pages.HEADINGS
    for what in ("parameters", "measured"):
        assert f"<!-- generated: {what} -->" in text


@pytest.mark.parametrize("folder", FOLDERS, ids=NAMES)
def test_generated_parts_are_current(folder: Path):
    text = (folder / "README.md").read_text(encoding="utf-8")
    current = method_pages.rendered(text, folder.name, folder, installed())
    assert text == current, "run `python -m models.method_pages`"
    # Negative control: a stale table is noticed.
    stale = text.replace("<!-- generated: parameters -->\n", "<!-- generated: parameters -->\nstale\n")
    assert method_pages.rendered(stale, folder.name, folder, installed()) != stale


@pytest.mark.parametrize("name", NAMES)
def test_the_code_keeps_what_the_card_says(name: str):
    card, method = installed()[name], installed().method(name)
    assert hasattr(method, "fit") != card.live, "a live method has no fit, any other has one"
    assert card.live or hasattr(method, "restore")
    for parameter, field in method.Params.model_fields.items():
        assert field.description, f"parameter {parameter} has no sentence"
        assert not field.is_required(), f"parameter {parameter} has no default"
    assert card.gives.low < card.gives.high
    assert len(set(card.gives.outputs)) == len(card.gives.outputs)
    assert set(card.gives.outputs) <= set(Give)


def test_only_live_methods_are_known_to_the_service():
    # A live method is part of the service and named where it is used; any other is reached through the catalogue, so
    # that removing it is deleting its folder and its tests.
    live = [name for name in NAMES if installed()[name].live]
    fitted = [name for name in NAMES if name not in live]
    assert unskipped("mention", (m for source in sources(*EVERYWHERE) for m in mentions(source, fitted))) == []
    assert unskipped("mention", (m for source in sources("app") for m in imported_insides(source, live))) == []
    inside = sources("models")
    lower = [s for s in inside if not s.path.startswith("models/methods/")] + sources("index", "migrations")
    assert unskipped("mention", (m for source in lower for m in imported_insides(source, []))) == []


def test_the_mention_rules_can_fail():
    assert mentions(Source("app/x.py", "a = 'some_method'"), ["some_method"])
    assert mentions(Source("models/methods/other/x.py", "# as some_method does"), ["some_method"])
    assert not mentions(Source("app/x.py", "some_methods = 1"), ["some_method"])
    assert not mentions(Source("models/methods/some_method/x.py", "some_method"), ["some_method"])
    fitted = Source("app/x.py", "from models.methods.some_method import METHOD")
    assert imported_insides(fitted, [])
    assert not imported_insides(fitted, ["some_method"])
    assert imported_insides(Source("app/x.py", "from models.methods.some_method.maths import f"), ["some_method"])
