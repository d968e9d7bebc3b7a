"""The log of a job: a few lines that say what happened to it and when, kept in its row."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app.clock import shown

LINES_MAX = 100  # the newest
TEXT_MAX = 1000  # characters of one line
Line = dict[str, Any]


def with_line(log: Sequence[Line] | None, now: datetime, text: str) -> list[Line]:
    """The log with one more line; the oldest go where there are too many."""
    return [*(log or ()), {"at": shown(now), "text": text[:TEXT_MAX]}][-LINES_MAX:]
