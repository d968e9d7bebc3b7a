"""Which structure answers soonest for how many rows and how much memory."""

from collections.abc import Collection
from typing import Literal, get_args

StructureName = Literal["flat", "scan", "hnsw", "ivf"]
"""flat: the rows alone; scan: 8-bit codes, still exact; hnsw: a graph; ivf: lists around centres."""

STRUCTURES: tuple[StructureName, ...] = get_args(StructureName)
EXACT: tuple[StructureName, ...] = ("flat", "scan")

CODED_ROWS = 10_000  # below, codes gain less than they cost to keep
EXACT_NUMBERS = 200_000 * 512  # one query over so many takes 8 ms on two cores (AVX2), 64 queries 60 ms

# What is there already is kept until so much less of its rows is left, or while it fits; what is not must fit with room
# to spare. Otherwise a collection at a limit would be built over and over.
KEPT_SHARE = 0.5
SPARE_SHARE = 0.1


def memory_needed(structure: StructureName, rows: int, width: int) -> int:
    """Bytes for rows, ids and structure."""
    of_rows = rows * (4 * width + 32)
    if structure == "flat":
        return of_rows
    if structure == "scan":
        return of_rows + rows * (width + 33)
    if structure == "hnsw":
        return of_rows + rows * (width + 160)
    return of_rows + rows * (width // 8 + 24) + int(4 * rows**0.5) * (width + 72) * 4


def choose_structure(
    rows: int,
    width: int,
    memory_bytes: int | None = None,
    *,
    current: StructureName = "flat",
    without: Collection[StructureName] = (),
) -> StructureName:
    """The structure that answers soonest for so many rows within this memory, the float32 rows included.

    Exact as long as that is quick. Beyond, a graph where the memory allows it, else lists, else codes; where nothing
    fits, `flat`, which needs the least. None for the memory: as much as it takes.
    """
    kept = {one: KEPT_SHARE if one == current else 1.0 for one in ("scan", "hnsw", "ivf")}
    if rows < CODED_ROWS * kept["scan"]:
        return "flat"
    large = rows * width > EXACT_NUMBERS * min(kept["hnsw"], kept["ivf"])
    wanted: tuple[StructureName, ...] = ("hnsw", "ivf", "scan") if large else ("scan",)
    for one in wanted:
        room = 1.0 if one == current else 1.0 + SPARE_SHARE
        fits = memory_bytes is None or memory_needed(one, rows, width) * room <= memory_bytes
        if fits and one not in without:
            return one
    return "flat"
