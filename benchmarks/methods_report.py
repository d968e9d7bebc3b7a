"""What `oddity bench methods` found, for people: a report, and the cards of the methods."""

import json
from pathlib import Path
from typing import Any

from benchmarks.methods import SUPERVISED
from benchmarks.report import table

COLUMNS = (
    "method",
    "told",
    "cases",
    "ROC-AUC",
    "plain ROC-AUC",
    "supervised ROC-AUC",
    "average precision",
    "plain average precision",
    "false alarms at 5 %",
    "fit, CPU s",
    "score, CPU ms",
    "state, kB",
)
CARDS = Path(__file__).resolve().parent.parent / "models" / "methods"


def write_cards(found: dict[str, Any], sentence: str, folder: Path = CARDS) -> list[Path]:
    """The `measured.json` of each method of this repository that was measured; third parties keep their own."""
    written = []
    for name in dict.fromkeys(one["method"] for one in found["summary"]):
        rows = [_card_row(one) for one in found["summary"] if one["method"] == name and "skipped" not in one]
        if rows and (folder / name).is_dir():
            path = folder / name / "measured.json"
            path.write_text(
                json.dumps({"setting": sentence, "rows": rows}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            written.append(path)
    return written


def methods_text(found: dict[str, Any]) -> list[str]:
    """The body of a report: a table for each folder, best ROC-AUC first."""
    lines = [
        "Means over the cases, in percent; nearest neighbours (dn2, k = 2, cosine) on the same cases beside them.",
        "",
    ]
    for folder in dict.fromkeys(one["folder"] for one in found["summary"]):
        rows = [one for one in found["summary"] if one["folder"] == folder]
        done = sorted((one for one in rows if "skipped" not in one), key=lambda one: -one["roc_auc"])
        lines += [f"## {folder}", ""]
        if done:
            cells = [{"method": one["method"], **_card_row(one)} for one in done]
            head = [name for name in COLUMNS if any(name in row for row in cells)]
            lines += table(head, [[str(row.get(name, "")) for name in head] for row in cells])
        lines += [f"{one['method']}: {one['skipped']}" for one in rows if "skipped" in one]
        lines.append("")
    return lines


def setting_sentence(found: dict[str, Any], where: dict[str, Any]) -> str:
    """How the figures came about, for a card."""
    embedding = found["embedding"]
    untrained = " The weights are untrained: the figures compare methods on these vectors, no more." * (
        found["weights"] == "stand-in"
    )
    supervised = " Supervised is logistic regression (few_shot_lr) told the bank and the same labels." * (
        found["plan"]["supervision"]["shots"] > 0
    )
    return (
        f"`{where['command']}`, commit {where['commit']}, {where['date'][:10]}, {where['machine']['processor']}, "
        f"{where['machine']['cores']} cores; {embedding['backbone']}, weights {found['weights']}, "
        f"{embedding['preprocessing']['image_size']} px. Percent, means over the cases; plain is dn2 with its "
        f"defaults on the same cases.{supervised}{untrained}"
    )


def _card_row(one: dict[str, Any]) -> dict[str, Any]:
    plain, supervised = one["plain"], one["supervised"]
    return {
        "data": one["folder"],
        **({"told": one["told"]} if one["told"] else {}),
        "cases": one["cases"],
        "ROC-AUC": _percent(one["roc_auc"]),
        "plain ROC-AUC": _percent(plain["roc_auc"]),
        **(
            {"supervised ROC-AUC": _percent(supervised["roc_auc"])}
            if supervised and one["method"] != SUPERVISED
            else {}
        ),
        "average precision": _percent(one["average_precision"]),
        "plain average precision": _percent(plain["average_precision"]),
        "false alarms at 5 %": _percent(one["false_alarms"]),
        "fit, CPU s": f"{one['fit_s']:.2f}",
        "score, CPU ms": f"{one['score_ms']:.2f}",
        "state, kB": f"{one['state_bytes'] / 1000:.0f}",
    }


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
