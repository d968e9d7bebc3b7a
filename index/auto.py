"""One index for a collection of any size: rows, and beside them whichever structure answers soonest."""

import logging
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from index import approximate
from index.accelerator import Accelerator, Progress
from index.approximate import Listed, build_listed
from index.codes import Codes, build_codes
from index.columns import Column
from index.contract import Metric, Neighbours
from index.distances import as_count
from index.errors import SnapshotDamaged
from index.faiss_flat import FlatIndex
from index.faiss_hnsw import Graph, trained_graph
from index.faiss_ivf import Lists, trained_lists
from index.snapshot import StoredArray
from index.structures import StructureName, choose_structure

REFUSED_UNTIL = 2.0  # times the rows at which a structure could not be built: then it is tried again

log = logging.getLogger("oddity.index")


@dataclass(frozen=True, slots=True)
class Plan:
    """What should be built now, and why."""

    structure: StructureName
    reason: str


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` made for a plan, to be adopted."""

    plan: Plan
    part: Accelerator | None  # None for `flat`


class AutoIndex(FlatIndex):
    """Rows under ids, searched through the structure that suits their number; the object stays the same one.

    `upkeep_due` says what should be built, `build` makes it beside searches and changes, `adopt` is a change like `add`
    and puts it in use. Without any of these the index is a `FlatIndex`: exact, at the price of comparing every row.

    * flat and scan (8-bit codes) are exact, to the bit;
    * hnsw (graph) and ivf (lists) list candidates, which are measured, so distances are right and a neighbour may be
      missed; they are adopted only when they reached `recall` at ten neighbours on rows held out of them. Filters that
      allow few rows, and answers that would hold fewer than K, are exact.

    Memory: that of `FlatIndex`, 8 bytes a row, and the structure's.
    """

    recall: float = approximate.RECALL

    def __init__(self, *, width: int, metric: Metric) -> None:
        super().__init__(width=width, metric=metric)
        self._births = Column(np.empty(0, dtype=np.int64))  # which addition each row was
        self._next_birth = 0
        self._part: Accelerator | None = None
        self._refused: dict[StructureName, int] = {}  # at how many rows it could not be built

    @property
    def structure(self) -> StructureName:
        """What answers searches now."""
        return "flat" if self._part is None else self._part.structure

    @property
    def births_by_place(self) -> NDArray[np.int64]:
        """A number for the row at each place that no other row ever has; a view, valid until the next change."""
        return self._births.values

    @property
    def memory_bytes(self) -> int:
        """Bytes of anonymous memory reserved for rows, ids and structure."""
        return super().memory_bytes + (0 if self._part is None else self._part.memory_bytes)

    def describe(self) -> dict[str, Any]:
        """What answers searches, how well, and what it takes; plain values.

        `recall` is the share of the ten nearest that was found for held-out rows when the structure was built,
        `recall_lower` that less one standard error; both are 1 for an exact one. `dead` counts entries of removed rows.
        """
        part = self._part
        rows = [self._searched] if self._given is None else [self._searched, self._given]
        ids = [column for column in self._columns() if column not in rows]
        return {
            "structure": self.structure,
            "exact": part is None or part.exact,
            "recall": 1.0 if part is None else part.recall.mean,
            "recall_lower": 1.0 if part is None else part.recall.lower,
            "alive": len(self),
            "dead": 0 if part is None else part.dead,
            "bytes": {
                "rows": sum(column.reserved_bytes + column.mapped_bytes for column in rows),
                "ids": sum(column.reserved_bytes + column.mapped_bytes for column in ids),
                "structure": 0 if part is None else part.memory_bytes,
                "anonymous": self.memory_bytes,
                "mapped": self.mapped_bytes,
            },
        }

    def upkeep_due(self, memory_bytes: int | None = None, *, compact: bool = False) -> Plan | None:
        """What should be built now, None where nothing should; never changes anything and takes no time.

        `memory_bytes`: what rows and structure may take together; None for as much as they want.
        `compact`: a single dead entry is reason enough to build again.
        """
        refused = {one for one, rows in self._refused.items() if len(self) < REFUSED_UNTIL * rows}
        wanted = self._wanted(memory_bytes, refused)
        part = self._part
        if wanted != self.structure:
            return Plan(wanted, f"{len(self)} rows of width {self.width}")
        if part is None:
            return None
        why = part.due(self)
        if why is None and compact and part.dead:
            why = "dead entries"
        return None if why is None else Plan(wanted, why)

    def build(self, plan: Plan, *, seed: int, threads: int = 1, progress: Progress | None = None) -> Built | None:
        """What the plan asks for, to be adopted; None where the rows do not allow it.

        Runs beside searches, additions and removals. Where it gives None the same plan is not proposed again until
        the rows have doubled.

        `progress` is called with rows done and rows in all; what it raises ends the work and comes out here.

        Repeats: the same rows, seed and one thread give the same structure.
        """
        n_rows, tell = len(self), progress or _ignore
        part = self._built(plan.structure, seed, threads, tell)
        if part is None and plan.structure != "flat":
            log.info("structure %s refused at %d rows", plan.structure, n_rows)
            self._refused[plan.structure] = n_rows
            return None
        return Built(plan, part)

    def adopt(self, built: Built | None) -> bool:
        """Whether searches may answer differently from now on, so that what rests on their answers must be redone.

        A change, like `add`. Going from one exact structure to another changes no answer.
        """
        if built is None:
            return False
        approximate_before = self._part is not None and not self._part.exact
        part = built.part if len(self) else None
        if part is not None:
            part.settle(self)
        self._part = part
        if part is not None:
            self._refused.pop(part.structure, None)
        return approximate_before or (part is not None and not part.exact)

    def compact(self, *, seed: int = 0, threads: int = 1) -> dict[str, int]:
        """Entries alive, dead ones dropped and bytes before and after; unused room is given back.

        A change, like `add`, and as long as a build where there are dead entries: adopt what
        `upkeep_due(compact=True)` asks for first to keep it short.
        """
        part = self._part
        dead = 0 if part is None else part.dead
        before = self.memory_bytes + self.mapped_bytes
        if dead:
            self.adopt(self.build(Plan(self.structure, "dead entries"), seed=seed, threads=threads))
        for column in self._columns():
            column.trim()
        still = 0 if self._part is None else self._part.dead
        return {
            "alive": len(self),
            "dead_removed": dead - still,
            "bytes_before": before,
            "bytes_after": self.memory_bytes + self.mapped_bytes,
        }

    def add(self, ids: ArrayLike, vectors: ArrayLike) -> None:
        """Store one row per id; either all or, on an error, none. See `VectorIndex.add`."""
        before = len(self)
        super().add(ids, vectors)
        self._be_born(before)
        if self._part is not None and len(self) > before:
            self._part.added(self, before)

    def search(
        self, queries: ArrayLike, k: int, *, allowed: ArrayLike | None = None, exact: bool = False
    ) -> Neighbours:
        """The K nearest rows of each query. See `VectorIndex.search`."""
        k = as_count(k, what="k")
        asked = self._query_rows(queries)
        places = self._allowed_places(allowed)
        part = self._part
        if part is None or not len(asked) or (exact and not part.exact):
            return self.nearest_at(asked, k, places)
        return part.search(self, asked, k, places)

    def export_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Rows, ids and the structure. See `VectorIndex.export_arrays`."""
        arrays, facts = super().export_arrays()
        facts["refused"] = dict(self._refused)
        if self._part is None:
            return arrays, {**facts, "structure": "flat"}
        of_part, its_facts = self._part.export()
        arrays.update({f"{self.structure}/{name}": array for name, array in of_part.items()})
        return arrays, {**facts, "structure": self.structure, self.structure: its_facts}

    def restore(self, arrays: Mapping[str, StoredArray], facts: Mapping[str, Any]) -> None:
        """Fills this index, structure included. See `VectorIndex.restore`."""
        super().restore(arrays, facts)
        self._be_born(0)
        self._refused = dict(facts.get("refused", {}))
        name = facts.get("structure", "flat")
        if name == "flat" or not len(self):
            return
        of_part = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
        with ExitStack() as undo:
            undo.callback(self._empty)
            self._part = self._restored(name, of_part, facts[name])
            undo.pop_all()

    def _built(self, structure: StructureName, seed: int, threads: int, progress: Progress) -> Accelerator | None:
        if structure == "scan":
            return build_codes(self, self._part if isinstance(self._part, Codes) else None, progress)
        if structure == "flat":
            return None
        trained = trained_graph if structure == "hnsw" else trained_lists
        return build_listed(self, trained, self.recall, seed=seed, threads=threads, progress=progress)

    def _restored(self, name: str, arrays: Mapping[str, StoredArray], facts: Mapping[str, Any]) -> Accelerator | None:
        if name == "scan":
            return Codes.restore(self, arrays, facts)
        if name == "hnsw":
            return Listed.restore(Graph.restore(arrays), arrays, facts)
        if name == "ivf":
            return Listed.restore(Lists.restore(arrays, self.width), arrays, facts)
        raise SnapshotDamaged(f"`structure` must be a known one; got {name!r}.")

    def _wanted(self, memory_bytes: int | None, refused: Collection[StructureName]) -> StructureName:
        return choose_structure(len(self), self.width, memory_bytes, current=self.structure, without=refused)

    def _be_born(self, first: int) -> None:
        new = len(self) - first
        self._births.append(np.arange(self._next_birth, self._next_birth + new))
        self._next_birth += new

    def _columns(self) -> list[Column]:
        return [*super()._columns(), self._births]  # last: a row is there before its birth says so

    def _removed(self, gone: NDArray[np.int64], moved: NDArray[np.int64], holes: NDArray[np.int64]) -> None:
        if not len(self):
            self._part = None
        elif self._part is not None:
            self._part.removed(self, gone, moved, holes)


def _ignore(done: int, total: int) -> None:
    """Progress that nobody asked for."""
