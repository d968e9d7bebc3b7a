"""A feedback as answers show it."""

from datetime import datetime
from typing import Any

from app.clock import shown
from app.db.tables import FeedbackRow


def show(row: FeedbackRow) -> dict[str, Any]:
    """What was said, of what, when, and whether it was taken back."""
    return {
        "id": row.id,
        "kind": row.kind,
        **_about(row),
        "note": row.note,
        "created_at": shown(row.created_at),
        "undone_at": _shown(row.undone_at),
    }


def _about(row: FeedbackRow) -> dict[str, Any]:
    if row.kind == "pair":
        return {"left": row.image_id, "right": row.other_image_id, "answer": row.answer, "rater": row.rater}
    about = {"image": row.image_id, "sha256": row.sha256}
    if row.kind == "rating":
        return {**about, "value": row.value, "rater": row.rater}
    role = {"before": row.role_before, "after": row.role_after}
    return {**about, "changed": {"stored": row.role_before is None, "role": role}}


def _shown(moment: datetime | None) -> str | None:
    return None if moment is None else shown(moment)
