"""What is kept of answers: how their p-values are spread."""

from typing import Any

from app.core import Core
from app.shelf import CollectionState


def note_answer(core: Core, state: CollectionState, answer: dict[str, Any]) -> None:
    """Count the images of an answer about images that were sent; in memory, so that nobody waits."""
    scored = [one for one in answer["results"] if "problem" not in one]
    p_values = [one["p_value"] for one in scored if one["p_value"] is not None]
    verdicts = [one["anomalous"] for one in scored]
    core.observing.instruments.count_scores(state.name, answer["scorer"], p_values, verdicts)
    core.p_values.note(state.id, answer["scorer"], p_values, answer["calibration"]["n"])
