"""`oddity bench heat-maps`: how well methods find the defective image, and where in it the defect lies.

Fitted, calibrated and scored by the code that the service uses. Maps and masks are compared on the image as a person
sees it, reduced to at most so many pixels a side; a pixel is defective where any part of it is.
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from app.embedders import Embedders
from app.shelf import image_key
from benchmarks.embedding import Advance, Pool, embed_files
from benchmarks.errors import BenchmarkRefused
from benchmarks.masked_folders import MaskedFolder, MaskedImage, read_masked, split
from benchmarks.methods import PoolImages
from benchmarks.metrics import average_precision, roc_auc
from benchmarks.pixel_metrics import FPR_MAX, pixel_roc_auc, region_overlap
from benchmarks.protocols import live_bank
from benchmarks.report import percent, table
from index import Metric
from models.backbones.embedder import EmbeddingSpec
from models.catalog import Catalogue, installed
from models.contract import Give, Need, Reference
from models.errors import InputError, StateError
from models.fitting import Fitted, calibration_rows, fit, held_out, scores_of
from models.heat_maps import RATE, HeatScale, overlay_png
from models.inputs import StagesAsked
from models.methods.dn2 import DN2Params

HELD = frozenset((Need.VECTORS, Need.MAPS, Need.PIXELS))
DRAWN = 4  # defective images in a picture
CELL, GAP = 240, 6  # pixels of an image's longer side in it, and between two
FIGURES = ("roc_auc", "average_precision", "pixel_roc_auc", "region_overlap", "coloured")
Rows = NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HeatMapsPlan:
    """What to measure."""

    methods: tuple[str, ...] = ()  # none: all installed ones that give heat maps
    seeds: int = 3
    share: float = 0.7  # of the flawless images, for the bank, where the folder does not say
    side: int = 256  # pixels of the longer side on which maps and masks are compared
    quick: bool = False


@dataclass(frozen=True, slots=True)
class _Split:
    """One seed: what is learnt, what is tested, by rows of the pool."""

    fit: Rows
    calibration: Rows
    keys: NDArray[np.uint64]
    groups: list[str | None]
    test: list[MaskedImage]
    rows: Rows  # of the test images
    is_defective: NDArray[np.bool_]


def measure_heat_maps(
    folder: Path,
    embedders: Embedders,
    spec: EmbeddingSpec,
    plan: HeatMapsPlan,
    cache: Path,
    pictures: Path,
    *,
    advance: Advance | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Every figure of the plan; one picture for each method is written to `pictures`.

    Raises:
        BenchmarkRefused: the folder is not laid out as needed, or a method is unknown or gives no heat map.
    """
    catalogue = installed()
    names = _chosen(catalogue, plan)
    embedder = embedders.get(spec).embedder
    data = read_masked(folder, embedders, embedder)
    files = [one.file for one in (*data.defective, *data.flawless)]
    pool, embedder = embed_files(files, embedders, spec, cache, advance)
    measured: list[dict[str, Any]] = []
    with PoolImages(pool, embedders, embedder) as images:
        for seed in range(plan.seeds):
            case = _split(data, pool, plan.share, seed)
            measured.append({"method": None, "seed": seed, **_plain(pool, case)})
            for name in names:
                say(f"{data.name}, seed {seed}: {name}")
                picture = pictures / f"heat_maps-{data.name}-{name}.webp" if seed == 0 else None
                measured.append(
                    {"method": name, "seed": seed, **_measured(catalogue, name, images, case, plan, seed, picture)}
                )
    identity = {**embedder.identity.describe(), "weights": embedder.identity.weights.partition(":")[0]}
    return {
        "benchmark": "heat_maps",
        "weights": identity["weights"],
        "embedding": identity,
        "plan": asdict(plan),
        "fpr_max": FPR_MAX,
        "data": {
            "folder": data.name,
            "defective": len(data.defective),
            "flawless": len(data.flawless),
            "duplicates": data.duplicates,
            "refused": data.refused,
        },
        "measured": measured,
        "summary": [_summary(measured, name) for name in (None, *names)],
    }


def heat_maps_text(found: dict[str, Any]) -> list[str]:
    """The body of a report."""
    data, plan = found["data"], found["plan"]
    lines = [
        f"Data: {data['folder']}, {data['defective']} defective and {data['flawless']} flawless images. First "
        f"{data['duplicates']} with the pixels of another one were left out; {data['refused']} could not be read. "
        f"Means over {plan['seeds']} seeds, with the standard deviation where seeds differ; percent. Maps and masks "
        f"are compared on at most {plan['side']} pixels a side. Overlap: share of each defective region that is found, "
        f"over false pixels up to {100 * found['fpr_max']:.0f} %. Coloured: flawless images with a place beyond the "
        f"border of the heat map's scale, which {100 * RATE:.0f} % may have.",
        "",
    ]
    head = ["method", "image ROC-AUC", "average precision", "pixel ROC-AUC", "overlap", "coloured", "bank"]
    head += ["fit, s", "score, ms"]
    rows = []
    for one in found["summary"]:
        name = one["method"] or "nearest neighbours (dn2, k = 2, cosine)"
        if "skipped" in one:
            lines += [f"{name}: {one['skipped']}", ""]
            continue
        figures = [_spread(one[what]) for what in FIGURES]
        seconds = "" if one["fit_s"] is None else f"{one['fit_s']:.1f}"
        rows.append([name, *figures, f"{one['fitted']:.0f}", seconds, f"{one['score_ms']:.1f}"])
    return [*lines, *table(head, rows)]


def _spread(values: dict[str, float] | None) -> str:
    if values is None:
        return ""
    return percent(values["mean"]) + (f" ± {percent(values['sd'])}" if values["sd"] > 0 else "")


def _chosen(catalogue: Catalogue, plan: HeatMapsPlan) -> list[str]:
    offered = [
        name for name in catalogue if Give.HEAT_MAP in catalogue[name].gives.outputs and not catalogue[name].live
    ]
    unknown = sorted(set(plan.methods) - set(offered))
    if unknown:
        raise BenchmarkRefused(f"`method` must give heat maps, as {', '.join(offered)} do; got {', '.join(unknown)}.")
    return [name for name in offered if not plan.methods or name in plan.methods]


def _split(data: MaskedFolder, pool: Pool, share: float, seed: int) -> _Split:
    bank, normal = split([one for one in data.flawless if one.file in pool.row_of], share, seed)
    defective = [one for one in data.defective if one.file in pool.row_of]
    rows = np.array([pool.row_of[one.file] for one in bank], np.int64)
    groups = [one.group for one in bank]
    keys = np.array([image_key(pool.sha256[row]) for row in rows], np.uint64)
    try:
        aside, left = held_out(keys, groups)
    except StateError as error:
        raise BenchmarkRefused(str(error)) from error
    test = [*normal, *defective]
    return _Split(
        fit=rows[left],
        calibration=rows[calibration_rows(keys, aside)],
        keys=keys[left],
        groups=[groups[row] for row in left],
        test=test,
        rows=np.array([pool.row_of[one.file] for one in test], np.int64),
        is_defective=np.arange(len(test)) >= len(normal),
    )


def _plain(pool: Pool, case: _Split) -> dict[str, Any]:
    """The nearest neighbours with their defaults, on the whole bank: they set no image aside."""
    bank = np.sort(np.concatenate([case.fit, case.calibration]))
    scorer = live_bank(pool, bank, DN2Params(metric=Metric.COSINE))
    started = time.perf_counter()
    scores = np.concatenate([scorer.score(pool.vectors[row : row + 1], neighbours=0).score for row in case.rows])
    seconds = time.perf_counter() - started
    return {
        "roc_auc": roc_auc(scores, case.is_defective),
        "average_precision": average_precision(scores, case.is_defective),
        "fitted": int(bank.size),
        "score_ms": 1000 * seconds / case.rows.size,
    }


def _measured(
    catalogue: Catalogue,
    name: str,
    images: PoolImages,
    case: _Split,
    plan: HeatMapsPlan,
    seed: int,
    picture: Path | None,
) -> dict[str, Any]:
    card = catalogue[name]
    missing = card.needs.missing(HELD)
    if missing:
        return {"skipped": f"needs {', '.join(missing)}, which folders of images do not tell"}
    kind = catalogue.method(name)
    method = kind(kind.Params.parse(name, card.quick if plan.quick else {}))
    asked = StagesAsked()
    reference = Reference(bank=images.batches(case.fit, asked), keys=case.keys, groups=case.groups)
    started = time.perf_counter()
    try:
        fitted = fit(method, reference, images.batches(case.calibration, asked, 1), seed=seed)
    except (InputError, StateError) as error:
        return {"skipped": str(error)}
    ready = time.perf_counter()
    found = [
        one for inputs in images.batches(case.rows, asked, 1) for one in scores_of(fitted.scorer, inputs)
    ]  # one at a time, as requests are
    finished = time.perf_counter()
    heat = [one.pixels[0] for one in found if one.pixels is not None]
    assert (
        len(heat) == len(found) and fitted.heat_scale is not None
    )  # the card says so, and the contract suite holds it
    scores = np.concatenate([one.image for one in found])
    shapes = [_compared_on(one, plan.side) for one in case.test]
    maps = [_grown(one, *shape) for one, shape in zip(heat, shapes, strict=True)]
    masks = [_shrunk(one.pixels(), *shape) for one, shape in zip(case.test, shapes, strict=True)]
    if picture is not None:
        _draw(picture, case, heat, fitted.heat_scale)
    return {
        "roc_auc": roc_auc(scores, case.is_defective),
        "average_precision": average_precision(scores, case.is_defective),
        "pixel_roc_auc": pixel_roc_auc(maps, masks),
        "region_overlap": region_overlap(maps, masks),
        "coloured": _coloured(heat, case, fitted),
        "fitted": int(case.fit.size),
        "calibration": int(case.calibration.size),
        "fit_s": ready - started,
        "score_ms": 1000 * (finished - ready) / case.rows.size,
        "state_bytes": len(fitted.state),
    }


def _coloured(heat: Sequence[NDArray[np.float32]], case: _Split, fitted: Fitted) -> float:
    assert fitted.heat_scale is not None
    hottest = np.array([one.max() for one in heat])
    return float((hottest[~case.is_defective] > fitted.heat_scale.border).mean())


def _compared_on(image: MaskedImage, side: int) -> tuple[int, int]:
    """Width and height on which an image is compared."""
    share = min(1.0, side / max(image.width, image.height))
    return max(1, round(image.width * share)), max(1, round(image.height * share))


def _grown(heat: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """A map on the image's pixels, interpolated as the picture of it is."""
    return np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BILINEAR))


def _shrunk(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    """A mask with fewer pixels, each True where any part of it was."""
    shares = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    return np.asarray(shares) > 0.0


def _draw(picture: Path, case: _Split, heat: Sequence[NDArray[np.float32]], scale: HeatScale) -> None:
    """Some defective images, kinds in turn: above as they are, then what is defective in white, below the heat map."""
    places = _kinds_in_turn(case, DRAWN)
    columns = []
    for place in places:
        one = case.test[place]
        share = CELL / max(one.width, one.height)
        size = (max(1, round(one.width * share)), max(1, round(one.height * share)))
        with Image.open(one.file) as opened:
            seen = ImageOps.exif_transpose(opened).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        layer = Image.open(io.BytesIO(overlay_png(heat[place], scale, *size)))
        drawn = seen.copy()
        drawn.paste(layer, mask=layer)
        truth = Image.fromarray(one.pixels().astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        columns.append((seen, truth.convert("RGB"), drawn))
    across, down = max(one[0].width for one in columns), max(one[0].height for one in columns)
    sheet = Image.new("RGB", (len(columns) * (across + GAP) - GAP, 3 * (down + GAP) - GAP), "white")
    for column, cells in enumerate(columns):
        for row, cell in enumerate(cells):
            sheet.paste(cell, (column * (across + GAP), row * (down + GAP)))
    picture.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(picture, quality=90)


def _kinds_in_turn(case: _Split, most: int) -> list[int]:
    """Places of defective images: the first of each kind, then the second of each."""
    seen: dict[str, int] = {}
    turns = []
    for place in np.flatnonzero(case.is_defective).tolist():
        kind = case.test[place].file.parent.name
        turns.append((seen.get(kind, 0), kind, place))
        seen[kind] = seen.get(kind, 0) + 1
    return [place for _, _, place in sorted(turns)[:most]]


def _summary(measured: Sequence[dict[str, Any]], name: str | None) -> dict[str, Any]:
    """Means over the seeds, with their standard deviation."""
    mine = [one for one in measured if one["method"] == name]
    done = [one for one in mine if "skipped" not in one]
    if not done:
        return {"method": name, "skipped": mine[0]["skipped"]}

    def mean(what: str) -> float | None:
        return float(np.mean([one[what] for one in done])) if what in done[0] else None

    figures = {
        what: {"mean": float(np.mean(values)), "sd": float(np.std(values))} if values else None
        for what in FIGURES
        for values in [[one[what] for one in done if what in one]]
    }
    return {
        "method": name,
        "seeds": len(done),
        **figures,
        **{one: mean(one) for one in ("fitted", "fit_s", "score_ms")},
    }
