"""catalog.py: cards without code, code on demand, and a refusal that names the folder for each way to be wrong."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from models.catalog import ENTRY_POINT_GROUP, installed, load_catalogue
from models.contract import LiveMethod, MethodCard, Need, Needs
from models.errors import CardInvalid, MethodIncomplete, MethodNameTaken, MethodUnknown

ROOT = Path(__file__).parents[2]
CARD = """
name = "{name}"
title = "A method of this test"
sentence = "Counts."
status = "trial"
role = "scorer"
origin = "written for this test"
repeatable = "bitwise"
paper = {{ authors = "A. Nobody", year = 2020, title = "On counting", link = "https://example.org/1", parts = "all" }}
needs = {{ required = ["vectors"], either = ["maps", "pixels"], bank_min = 3 }}
gives = {{ outputs = ["image_score"], unit = "one", low = 0.0, high = inf }}
costs = {{ fit = "O(1)", score = "O(1)", memory = "none" }}
"""
CODE = """
from pydantic import Field
from models.contract import Params


class CountParams(Params):
    many: int = Field(3, ge=1, le=9, description="How many, in pieces.")


class METHOD:
    name = "{name}"
    Params = CountParams
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes method folders in a package of this test's own, and the catalogue of them."""
    package = f"methods_of_{tmp_path.name.replace('-', '_')}"
    folder = tmp_path / package
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    def make(*names: str, card: str = CARD, code: str = CODE, third_party=()):
        for name in names:
            (folder / name).mkdir()
            (folder / name / "card.toml").write_text(card.format(name=name))
            (folder / name / "__init__.py").write_text(code.replace("{name}", name))
        return load_catalogue(folder, package, third_party)

    make.folder, make.package = folder, package
    return make


def test_cards_are_read_without_their_code(make):
    catalogue = make("counter", "abacus", code="raise RuntimeError('imported')")
    assert list(catalogue) == ["abacus", "counter"]
    assert catalogue["counter"].paper.year == 2020
    with pytest.raises(RuntimeError, match="imported"):  # negative control: asking for the code does import it
        catalogue.method("counter")


def test_listing_the_installed_methods_imports_neither_them_nor_torch():
    script = (
        "import sys\n"
        "from models.catalog import installed\n"
        "assert len(installed()) > 0\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'faiss') or 'methods.' in name])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_code_comes_on_demand(make):
    catalogue = make("counter")
    method = catalogue.method("counter")
    assert method.Params().many == 3
    assert catalogue.params_schema("counter")["properties"]["many"]["maximum"] == 9


def test_a_description_is_plain_json(make):
    described = make("counter").describe("counter")
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["id"] == "counter"
    assert described["gives"]["high"] is None  # infinity has no JSON
    assert described["needs"]["either"] == ["maps", "pixels"]
    assert described["params"]["properties"]["many"]["default"] == 3
    assert {"title", "paper", "role", "needs", "gives", "costs", "differs"} <= set(described)


def test_every_installed_method_describes_itself():
    for name in installed():
        assert json.dumps(installed().describe(name), allow_nan=False)


def test_the_built_in_live_scorer_is_there():
    card = installed()["dn2"]
    assert card.live
    assert isinstance(installed().method("dn2"), LiveMethod)


def test_an_unknown_method_is_named_beside_those_there_are(make):
    catalogue = make("counter")
    for ask in (catalogue.__getitem__, catalogue.method, catalogue.params_schema, catalogue.describe):
        with pytest.raises(MethodUnknown, match="must be one of `counter`; got 'abacus'"):
            ask("abacus")
    assert "abacus" not in catalogue
    assert catalogue.get("counter") is catalogue["counter"]


def test_the_catalogue_does_not_change(make):
    catalogue = make("counter")
    with pytest.raises(TypeError):
        catalogue["abacus"] = catalogue["counter"]
    with pytest.raises(TypeError):
        catalogue._cards["abacus"] = catalogue["counter"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (('name = "{name}"', 'name = "other"'), "must be 'counter'; got 'other'"),
        (('title = "A method of this test"', ""), "`title` of the card"),
        (('status = "trial"', 'status = "trial"\ncolour = "red"'), "`colour` of the card"),
        (('status = "trial"', 'status = "new"'), "`status` of the card"),
        (('required = ["vectors"]', 'required = ["smell"]'), "`needs.required.0` of the card"),
        (('outputs = ["image_score"]', "outputs = []"), "`gives.outputs` of the card"),
        (("https://example.org/1", "nowhere"), "`paper.link` of the card"),
        (('title = "A', "title = A"), "must be readable TOML"),
    ],
)
def test_a_bad_card_stops_the_start_and_names_its_folder(make, change, sentence):
    old, new = change
    assert old in CARD
    with pytest.raises(CardInvalid, match=sentence) as refused:
        make("counter", card=CARD.replace(old, new))
    assert str(make.folder / "counter") in str(refused.value)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("METHOD = None", "`METHOD` of package `.*counter` must be a class; got None"),
        ("", "must be a class; got None"),
        ("class METHOD:\n    name = 'other'", "`METHOD.name` of package `.*counter` must be 'counter'.*got 'other'"),
        ("class METHOD:\n    name = 'counter'", "`METHOD.Params` .* must be a subclass .* got None"),
    ],
)
def test_code_that_is_not_what_the_card_says_is_refused(make, code, sentence):
    with pytest.raises(MethodIncomplete, match=sentence):
        make("counter", code=code).method("counter")


def third_party(make, name: str, module: str) -> EntryPoint:
    return EntryPoint(name=name, value=f"{make.package}_elsewhere.{module}", group=ENTRY_POINT_GROUP)


@pytest.fixture
def elsewhere(make):
    """A package of somebody else, with one method in it whose import is noticed."""
    folder = make.folder.parent / f"{make.package}_elsewhere"
    (folder / "sorter").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "plain.py").write_text("")
    (folder / "sorter" / "card.toml").write_text(CARD.format(name="sorter"))
    (folder / "sorter" / "__init__.py").write_text(CODE.replace("{name}", "sorter"))
    return folder


def test_third_parties_add_methods_by_entry_point(make, elsewhere):
    catalogue = make("counter", third_party=[third_party(make, "sorter", "sorter")])
    assert list(catalogue) == ["counter", "sorter"]
    assert f"{elsewhere.name}.sorter" not in sys.modules
    assert catalogue.method("sorter").name == "sorter"


def test_third_parties_are_refused_as_folders_are(make, elsewhere):
    with pytest.raises(CardInvalid, match="must be 'other'; got 'sorter'"):
        make(third_party=[third_party(make, "other", "sorter")])
    with pytest.raises(CardInvalid, match="must point at a package with a card"):
        make(third_party=[third_party(make, "sorter", "plain")])
    with pytest.raises(CardInvalid, match=r"got '.*absent'"):
        make(third_party=[third_party(make, "sorter", "absent")])
    with pytest.raises(CardInvalid, match="must point at an installed package"):
        make(third_party=[EntryPoint("sorter", "no_such_package_at_all.sorter", ENTRY_POINT_GROUP)])


def test_two_methods_of_one_name_are_refused_with_both_places(make, elsewhere):
    with pytest.raises(MethodNameTaken, match=r"entry point 'sorter'.*which .*sorter carries"):
        make("sorter", third_party=[third_party(make, "sorter", "sorter")])


def test_needs_name_what_is_missing():
    needs = Needs(required=("vectors", "labels"), either=("maps", "pixels"))
    assert needs.missing(frozenset({Need.VECTORS, Need.LABELS, Need.MAPS})) == ()
    assert needs.missing(frozenset({Need.VECTORS})) == (Need.LABELS, Need.MAPS, Need.PIXELS)


def test_a_card_is_frozen():
    card = installed()["dn2"]
    assert isinstance(card, MethodCard)
    with pytest.raises(ValueError, match="frozen"):
        card.title = "Another"
