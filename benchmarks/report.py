"""Results as files: JSON for programs, Markdown for people."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.setting import setting

UNTRAINED = (
    "**The weights are the untrained stand-in. These figures show that the harness runs; they say nothing about how "
    "accurate the service is.**"
)


def write_report(found: dict[str, Any], out: Path, name: str, body: Iterable[str]) -> tuple[Path, Path]:
    """Paths of `<name>.json` and `<name>.md`, written with the setting they were measured in."""
    where = setting()
    out.mkdir(parents=True, exist_ok=True)
    as_json, as_text = out / f"{name}.json", out / f"{name}.md"
    as_json.write_text(json.dumps({**found, "setting": where}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    head = [
        f"# {name.replace('_', ' ').capitalize()}",
        "",
        f"`{where['command']}`",
        "",
        f"Commit {where['commit']}, {where['date']}; {where['machine']['processor']}, "
        f"{where['machine']['cores']} cores{_embedding(found)}.",
        "",
        *([UNTRAINED, ""] if found.get("weights") == "stand-in" else []),
    ]
    as_text.write_text("\n".join([*head, *body]) + "\n", encoding="utf-8")
    return as_json, as_text


def _embedding(found: dict[str, Any]) -> str:
    if "weights" not in found:  # nothing was embedded
        return ""
    return f"; weights: {found['weights']}, fingerprint {found['embedding']['fingerprint'][:12]}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table with an empty line after it; all columns but the first are aligned right."""
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def percent(value: float | None) -> str:
    """A share as percent with two digits; empty when unknown."""
    return "" if value is None else f"{100 * value:.2f}"


def accuracy_text(found: dict[str, Any]) -> list[str]:
    """The body of an accuracy report."""
    plan, data, seconds = found["plan"], found["data"], found["seconds"]
    lines = [
        f"Data: {data['folder']} ({data['layout']}), {sum(data['train'].values())} train and "
        f"{sum(data['test'].values())} test files, {data['distinct_images']} distinct, {len(data['refused'])} refused. "
        f"k = {plan['k']}, {plan['metric']}, seed {plan['seed']}, bank per class "
        f"{'all' if plan['bank'] is None else plan['bank']}. Embedding {seconds['embedding']:.1f} s "
        f"(cached vectors count as nothing), measuring {seconds['measuring']:.1f} s.",
        "",
        "All figures are percent.",
        "",
    ]
    for name, part in found["protocols"].items():
        lines += [f"## {name.capitalize()}", ""]
        lines += _contaminated(part, plan) if name == "contaminated" else _plain(part)
    return lines


def _plain(part: dict[str, Any]) -> list[str]:
    measured = [one for one in part["cases"] if "skipped" not in one]
    skipped = dict.fromkeys(one["skipped"] for one in part["cases"] if "skipped" in one)
    if not measured:
        return [*skipped, ""]
    rates = [one["requested"] for one in measured[0]["rates"]]
    head = ["case", "ROC-AUC", "average precision", "FPR at 95 % TPR", "bank", "normal", "strange", "seconds"]
    rows = [
        [
            _named(one),
            *(percent(one[name]) for name in ("roc_auc", "average_precision", "fpr_at_95_tpr")),
            *(str(one[name]) for name in ("bank", "normal", "strangers")),
            f"{sum(one['seconds'].values()):.2f}",
        ]
        for one in measured
    ]
    rows += [
        [
            f"**mean** {one['variant']}",
            *(percent(one[name]) for name in ("roc_auc", "average_precision", "fpr_at_95_tpr")),
        ]
        + [""] * 4
        for one in part["means"]
    ]
    promised = [f"{percent(rate)} asked: {what}" for rate in rates for what in ("promised", "observed", "found")]
    kept = [
        [label, *(percent(rate[what]) for rate in one["rates"] for what in ("promised", "observed", "found"))]
        for label, one in [
            *((_named(one), one) for one in measured),
            *((f"**mean** {one['variant']}", one) for one in part["means"]),
        ]
    ]
    words = "False alarms: rate asked for, promised, observed on normal test images; strangers found."
    return [*table(head, rows), words, "", *table(["case", *promised], kept), *skipped, *([""] if skipped else [])]


def _contaminated(part: dict[str, Any], plan: dict[str, Any]) -> list[str]:
    head = ["case", "clean bank", "with strangers", "cleaned", "came back", "planted", "dropped", "of them planted"]
    rows = []
    for one in part["cases"]:
        figures = [one[name]["roc_auc"] for name in ("clean", "contaminated", "cleaned")]
        counts = [str(one[name]) for name in ("planted", "dropped", "planted_dropped")]
        rows.append([_named(one), *map(percent, figures), "", *counts])
    for one in part["means"]:
        figures = [one[name]["roc_auc"] for name in ("clean", "contaminated", "cleaned")]
        rows.append(["**mean**", *map(percent, figures), percent(one["recovered"]), "", "", ""])
    words = (
        f"ROC-AUC with {percent(plan['contamination'])} % of the bank strangers from all other kinds, then with the "
        f"strangest {percent(plan['dropped'])} % dropped by leave-one-out scores."
    )
    return [words, "", *table(head, rows)]


def _named(one: dict[str, Any]) -> str:
    return f"{one['case']}, {one['variant']}" if one["variant"] else str(one["case"])
