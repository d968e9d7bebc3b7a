"""Folders of labelled images, in the two usual layouts.

classes      train/<class>/*   test/<class>/*      each class is normal in turn
inspection   train/good/*      test/good/*   test/<defect>/*      as MVTec AD is laid out
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.cli.sending import image_files
from benchmarks.errors import BenchmarkRefused

GOOD = "good"
NOT_IMAGES = frozenset({"ground_truth", "masks"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Image files by kind."""

    name: str
    layout: Literal["classes", "inspection"]
    train: Mapping[str, tuple[Path, ...]]
    test: Mapping[str, tuple[Path, ...]]

    def files(self) -> list[Path]:
        """All files, train first."""
        return [path for part in (self.train, self.test) for kind in part.values() for path in kind]


@dataclass(frozen=True, slots=True)
class Case:
    """Which kinds are normal; all others are strangers."""

    name: str
    normal: frozenset[str]


def read_layout(folder: Path, limit: int | None = None) -> Layout:
    """The layout of a folder; `limit` keeps the first so many files of each kind in each part.

    Raises:
        BenchmarkRefused: the folder has neither layout.
    """
    train, test = (_kinds(folder / part, limit) for part in ("train", "test"))
    if not train or not test:
        raise BenchmarkRefused(f"{folder} must hold train/<kind>/ and test/<kind>/ with images; got no such folders.")
    if set(train) == {GOOD}:
        if GOOD not in test or len(test) < 2:
            raise BenchmarkRefused(f"{folder}/test must hold {GOOD}/ and at least one defect; got {', '.join(test)}.")
        return Layout(folder.name, "inspection", train, test)
    if len(test) < 2:
        raise BenchmarkRefused(f"{folder}/test must hold at least two classes; got {', '.join(test)}.")
    missing = sorted(set(train) - set(test))
    if missing:
        raise BenchmarkRefused(f"{folder}/test must hold every class of train; got no {', '.join(missing)}.")
    return Layout(folder.name, "classes", train, test)


def cases(layout: Layout, *, together: int = 1, normal: Sequence[str] = ()) -> list[Case]:
    """The cases to measure: good against defects, each class in turn, or several classes as one normal.

    `together` takes that many neighbouring classes (in order of name, round the end) for each case; `normal` names
    the classes of one single case.

    Raises:
        BenchmarkRefused: a class is unknown, or no class would be left as a stranger.
    """
    if layout.layout == "inspection":
        return [Case(GOOD, frozenset({GOOD}))]
    kinds = sorted(layout.train)
    if normal:
        unknown = sorted(set(normal) - set(kinds))
        if unknown:
            raise BenchmarkRefused(f"`normal` must name classes of {layout.name}; got {', '.join(unknown)}.")
        chosen = [frozenset(normal)]
    else:
        if not 1 <= together <= len(kinds):
            raise BenchmarkRefused(f"`together` must be from 1 to {len(kinds)}; got {together}.")
        chosen = [
            frozenset(kinds[(first + step) % len(kinds)] for step in range(together)) for first in range(len(kinds))
        ]
    if any(set(layout.test) <= one for one in chosen):
        raise BenchmarkRefused(f"At least one class of {layout.name} must be strange; got all as normal.")
    return [Case("+".join(sorted(one)), one) for one in chosen]


def _kinds(folder: Path, limit: int | None) -> dict[str, tuple[Path, ...]]:
    if not folder.is_dir():
        return {}
    kinds = sorted(entry for entry in folder.iterdir() if entry.is_dir() and entry.name not in NOT_IMAGES)
    found = {kind.name: tuple(image_files(kind)[:limit]) for kind in kinds}
    return {name: files for name, files in found.items() if files}
