"""A small collection for every method: seeded images of 32 pixels, a tiny seeded backbone, and every kind of need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from models.contract import (
    Box,
    FittedScorer,
    Inputs,
    MethodCard,
    Need,
    Pair,
    Params,
    Rating,
    Reference,
    Relation,
)

SIDE = 32
BATCH = 16
STRIDES = {1: (4, 8), 2: (4, 12), 3: (8, 16), 4: (16, 24)}  # stage -> pixels of a cell, channels
WIDTH = STRIDES[4][1]
DEFECT = (4, 14)  # rows and columns of a planted defect, in pixels
BANK, HELD_OUT, DEFECTIVE = 48, 12, 6
KINDS = 3
SEED = 7


class TinyBackbone:
    """Random filters on square cells, stage by stage; each image by itself, so mates cannot matter."""

    width = WIDTH
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(self) -> None:
        random = np.random.default_rng(SEED)
        self._filters = {
            stage: random.normal(size=(cell * cell * 3, channels)).astype(np.float32) / cell
            for stage, (cell, channels) in STRIDES.items()
        }

    def vectors(self, pixels: np.ndarray) -> np.ndarray:
        return self.maps(pixels, [4])[4].mean(axis=(1, 2))

    def maps(self, pixels: np.ndarray, stages: Sequence[int]) -> Mapping[int, np.ndarray]:
        found = {}
        for stage in stages:
            cell, channels = STRIDES[stage]
            rows = []
            for image in pixels:
                high, wide = image.shape[1] // cell, image.shape[2] // cell
                patches = image[:, : high * cell, : wide * cell].reshape(3, high, cell, wide, cell)
                flat = patches.transpose(1, 3, 0, 2, 4).reshape(high * wide, -1)
                rows.append(np.maximum(flat @ self._filters[stage], 0).reshape(high, wide, channels))
            found[stage] = np.stack(rows) if rows else np.zeros((0, 1, 1, channels), np.float32)
        return found


BACKBONE = TinyBackbone()


def picture(seed: int, kind: int = 0, defect: bool = False) -> np.ndarray:
    """(3, 32, 32) normalised: a shading with the stripes of its kind, and a bright square where it is defective."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    base = np.stack([0.4 + 0.2 * x, 0.4 + 0.2 * y, 0.5 + 0.1 * x * y])
    base += 0.15 * np.sin(2 * np.pi * (2 + 2 * kind) * (x if kind % 2 else y))
    base += random.normal(0, 0.02, base.shape) + random.normal(0, 0.03, (3, 1, 1))
    if defect:
        base[:, DEFECT[0] : DEFECT[1], DEFECT[0] : DEFECT[1]] = np.array([1.0, 0.0, 1.0])[:, None, None]
    return ((base.clip(0, 1) - 0.5) / 0.25).astype(np.float32)


def inputs(pictures: Sequence[np.ndarray], first_id: int, needs: frozenset[Need], **more: Any) -> Inputs:
    """Pictures as a method sees them that declared these needs."""
    pixels = np.stack(pictures) if len(pictures) else np.zeros((0, 3, SIDE, SIDE), np.float32)

    def has(need: Need) -> bool:
        return need in needs

    seen = has(Need.PIXELS) or has(Need.MAPS)
    return Inputs(
        ids=np.arange(first_id, first_id + len(pixels)),
        vectors=BACKBONE.vectors(pixels) if has(Need.VECTORS) else None,
        maps=BACKBONE.maps(pixels, (1, 2, 3, 4)) if has(Need.MAPS) else {},
        pixels=pixels if has(Need.PIXELS) else None,
        backbone=BACKBONE if seen else None,
        **more,
    )


def batches(pictures: Sequence[np.ndarray], first_id: int, needs: frozenset[Need], **more: Any) -> list[Inputs]:
    """The same in batches of 16."""
    return [
        inputs(
            pictures[start : start + BATCH],
            first_id + start,
            needs,
            **{name: each[start : start + BATCH] for name, each in more.items()},
        )
        for start in range(0, len(pictures), BATCH)
    ]


CLEAN = [picture(10_000 + number) for number in range(HELD_OUT)]
DEFECTS = [picture(20_000 + number, defect=True) for number in range(DEFECTIVE)]


def reference(needs: frozenset[Need], bank: Sequence[np.ndarray] | None = None) -> Reference:
    """Everything that was declared and nothing else; `bank` in place of the usual one."""
    pictures = [picture(number) for number in range(BANK)] if bank is None else list(bank)
    n = len(pictures)
    everything: dict[Need, dict[str, Any]] = {
        Need.LABELS: {
            "labels": {
                f"kind-{kind}": batches([picture(first + n, kind) for n in range(6)], first, needs)
                for kind, first in enumerate(range(1000, 1000 + 10 * KINDS, 10))
            }
        },
        Need.UNLABELLED: {"unlabelled": batches([picture(2000 + n, n % KINDS) for n in range(24)], 2000, needs)},
        Need.GROUPS: {
            "sets": {f"set-{place}": batches(pictures[place::6], place, needs) for place in range(min(6, n))},
            "groups": [f"part-{place % 6}" for place in range(n)],
        },
        Need.SEQUENCE: {"streams": {f"line-{place}": batches(pictures[place::2], place, needs) for place in range(2)}},
        Need.BOXES: {
            "boxed": batches(
                [picture(3000 + n, defect=n % 2 == 0) for n in range(12)],
                3000,
                needs,
                boxes=[_drawn() if n % 2 == 0 else () for n in range(12)],
                relations=[(Relation("inside", 1, 0),) if n % 2 == 0 else () for n in range(12)],
            )
        },
        Need.RATINGS: {
            "rated": batches(
                [picture(4000 + n, defect=n % 3 == 0) for n in range(18)],
                4000,
                needs,
                ratings=[
                    tuple(Rating(rater, 8.0 * (n % 3 == 0) + bias) for rater, bias in (("ann", 0.0), ("bob", 1.0)))
                    for n in range(18)
                ],
            )
        },
        Need.PAIRS: {
            "compared": batches([picture(5000 + n, defect=n % 2 == 0) for n in range(16)], 5000, needs),
            "pairs": [Pair(5000 + n, 5000 + (n + 1) % 16, "left" if n % 2 == 0 else "right") for n in range(16)],
        },
    }
    more: dict[str, Any] = {}
    for need in needs:
        more.update(everything.get(need, {}))
    return Reference(bank=batches(pictures, 0, needs), keys=np.arange(n, dtype=np.uint64) * 2**40, **more)


def _drawn() -> tuple[Box, ...]:
    low, high = DEFECT[0] / SIDE, DEFECT[1] / SIDE
    return Box("square", low, low, high, high), Box("middle", 0.3, 0.3, 0.5, 0.5)


@dataclass
class Subject:
    """One method under test, with the parameters that its card calls quick."""

    card: MethodCard
    kind: type[Any]
    params: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def needs(self) -> frozenset[Need]:
        """What it may ask for, and so is given."""
        needs = self.card.needs
        return frozenset((*needs.required, *needs.either, *needs.optional))

    @cached_property
    def method(self) -> Any:
        parse: type[Params] = self.kind.Params
        return self.kind(parse.parse(self.card.name, {**self.card.quick, **self.params}))

    def fit(self, seed: int = 1, bank: Sequence[np.ndarray] | None = None) -> FittedScorer:
        """A fit on the small collection."""
        return self.method.fit(reference(self.needs, bank), seed=seed)

    @cached_property
    def scorer(self) -> FittedScorer:
        """The fit that most checks look at."""
        return self.fit()

    def inputs(self, pictures: Sequence[np.ndarray]) -> Inputs:
        """Pictures as this method sees them."""
        return inputs(pictures, 90_000, self.needs)
