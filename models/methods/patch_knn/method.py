"""The fitted scorer: remembered patches of normal images, searched for every patch of a new one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from index import Metric, VectorIndex, make_index
from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import BankTooSmall, ParameterInvalid
from models.methods.patch_knn.coreset import Remembered, StreamingCoreset
from models.methods.patch_knn.maths import patch_features, random_projection, reweighted

NAME = "patch_knn"
Floats = NDArray[np.float32]


class PatchKNNParams(Params):
    """Parameters of `patch_knn`."""

    stages: tuple[Literal[1, 2, 3, 4], ...] = Field(
        default=(2, 3),
        min_length=1,
        max_length=4,
        description="Residual stages whose maps are joined, ascending; the finest gives the grid.",
    )
    neighbourhood: Literal[1, 3, 5, 7] = Field(
        default=3, description="Side of the square over which each patch is averaged, in cells of its stage."
    )
    memory_patches: int = Field(default=4096, ge=1, le=65536, description="Patches remembered, at most.")
    projection: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="Dimensions of a random projection of the patches; null keeps them whole.",
    )
    k: int = Field(
        default=1, ge=1, le=16, description="Remembered patches over whose distances a patch's score is the mean."
    )
    reweight: bool = Field(
        default=False, description="Weigh the image's score by how rare its nearest remembered patch is (PatchCore)."
    )
    support: int = Field(default=9, ge=2, le=64, description="With `reweight`: patches that tell how rare it is.")

    @field_validator("stages")
    @classmethod
    def _ascending(cls, stages: tuple[int, ...]) -> tuple[int, ...]:
        if list(stages) != sorted(set(stages)):
            raise ValueError("ascending, each stage once")
        return stages


@dataclass(frozen=True, slots=True)
class Recipe:
    """From maps to rows that can be compared, the same for the bank and for whatever is scored."""

    stages: tuple[int, ...]
    neighbourhood: int
    offset: Floats
    """(D,) taken off every patch: distances stay as they are, and their arithmetic loses fewer digits."""
    projection: Floats | None
    """(D, d)"""

    def rows(self, features: Floats) -> Floats:
        """Patch features (h, w, D) of one image as rows (h w, d)."""
        centred = features.reshape(-1, features.shape[2]) - self.offset
        return centred if self.projection is None else np.ascontiguousarray(centred @ self.projection)


@dataclass(frozen=True, slots=True)
class FittedPatchKNN:
    """A memory of patches; distances to it are scores."""

    recipe: Recipe
    memory: VectorIndex
    k: int
    support: int | None
    """None: no re-weighting."""
    radius: float
    """No patch of the bank lies farther than this from all that are remembered."""
    floor: float
    """No memory of this many patches could have had a radius below this."""
    method: str = NAME

    def score(self, inputs: Inputs) -> Scores:
        """The largest of each image's patch scores, and all of them as a map on the grid of the finest stage.

        Each image is computed by itself, so its bits do not depend on its mates.

        Raises:
            ParameterInvalid: the maps lack a stage, or are of another width than the bank's.
            NotFinite: a map holds NaN or infinity.
        """
        heat, image = [], []
        for features in features_of(inputs, self.recipe.stages, self.recipe.neighbourhood):
            if features.shape[2] != self.recipe.offset.size:
                raise ParameterInvalid(
                    f"`maps` of the inputs of method `{NAME}` must have {self.recipe.offset.size} channels in all, as "
                    f"the bank's had; got {features.shape[2]}."
                )
            one, score = self._scored(self.recipe.rows(features))
            heat.append(one.reshape(features.shape[:2]))
            image.append(score)
        return Scores(image=np.array(image, np.float32), pixels=np.stack(heat) if heat else None)

    def findings(self) -> dict[str, Any]:
        """How many patches are remembered, and between what their true radius over the bank lies."""
        return {"patches": len(self.memory), "radius": self.radius, "floor": self.floor}

    def export(self) -> FittedState:
        """The remembered patches, and how patches come about."""
        arrays: dict[str, NDArray[Any]] = {
            "memory": self.memory.vectors(np.arange(len(self.memory))),
            "offset": self.recipe.offset,
        }
        if self.recipe.projection is not None:
            arrays["projection"] = self.recipe.projection
        return FittedState(
            arrays=arrays,
            values={
                "stages": list(self.recipe.stages),
                "neighbourhood": self.recipe.neighbourhood,
                "k": self.k,
                "support": self.support,
                "radius": self.radius,
                "floor": self.floor,
            },
        )

    def _scored(self, rows: Floats) -> tuple[Floats, float]:
        k = min(self.k, len(self.memory))
        found = self.memory.search(rows, k)
        heat: Floats = np.add.reduce(found.distances, axis=1) / np.float32(k)
        place = int(heat.argmax())
        score = float(heat[place])
        if self.support is None or len(self.memory) < 2:  # one patch cannot be rarer than another
            return heat, score
        nearest = self.memory.vectors(found.ids[place, :1])
        around = self.memory.search(nearest, min(self.support, len(self.memory))).ids[0]
        told = self.memory.search(rows[place : place + 1], around.size, allowed=around)
        return heat, reweighted(score, float(found.distances[place, 0]), told.distances[0])


class PatchKNN:
    """Remembers a bounded number of the bank's patches; a patch scores by its distance to them."""

    name: ClassVar[str] = NAME
    Params: ClassVar[type[Params]] = PatchKNNParams

    def __init__(self, params: PatchKNNParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedPatchKNN:
        """The memory of this bank, read once, image by image.

        Memory: the maps of a batch, and three times the remembered patches; both whatever the size of the bank.

        Raises:
            BankTooSmall: there is no image.
            ParameterInvalid: the maps lack a stage.
            NotFinite: a map holds NaN or infinity.
        """
        random = np.random.default_rng(seed)
        total = sum(map(len, reference.bank))
        done = 0

        def tick() -> None:
            if progress is not None:
                progress(done, total + 1)

        memory = StreamingCoreset(self.params.memory_patches, random, tick)
        recipe: Recipe | None = None
        for batch in reference.bank:
            for features in features_of(batch, self.params.stages, self.params.neighbourhood):
                if recipe is None:
                    recipe = self._recipe(features, random)
                memory.add(recipe.rows(features))
                done += 1
                tick()
        if recipe is None:
            raise BankTooSmall(f"The bank of method `{NAME}` must hold at least 1 image to fit; got 0.")
        found = memory.remembered()
        done += 1
        tick()
        return self._fitted(recipe, found)

    def restore(self, state: FittedState) -> FittedPatchKNN:
        """The scorer that was exported."""
        arrays: Mapping[str, NDArray[Any]] = state.arrays
        values = state.values
        recipe = Recipe(
            tuple(values["stages"]), int(values["neighbourhood"]), arrays["offset"], arrays.get("projection")
        )
        return FittedPatchKNN(
            recipe=recipe,
            memory=_index_of(arrays["memory"]),
            k=int(values["k"]),
            support=values["support"],
            radius=float(values["radius"]),
            floor=float(values["floor"]),
        )

    def _recipe(self, features: Floats, random: np.random.Generator) -> Recipe:
        width, dimensions = features.shape[2], self.params.projection
        projection = None
        if dimensions is not None and dimensions < width:
            projection = random_projection(width, dimensions, random)
        return Recipe(
            stages=self.params.stages,
            neighbourhood=self.params.neighbourhood,
            offset=features.reshape(-1, width).mean(axis=0),
            projection=projection,
        )

    def _fitted(self, recipe: Recipe, found: Remembered) -> FittedPatchKNN:
        return FittedPatchKNN(
            recipe=recipe,
            memory=_index_of(found.rows),
            k=self.params.k,
            support=self.params.support if self.params.reweight else None,
            radius=found.radius,
            floor=found.floor,
        )


def features_of(inputs: Inputs, stages: Sequence[int], neighbourhood: int) -> Iterator[Floats]:
    """Patch features (h, w, D) of each image, one after the other.

    Raises:
        ParameterInvalid: the maps lack a stage.
    """
    missing = [stage for stage in stages if stage not in inputs.maps]
    if missing:
        raise ParameterInvalid(
            f"`maps` of the inputs of method `{NAME}` must hold the stages {', '.join(map(str, stages))}; "
            f"got none of {', '.join(map(str, missing))}."
        )
    maps = [inputs.maps[stage] for stage in stages]
    for row in range(len(inputs)):
        yield patch_features([one[row] for one in maps], neighbourhood)


def _index_of(rows: Floats) -> VectorIndex:
    index = make_index("flat", width=rows.shape[1], metric=Metric.L2)
    index.add(np.arange(len(rows)), rows)
    return index
