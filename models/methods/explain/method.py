"""Explanations of any score: the nearest examples, and maps of which parts of an image the score rests on."""

from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from models.contract import Params
from models.errors import LibraryMissing, ParameterInvalid
from models.methods.explain.cells import Attribution, Cells, Floats, Score
from models.methods.explain.maths import Gradient, integrated_gradients, occlusion

EVALUATIONS_MAX = 10_000
GRID_MAX = 32


class MapKind(StrEnum):
    """How a map comes about."""

    OCCLUSION = "occlusion"
    GRADIENT = "gradient"
    LIME = "lime"
    SHAP = "shap"


class ExplainParams(Params):
    """Parameters of `explain`."""

    grid: int = Field(default=7, ge=2, le=GRID_MAX, description="Cells a side into which a map divides the image.")
    window: int = Field(default=2, ge=1, le=8, description="Side of the square that occlusion covers, in cells.")
    evaluations: int = Field(
        default=500, ge=16, le=EVALUATIONS_MAX, description="Images scored for a map of LIME or SHAP, at most."
    )
    steps: int = Field(
        default=16, ge=1, le=256, description="Images between the baseline and the image that a gradient map averages."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="What LIME and SHAP draw from.")


class Explain:
    """Explains the numbers that others compute; learns nothing."""

    name: ClassVar[str] = "explain"
    Params: ClassVar[type[Params]] = ExplainParams

    def __init__(self, *, width: int, params: ExplainParams) -> None:
        self.width = width
        self.params = params

    def map(
        self, kind: MapKind, score: Score, image: Floats, baseline: Floats, gradient: Gradient | None = None
    ) -> Attribution:
        """How much each cell of an image has to do with its score.

        Shapes: image (3, S, S) as the network is fed; baseline the same, what covered cells show.

        Raises:
            ParameterInvalid: more cells a side than pixels, no gradient for a gradient map, or `evaluations` for less
            than one pair of permutations.
            LibraryMissing: LIME or SHAP without captum.
        """
        params = self.params
        if params.grid > image.shape[1]:
            raise ParameterInvalid(
                f"`grid` of method `{self.name}` must be at most the image's side, {image.shape[1]}; got {params.grid}."
            )
        cells = Cells(image, baseline, params.grid)
        if kind is MapKind.OCCLUSION:
            return occlusion(score, cells, params.window)
        if kind is MapKind.GRADIENT:
            if gradient is None:
                raise ParameterInvalid("`gradient` of a gradient map must be given; got none.")
            return integrated_gradients(score, gradient, image, baseline, cells, params.steps)
        try:
            # Optional, and seconds to import.
            from models.methods.explain import sampling  # rule-skip: import-in-function captum is an optional extra
        except ModuleNotFoundError as error:
            raise LibraryMissing(
                f"Maps by `{kind}` need captum, which is not installed here: pip install 'oddity[explain]'. "
                "Occlusion and gradient maps need nothing more."
            ) from error
        if kind is MapKind.LIME:
            return sampling.lime(score, cells, params.evaluations, params.seed)
        if params.evaluations < sampling.permutation_cost(len(cells)):
            raise ParameterInvalid(
                f"`evaluations` of method `{self.name}` must be at least {sampling.permutation_cost(len(cells))} for "
                f"Shapley values of {len(cells)} cells; got {params.evaluations}. A smaller `grid` needs fewer."
            )
        return sampling.shap(score, cells, params.evaluations, params.seed)
