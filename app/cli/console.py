"""What a command writes where: results to standard output, everything else to standard error."""

import json
import sys
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def results() -> Console:
    """The console of results."""
    return Console(file=sys.stdout)


def messages() -> Console:
    """The console of messages, progress and errors."""
    return Console(file=sys.stderr)


def short_number(value: float) -> str:
    """A score or distance with three digits that mean something: some networks put all images close together.

    >>> [short_number(value) for value in (6e-8, 0.0000126449, 0.14374, 12.5, 1234.56)]
    ['0', '0.0000126', '0.144', '12.5', '1235']
    """
    if abs(value) < 5e-7:  # what rounding in float32 leaves of nothing
        return "0"
    return f"{value:.0f}" if abs(value) >= 1000 else format(Decimal(f"{value:.3g}"), "f")


def print_json(value: Any) -> None:
    """One JSON document on standard output, for programs; answers as the service gave them."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_unset=True)
    raise TypeError(f"{type(value).__name__} is not for JSON")


class RateColumn(ProgressColumn):
    """Images a second, over the last moments."""

    def render(self, task: Task) -> Text:
        """The column's text."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} images/s", style="progress.data.speed")


def images_progress() -> Progress:
    """A bar with count, rate and remaining time, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        console=messages(),
    )


def steps_progress() -> Progress:
    """A bar of steps and remaining time, on standard error."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=messages()
    )
