"""The detect call of Amazon Lookout for Vision: an answer in its shape from a collection and a scorer."""

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bodies import Upload
from app.compat import repository
from app.core import Core
from app.errors import Conflict, Invalid, NotFound
from app.scoring.schemas import ScoreParameters
from app.scoring.service import LIVE_SCORER, score_images
from app.shelf import CollectionState
from models.contract import Give
from models.heat_maps import MASK_COLOURS, mask_png


def detect(core: Core, project: str, version: str, image: bytes) -> dict[str, Any]:
    """A `DetectAnomalyResult`: the verdict of a scorer on one image, and a mask where the scorer gives heat maps.

    `version` is the name of one of the collection's scorers; where there is none of that name, a number or `latest`
    stands for the live scorer, so that callers keep what they have.

    Raises:
        NotFound: there is no such collection or scorer.
        Conflict: the scorer is not fitted yet, or there are too few normal images for a verdict.
        Invalid: the image cannot be read.
    """
    state = core.shelf.get(project)
    scorer = _scorer(core, state, version)
    gives_map = scorer != LIVE_SCORER and _gives_map(core, state, scorer)
    parameters = ScoreParameters(scorer=scorer, neighbours=0, heatmap=gives_map)
    answer, _ = score_images(core, project, [Upload(image)], parameters)
    (one,) = answer["results"]
    if "problem" in one:
        raise Invalid(one["problem"]["detail"], one["problem"]["code"])
    calibration = answer["calibration"]
    if one["anomalous"] is None:
        raise Conflict(
            f"Collection `{project}` has {calibration['n']} images to judge by, too few for a verdict; add normal "
            "images.",
            "bank_too_small",
        )
    result = {
        "Source": {"Type": "direct"},
        "IsAnomalous": one["anomalous"],
        "Confidence": confidence(one["p_value"], calibration["false_alarm_rate"], is_anomalous=one["anomalous"]),
    }
    if gives_map:
        result.update(_mask(core, image, one["heatmap"]))
    return result


def confidence(p_value: float, rate: float, *, is_anomalous: bool) -> float:
    """How clear a verdict is, from 0.5 at the border to 1.

    Units: the odds of the two verdicts are taken as rate : p-value, so that an image at the border (p-value = rate) has
           0.5, one with a tenth of that p-value 0.91, and one with ten times that p-value 0.91 for being normal.
    """
    anomalous = rate / (rate + p_value)
    return anomalous if is_anomalous else 1.0 - anomalous


def _scorer(core: Core, state: CollectionState, version: str) -> str:
    with core.database.read() as session:
        if repository.has_scorer(session, state.id, version):
            return version
    if version == LIVE_SCORER or version == "latest" or (version.isascii() and version.isdigit()):
        return LIVE_SCORER
    raise NotFound(
        f"Collection `{state.name}` has no scorer `{version}`: GET /v1/collections/{state.name}/scorers lists them; a "
        f"number or `latest` stands for `{LIVE_SCORER}`.",
        "scorer_unknown",
    )


def _gives_map(core: Core, state: CollectionState, scorer: str) -> bool:
    fit = core.fitted.serving(state.id, scorer)
    return fit is not None and fit.heat_scale is not None and Give.HEAT_MAP in fit.card.gives.outputs


def _mask(core: Core, image: bytes, heat_map: dict[str, Any]) -> dict[str, Any]:
    """The mask, of the upright image's size, and what it covers: all that is hotter than the border of the scale."""
    width, height = core.embedders.decoder.size(image)
    values: NDArray[np.float32] = np.frombuffer(base64.b64decode(heat_map["values"]), "<f4")
    region = heat_map["region"]
    box = (region["left"], region["top"], region["right"], region["bottom"])
    mask, share = mask_png(values.reshape(heat_map["shape"]), heat_map["border"], box, width, height)
    anomalies = [_anomaly("background", 1.0 - share, MASK_COLOURS[0])]
    if share:
        anomalies.append(_anomaly("anomaly", share, MASK_COLOURS[1]))
    return {"Anomalies": anomalies, "AnomalyMask": base64.b64encode(mask).decode("ascii")}


def _anomaly(name: str, share: float, colour: tuple[int, int, int]) -> dict[str, Any]:
    red, green, blue = colour
    return {"Name": name, "PixelAnomaly": {"TotalPercentageArea": share, "Color": f"#{red:02X}{green:02X}{blue:02X}"}}
