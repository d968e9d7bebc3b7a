"""The generated parts of a method's README (its table of parameters, and what was measured), and docs/methods.md.

`python -m models.method_pages` rewrites them all; a test fails while one is stale.
"""

import json
import re
from pathlib import Path
from typing import Any

from models.catalog import Catalogue, installed
from models.contract import Params

HEADINGS = (
    "What it does",
    "Choose it when / not when",
    "Inputs and outputs",
    "Parameters",
    "How it works",
    "Where we differ from the paper, and why",
    "Measured here",
    "Source and licence",
)
"""Second-level headings of every method's README, in this order."""

NOT_MEASURED = "Not measured yet."
NO_SCORE = "It gives images no score, so there is no figure to measure."
BASELINE = "dn2"
"""What is called plain in the tables of all others."""
_BASELINE_WORDS = (
    "What is called plain in the tables of the other methods, on the same images and splits; command, weights and\n"
    "machine stand there. Methods that were told something are tested on what is left."
)
_MEASURED = {
    "method": ("method",),
    "told": ("told",),
    "cases": ("cases",),
    "ROC-AUC": ("ROC-AUC",),
    "`dn2`": ("plain ROC-AUC",),
    "logistic regression": ("supervised ROC-AUC",),
    "fit, s": ("fit, CPU s", "fit, s"),
    "score, ms": ("score, CPU ms", "score, ms"),
    "kept, kB": ("state, kB",),
}
"""Columns of the page, and what they may be called in `measured.json`."""

_MEASURED_WORDS = (
    "ROC-AUC in percent, beside it that of `dn2` on the same images and, where methods were told labels, that of",
    "logistic regression told the same ones, with the weights that ship. Command and machine stand on each method's",
    "page. The bank of `cifar10` is the 5,000 airplanes of its training part, a fifth of which calibrates; what",
    "methods were told as unlabelled has left it.",
)
_FOLDER = Path(__file__).parent / "methods"
_OVERVIEW = Path(__file__).parent.parent / "docs" / "methods.md"
_BLOCK = re.compile(r"(<!-- generated: (?P<what>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def parameters_table(params: type[Params]) -> str:
    """A Markdown table of a method's parameters, from their definitions."""
    schema = params.model_json_schema()
    rows = ["| parameter | default | range | meaning |", "|---|---|---|---|"]
    for name, field in schema.get("properties", {}).items():
        default, meaning = json.dumps(field.get("default")), field.get("description", "")
        rows.append(f"| `{name}` | `{default}` | {_range(field, schema)} | {meaning} |")
    return "\n".join(rows)


def measured_table(folder: Path) -> str:
    """A Markdown table of `measured.json`, or a sentence when nothing was measured.

    The file holds `{"rows": [{column: value, ...}, ...], "setting": sentence}`.
    """
    path = folder / "measured.json"
    if not path.exists():
        return _as_baseline(folder.parent) if folder.name == BASELINE else NOT_MEASURED
    measured = json.loads(path.read_text(encoding="utf-8"))
    columns = list(measured["rows"][0])
    lines = [measured["setting"], "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(str(row[column]) for column in columns)} |" for row in measured["rows"]]
    return "\n".join(lines)


def _as_baseline(methods: Path) -> str:
    """A table of the figures that stand beside those of all other methods."""
    found = []
    for path in sorted(methods.glob("*/measured.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            beside = "told something" if "told" in row else "told nothing"
            figures = (row["plain ROC-AUC"], row["plain average precision"])
            found.append((row["data"], beside, row["cases"], *figures))
    if not found:
        return NOT_MEASURED
    lines = [_BASELINE_WORDS, "", "| data | beside methods | cases | ROC-AUC | average precision |"]
    lines.append("|---|---|---|---|---|")
    lines += [f"| {' | '.join(map(str, row))} |" for row in dict.fromkeys(found)]
    return "\n".join(lines)


def rendered(text: str, name: str, folder: Path, catalogue: Catalogue) -> str:
    """A README with its generated blocks filled anew."""
    parts = {
        "parameters": lambda: parameters_table(catalogue.method(name).Params),
        "measured": lambda: NO_SCORE if catalogue[name].role == "explainer" else measured_table(folder),
    }
    return _BLOCK.sub(lambda found: f"{found[1]}{parts[found['what']]()}\n{found[3]}", text)


def overview(catalogue: Catalogue, folder: Path = _FOLDER) -> str:
    """The page `docs/methods.md`: every method of this repository, from the cards."""
    cards = [card for name, card in catalogue.items() if (folder / name).is_dir()]
    lines = [
        "# Methods",
        "",
        "Each serves any collection: `PUT /v1/collections/{c}/scorers/{id}` fits it,",
        "`POST /v1/collections/{c}/anomaly?scorer={id}` asks it. Live ones follow the collection by themselves:",
        "`dn2` is asked there too, `few_shot_lr` by `/classify`, `explain` by `/explain`.",
        "The name leads to its page: what it does, when to choose it, parameters, figures.",
        "This page is generated from the cards:",
        "`python -m models.method_pages`.",
        "",
        "| id | what | needs | gives | source |",
        "|---|---|---|---|---|",
    ]
    for card in cards:
        needs = [str(one) for one in card.needs.required]
        if card.needs.either:
            needs.append(" or ".join(card.needs.either))
        needs += [f"({one})" for one in card.needs.optional]
        told = "live: nothing to fit" if card.live else ", ".join(needs)
        gives = ", ".join(one.replace("_", " ") for one in card.gives.outputs)
        paper = f"[{card.paper.title}]({card.paper.link}), {card.paper.year}"
        page = f"[`{card.name}`](../models/methods/{card.name}/README.md)"
        lines.append(f"| {page} | {card.sentence} | {told} | {gives} | {paper} |")
    lines += ["", *_measured_overview([card.name for card in cards], folder)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _measured_overview(names: list[str], folder: Path) -> list[str]:
    """Every measured row of every method: a table for each set of images, best first."""
    found = [
        {"method": f"[`{name}`](../models/methods/{name}/README.md)", **row}
        for name in names
        if (folder / name / "measured.json").exists()
        for row in json.loads((folder / name / "measured.json").read_text(encoding="utf-8"))["rows"]
    ]
    lines = ["## Measured", "", *_MEASURED_WORDS]
    for data in dict.fromkeys(row["data"] for row in found):
        rows = sorted((row for row in found if row["data"] == data), key=lambda row: -float(row["ROC-AUC"]))
        lines += ["", f"### {data}", "", f"| {' | '.join(_MEASURED)} |", "|" + "---|" * len(_MEASURED)]
        lines += [f"| {' | '.join(_first(row, names) for names in _MEASURED.values())} |" for row in rows]
    return lines


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((str(row[name]) for name in names if name in row), "")


def write_all(folder: Path = _FOLDER) -> None:
    """Rewrite the generated blocks of every README below a folder of methods, and the page that lists them."""
    _OVERVIEW.write_text(overview(installed()), encoding="utf-8")
    for path in sorted(folder.glob("*/README.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(rendered(text, path.parent.name, path.parent, installed()), encoding="utf-8")


def _range(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        field = schema["$defs"][field["$ref"].rsplit("/", 1)[-1]]
    if "anyOf" in field:  # a value, or null
        return " or ".join("`null`" if one.get("type") == "null" else _range(one, schema) for one in field["anyOf"])
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "boolean":
        return "`true`, `false`"
    low = field.get("minimum", field.get("exclusiveMinimum"))
    high = field.get("maximum", field.get("exclusiveMaximum"))
    if low is None and high is None:
        return str(field.get("type", ""))
    opening = "above " if "exclusiveMinimum" in field else ""
    closing = "below " if "exclusiveMaximum" in field else ""
    return f"{opening}{low} to {closing}{high}" if high is not None else f"from {opening}{low}"


if __name__ == "__main__":
    write_all()
