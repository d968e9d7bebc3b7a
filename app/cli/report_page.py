"""A report as one HTML page: styles, pictures and plots inside, nothing outside, no script."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape

from oddity_client import Calibration, ImageScore
from PIL import Image, ImageOps

from app.cli.console import short_number
from app.cli.promise import shortfalls

SIDE = 320  # pixels of the longer side of a picture
BINS = 40
WIDTH, HEIGHT, FOOT = 720, 180, 24  # of the plot
LISTED = 2000

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --dim: #59636e; --paper: #fff; --rule: #d1d9e0; --odd: #b42318;
        --fine: #2f6fb0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --dim: #9aa4b0; --paper: #14171b; --rule: #333a43;
        --odd: #ff8a7a; --fine: #7db7f0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem;
       margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.2rem; margin-top: 2rem }
p.dim, figcaption, .dim { color: var(--dim) }
article { border-top: 1px solid var(--rule); padding: 1rem 0; display: flex; flex-wrap: wrap; gap: 1rem }
article h3 { flex: 1 0 100%; margin: 0; font-size: 1rem; overflow-wrap: anywhere }
figure { margin: 0; max-width: 10rem } figure.large { max-width: 20rem }
figure img { display: block; max-width: 100%; height: auto } figcaption { font-size: .85rem; overflow-wrap: anywhere }
.under { position: relative } .under img + img { position: absolute }
svg { width: 100%; height: auto } svg text { fill: var(--dim); font: 12px system-ui, sans-serif }
.bar { fill: var(--fine) } .bar.odd { fill: var(--odd) } .border { stroke: var(--ink); stroke-dasharray: 4 3 }
.axis { stroke: var(--rule) } strong.odd { color: var(--odd) }
table { border-collapse: collapse; width: 100%; font-size: .9rem } th, td { text-align: left; padding: .15rem .5rem;
        border-bottom: 1px solid var(--rule); overflow-wrap: anywhere }
td.number { text-align: right; font-variant-numeric: tabular-nums }
"""


@dataclass(frozen=True, slots=True)
class Near:
    """A normal image beside a strange one."""

    name: str
    distance: float
    picture: str


@dataclass(frozen=True, slots=True)
class Case:
    """An image with all that is shown of it."""

    name: str
    result: ImageScore
    picture: str
    overlay: tuple[str, dict[str, float]] | None  # data URL, and the part of the image that it covers
    near: Sequence[Near]


@dataclass(frozen=True, slots=True)
class Report:
    """What a page is made of; scores are strangest first."""

    collection: str
    folder: str
    scorer: str
    made_at: datetime
    calibration: Calibration
    scores: Sequence[tuple[str, ImageScore]]
    cases: Sequence[Case]
    problems: Sequence[tuple[str, str]]


def picture(content: bytes) -> str:
    """A small upright copy of an image, as a data URL."""
    with Image.open(io.BytesIO(content)) as image:
        small = ImageOps.exif_transpose(image).convert("RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def page(report: Report) -> str:
    """The whole page."""
    title = f"{report.folder} against {report.collection}"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">Scorer {escape(report.scorer)}, {report.made_at:%Y-%m-%d %H:%M} UTC, by Oddity.</p>',
        _summary(report),
        "<h2>How strange the images are</h2>",
        histogram([result.score for _, result in report.scores], report.calibration.threshold),
        f"<h2>The strangest {len(report.cases)}</h2>" if report.cases else "",
        *map(_article, report.cases),
        _list(report),
        _problems(report.problems),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def histogram(scores: Sequence[float], threshold: float | None) -> str:
    """The scores in bins as an SVG, those beyond the threshold in another colour, with the threshold as a line."""
    low, high = min(scores), max(scores)
    if threshold is not None:
        low, high = min(low, threshold), max(high, threshold)
    span = (high - low) or 1.0
    counts = [0] * BINS
    for score in scores:
        counts[min(BINS - 1, math.floor((score - low) / span * BINS))] += 1
    step, top = WIDTH / BINS, max(counts)
    bars = []
    for place, count in enumerate(counts):
        begins, ends = low + place * span / BINS, low + (place + 1) * span / BINS
        tall = count / top * HEIGHT
        kind = "bar odd" if threshold is not None and begins >= threshold else "bar"
        bars.append(
            f'<rect class="{kind}" x="{place * step + 0.5:.1f}" y="{HEIGHT - tall:.1f}" width="{step - 1:.1f}" '
            f'height="{tall:.1f}"><title>{begins:.4g} to {ends:.4g}: {count}</title></rect>'
        )
    line = ""
    if threshold is not None:
        at = (threshold - low) / span * WIDTH
        anchor = "end" if at > WIDTH / 2 else "start"
        line = (
            f'<line class="border" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{HEIGHT}"/>'
            f'<text x="{at + (-4 if anchor == "end" else 4):.1f}" y="12" text-anchor="{anchor}">'
            f"threshold {threshold:.4g}</text>"
        )
    told = "" if threshold is None else f", threshold {threshold:.4g}"
    label = f"Histogram of {len(scores)} scores from {min(scores):.4g} to {max(scores):.4g}{told}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + FOOT}" role="img" aria-label="{label}">{"".join(bars)}{line}'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
        f'<text x="0" y="{HEIGHT + 16}">{low:.4g}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 16}" text-anchor="end">{high:.4g}</text></svg>'
    )


def _summary(report: Report) -> str:
    images, alarms = len(report.scores), sum(bool(result.anomalous) for _, result in report.scores)
    calibration = report.calibration
    if calibration.threshold is None:
        return f"<p>{images} images were scored. {escape(shortfalls(calibration)[0])}</p>"
    rate = calibration.false_alarm_rate
    return (
        f"<p><strong>{alarms} of {images} images are anomalous</strong> at a false-alarm rate of {rate:.2%}: if all "
        f"were normal, about {images * rate:.1f} would be called anomalous. Calibrated on {calibration.n} normal "
        "images.</p>"
    ) + "".join(f"<p>{escape(one)}</p>" for one in shortfalls(calibration))


def _article(case: Case) -> str:
    result = case.result
    image = f'<img src="{case.picture}" alt="{escape(case.name)}">'
    if case.overlay is not None:
        address, region = case.overlay
        place = (
            f"left:{region['left']:.4%};top:{region['top']:.4%};width:{region['right'] - region['left']:.4%};"
            f"height:{region['bottom'] - region['top']:.4%}"
        )
        image += f'<img src="{address}" alt="heat map" style="{place}">'
    figures = [f'<figure class="large"><div class="under">{image}</div></figure>']
    figures += [
        f'<figure><img src="{one.picture}" alt="{escape(one.name)}">'
        f"<figcaption>{short_number(one.distance)} away: {escape(one.name)}</figcaption></figure>"
        for one in case.near
    ]
    return f"<article><h3>{escape(case.name)}: {_verdict(result)}</h3>{''.join(figures)}</article>"


def _verdict(result: ImageScore) -> str:
    told = {True: '<strong class="odd">anomalous</strong>', False: "belongs", None: "no verdict"}[result.anomalous]
    p_value = "" if result.p_value is None else f", p-value {result.p_value:.4f}"
    return f"{told}, score {short_number(result.score)}{p_value}"


def _list(report: Report) -> str:
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{short_number(result.score)}</td><td class="number">'
        f"{'' if result.p_value is None else format(result.p_value, '.4f')}</td>"
        f"<td>{ {True: 'anomalous', False: 'belongs', None: ''}[result.anomalous] }</td></tr>"
        for name, result in report.scores[:LISTED]
    )
    more = len(report.scores) - LISTED
    rest = f'<p class="dim">And {more} more, less strange; `oddity score` lists them all.</p>' if more > 0 else ""
    head = "<tr><th>file</th><th>score</th><th>p-value</th><th>verdict</th></tr>"
    return f"<h2>Every image, strangest first</h2><table>{head}{rows}</table>{rest}"


def _problems(problems: Sequence[tuple[str, str]]) -> str:
    if not problems:
        return ""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(detail)}</td></tr>" for name, detail in problems)
    return f"<h2>Not scored</h2><table>{rows}</table>"
