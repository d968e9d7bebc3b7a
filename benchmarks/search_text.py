"""The report of the search benchmark in Markdown."""

from typing import Any

from benchmarks.report import table


def search_text(found: dict[str, Any]) -> list[str]:
    """The lines of the report, of as many parts as were measured so far."""
    where, k = found["setting"], found["k"]
    peers = ", ".join(f"{name} {number or 'not installed'}" for name, number in found["peers"].items())
    lines = [
        "# Search speed",
        "",
        f"`{where['command']}`",
        "",
        f"Commit {where['commit']}, {where['date']}; {where['machine']['processor']}, "
        f"{where['machine']['cores']} cores, {found['threads']} threads; {peers}. k = {k}, seed {found['seed']}, "
        f"medians of {found['repetitions']} interleaved repetitions.",
        "",
    ]
    if "exact" in found:
        lines += _exact(found)
    size = f"{found['rows']} rows of width {found['width']}, {found.get('data')}"
    if "approximate" in found:
        lines += [f"## Approximate: {size}", "", *_approximate(found["approximate"], k)]
    if "strange" in found:
        head = ["structure", "queries", f"recall@{k}", "second distance, times the true one: mean", "largest"]
        rows = [
            [
                one["structure"],
                one["queries"],
                f"{one['recall']:.4f}",
                *(f"{one['second_distance'][which]:.4f}" for which in ("mean", "largest")),
            ]
            for one in found["strange"]
        ]
        lines += [f"## Strange queries: {size}", "", *table(head, rows)]
    if "filtered" in found:
        head = ["structure", "filter", "allowed", f"recall@{k}", "least returned", "ms", "exact ms"]
        rows = [
            [
                one["structure"],
                one["filter"],
                f"{100 * one['share']:g} %",
                f"{one['recall']:.4f}",
                str(one["least_returned"]),
                f"{one['ms']:.2f}",
                f"{one['exact_ms']:.2f}",
            ]
            for one in found["filtered"]
        ]
        lines += [f"## Filtered: {size}", "", "One query at a time.", "", *table(head, rows)]
    if "restart" in found:
        head = ["structure", "file MB", "save s", "restore s", "first search s", "anonymous / raw", "same answers"]
        rows = [
            [
                one["structure"],
                f"{one['file_bytes'] / 1e6:.0f}",
                f"{one['save_s']:.1f}",
                f"{one['restore_s']:.1f}",
                f"{one['first_search_s']:.2f}",
                f"{one['anonymous_of_raw']:.2f}",
                "yes" if one["same_answers"] else "no",
            ]
            for one in found["restart"]
        ]
        lines += [
            f"## Restart: {size}",
            "",
            "Restore: every byte checked and copied into a scratch file, by a fresh process. Raw: the float32 rows.",
            "",
            *table(head, rows),
        ]
    return lines


def _exact(found: dict[str, Any]) -> list[str]:
    names = ("faiss", "faiss tuned", "flat", "scan")
    head = [
        "data",
        "batch",
        *names,
        "scan times faster",
        "bar",
        "processor",
        "times tuned",
        "scan right",
        "FAISS right",
    ]
    rows = [
        [
            one["data"],
            str(one["batch"]),
            *(f"{one['ms'][name]:.2f}" for name in names),
            f"{one['times_faiss']['scan']:.1f}",
            f"{one['bar']:.0f}",
            f"{one['times_faiss_processor']['scan']:.1f}",
            f"{one['times_faiss']['scan'] / one['times_faiss']['faiss tuned']:.1f}",
            f"{one['right']['scan']:.3f}",
            f"{one['right']['faiss']:.3f}",
        ]
        for one in found["exact"]
    ]
    first = found["exact"][0]
    memory = first["bytes_per_vector"]
    return [
        f"## Exact: {found['exact_rows']} rows",
        "",
        "Milliseconds a batch; times as fast as `IndexFlatL2` as shipped, which multiplies matrices from 128,000 "
        "numbers on (250 queries at width 512). Tuned: the same from four queries on. Processor: the same ratio "
        "in processor time of all threads, which other programs on the machine disturb less. Right: share of "
        "queries whose ids are the nearest by float64 differences, ties within 1e-6.",
        "",
        *table(head, rows),
        f"Bytes a vector: flat {memory['flat']:.0f}, scan {memory['scan']:.0f}; coding all rows took "
        f"{first['build_s']:.1f} s.",
        "",
    ]


def _approximate(systems: list[dict[str, Any]], k: int) -> list[str]:
    head = [
        "system",
        f"recall@{k}",
        "queries/s alone",
        "queries/s in one batch",
        "processor ms alone",
        "bytes/vector",
        "build s",
        "ours beside it: alone",
        "in one batch",
    ]
    rows = []
    for one in systems:
        if one.get("refused"):
            rows.append([one["system"], "not reached", *[""] * 4, f"{one['build_s']:.1f}", "", ""])
            continue
        beside = one.get("ours_beside_it")
        rows.append(
            [
                one["system"],
                f"{one['recall']:.4f}",
                f"{one['alone_per_s']:.0f}",
                f"{one['batch_per_s']:.0f}",
                f"{one['alone_processor_ms']:.2f}",
                f"{one['bytes_per_vector']:.0f}",
                f"{one['build_s']:.1f}",
                *(("", "") if beside is None else (f"{beside['alone_per_s']:.0f}", f"{beside['batch_per_s']:.0f}")),
            ]
        )
    return table(head, rows)
