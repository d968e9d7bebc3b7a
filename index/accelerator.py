"""What an index may keep beside its rows to answer sooner, and the rows as such a part sees them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.contract import Metric, Neighbours
from index.structures import StructureName

Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all); what it raises ends the work."""


class Rows(Protocol):
    """The rows of an index, numbered by place; a removal moves the last rows into the places it leaves."""

    @property
    def metric(self) -> Metric: ...

    @property
    def width(self) -> int: ...

    @property
    def rows_by_place(self) -> NDArray[np.float32]: ...

    @property
    def ids_by_place(self) -> NDArray[np.int64]: ...

    @property
    def births_by_place(self) -> NDArray[np.int64]:
        """A number for each row that no other row ever has; a row is written before its number is."""
        ...

    def __len__(self) -> int: ...

    def nearest_at(self, asked: NDArray[np.float32], k: int, places: NDArray[np.int64] | None) -> Neighbours:
        """The exact answer by the rows alone."""
        ...

    def measured(self, queries: NDArray[np.float32], listed: NDArray[np.int64]) -> NDArray[np.float32]:
        """Distance of each query to the rows at its listed places: (Q, n), (Q, n)."""
        ...


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of the true neighbours that were found for rows held out of the structure."""

    mean: float
    lower: float  # less one standard error over the queries: this is held against the bar


class Accelerator(Protocol):
    """A part beside the rows. Searches run at the same time as each other, never at the same time as a change."""

    @property
    def structure(self) -> StructureName: ...

    @property
    def exact(self) -> bool:
        """Whether its answers are those of the rows alone, to the bit."""
        ...

    @property
    def recall(self) -> Recall: ...

    @property
    def dead(self) -> int:
        """Entries whose row is gone."""
        ...

    @property
    def memory_bytes(self) -> int: ...

    def search(self, rows: Rows, asked: NDArray[np.float32], k: int, places: NDArray[np.int64] | None) -> Neighbours:
        """The K nearest, among the rows at these places, ascending, where they are given."""
        ...

    def settle(self, rows: Rows) -> None:
        """Called once before use: what changed since the rows were read is made good."""
        ...

    def added(self, rows: Rows, first: int) -> None:
        """Called after rows were added from this place on."""
        ...

    def removed(self, rows: Rows, gone: NDArray[np.int64], moved: NDArray[np.int64], holes: NDArray[np.int64]) -> None:
        """Called after a removal: the rows at `gone` went, then each of those at `moved` to its place in `holes`."""
        ...

    def due(self, rows: Rows) -> str | None:
        """Why it should be built again, None where it need not."""
        ...

    def export(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays, perhaps views, and facts from which `restore` of its class makes it again."""
        ...


Stored = Mapping[str, Any]
"""Arrays of a file by name; `index.snapshot.StoredArray`."""
