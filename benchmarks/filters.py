"""What filters on metadata cost: the first use of a key, a filter at several selectivities, and memory an image."""

import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from app.entries import EntryTable
from app.entry_columns import EntryColumns, ImageEntry
from app.search.filters import Filter, parse_filter
from benchmarks.report import table

ROWS = 100_000
PAGE_ROWS = 4096  # images put at once, as a collection is read
SHARES = (0.001, 0.01, 0.1, 0.5)
REPEATS = 5
OBJECTS_ROWS = 20_000  # most images made into Python objects to see what they take
KEYS = {"line": "few values", "camera.id": "few values in an object", "rank": "a number of its own", "name": "a text"}


def run(rows: int = ROWS, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Times in milliseconds and bytes an image, on made-up documents of five fields.

    A time is the least of five, but for the first use of a key, which happens once. What a filter finds is compared
    with looking at every image of a sample.
    """
    say("Making images")
    entries = EntryTable()
    began = time.perf_counter()
    for start in range(0, rows, PAGE_ROWS):
        entries.put(_page(range(start, min(start + PAGE_ROWS, rows)), rows))
    seconds_made = time.perf_counter() - began
    table_bytes = entries.memory_bytes
    exported, arrays = _timed(entries.export_arrays)
    restored, entries = _timed(lambda: EntryTable.restore(arrays))
    first: dict[str, dict[str, float]] = {}
    for key in KEYS:
        say(f"First use of {key}")
        before = entries.memory_bytes
        milliseconds, _ = _timed(partial(entries.prepare, {key}))
        first[key] = {"first_ms": milliseconds, "bytes": (entries.memory_bytes - before) / rows}
    say("Filtering")
    return {
        "benchmark": "filters",
        "rows": rows,
        "making_s": seconds_made,
        "export_ms": exported,
        "restore_ms": restored,
        "first_use": first,
        "filters": {str(share): _range(entries, rows, share) for share in SHARES},
        "two_equalities_ms": _least(entries, parse_filter({"line": 3, "camera.id": "cam-5"})),
        "table_bytes": table_bytes / rows,
        "objects_bytes": _objects_bytes(min(rows, OBJECTS_ROWS)),
    }


def filters_text(found: dict[str, Any]) -> list[str]:
    """The body of a report."""
    lines = [
        f"{found['rows']:,} images. Facts: {found['table_bytes']:.0f} bytes an image as columns, "
        f"{found['objects_bytes']:.0f} as a dictionary of Python objects. All of them written down in "
        f"{found['export_ms']:.1f} ms and taken up again in {found['restore_ms']:.1f} ms.",
        "",
    ]
    first = found["first_use"].items()
    lines += table(
        ["key", "kind", "first use, ms", "bytes an image"],
        [[key, KEYS[key], f"{one['first_ms']:.0f}", f"{one['bytes']:.1f}"] for key, one in first],
    )
    shares = [
        [f"{100 * float(share):g} %", f"{one['found']:,}", f"{one['ms']:.2f}"]
        for share, one in found["filters"].items()
    ]
    return [
        *lines,
        *table(["range that fits", "images", "ms"], shares),
        f"Two equalities: {found['two_equalities_ms']:.2f} ms.",
    ]


def _range(entries: EntryTable, rows: int, share: float) -> dict[str, float]:
    chosen = parse_filter({"must": [{"key": "rank", "range": {"lt": share * rows}}]})
    found = chosen.fitting(entries)
    for pk in range(0, rows, max(1, rows // 200)):
        entry = entries[pk]
        if chosen.accepts({}, entry.metadata) != (pk in found):
            raise AssertionError(f"Image {pk} is where it should not be, or is missing.")
    return {"found": int(found.size), "ms": _least(entries, chosen)}


def _least(entries: EntryTable, chosen: Filter) -> float:
    return min(_timed(lambda: chosen.fitting(entries))[0] for _ in range(REPEATS))


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = work()
    return 1e3 * (time.perf_counter() - began), made


def _columns(numbers: Sequence[int], rows: int) -> list[list[Any]]:
    ids = [f"part-{number:08d}" for number in numbers]
    documents = [
        {
            "line": number % 7,
            "camera": {"id": f"cam-{number % 13}", "mm": 35.5},
            "taken": f"2026-03-{1 + number % 28:02d}T10:00:00",
            "name": f"img_{number:08d}.png",
            "rank": number * 7919 % rows,
        }
        for number in numbers
    ]
    return [
        list(numbers),
        ids,
        [hashlib.sha256(one.encode()).hexdigest() for one in ids],
        ["normal"] * len(ids),
        [None] * len(ids),
        [f"g{number // 10}" for number in numbers],
        [json.dumps(one) for one in documents],
    ]


def _page(numbers: Sequence[int], rows: int) -> EntryColumns:
    return EntryColumns.of(*_columns(numbers, rows))


def _objects_bytes(rows: int) -> float:
    """What an image takes as an object in a dictionary by pk, its id in another, and its document decoded."""
    columns = _columns(range(rows), rows)
    tracemalloc.start()
    try:
        entries = {}
        pk_of = {}
        for pk, image_id, sha256, role, label, group, text in zip(*columns, strict=True):
            # Strings that came from a database are the entry's own.
            own = (image_id[:1] + image_id[1:], sha256[:1] + sha256[1:])
            document: Any = json.loads(text)
            entries[pk] = ImageEntry(pk, *own, role, label, group, document)
            pk_of[own[0]] = pk
        return tracemalloc.get_traced_memory()[0] / rows
    finally:
        tracemalloc.stop()
