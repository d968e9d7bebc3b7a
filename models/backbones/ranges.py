"""How far activations reach, which 8-bit integers need to know: measured once by NNCF on generated images, and kept.

The ranges are those that lose least by rounding, told from histograms, and not the extremes of the generated images:
vectors of photographs then stay much closer to float32, at the price of some neighbours on images of little contrast
(steel). `oddity bench precisions` measures both.

Weights that ship bring theirs in their card. NNCF is needed for others, once; it takes long to import, so it is
imported then.
"""

import hashlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.backbones import openvino_engine
from models.backbones.kept import kept
from models.backbones.made_images import EDITION as IMAGES_EDITION
from models.backbones.made_images import made_images
from models.backbones.quantisation import has_ranges
from models.errors import EngineUnusable
from models.preprocessing import Preprocessing

log = logging.getLogger("oddity.engine")

EDITION = 3
SEED = 31
IMAGES = 192
DIGITS = 3  # kept of a range: machines that round differently then agree, and it can be read in a card


def measured_ranges(
    facts: dict[str, object],
    names: Sequence[str],
    build: Callable[[], Any],
    preprocessing: Preprocessing,
    folder: Path | None,
) -> dict[str, float]:
    """Range of what each block and later convolution of the graph of `build` takes in, by these names.

    `facts` say which network it is; with a folder they are measured once for the same facts and versions.

    Raises:
        EngineUnusable: NNCF or OpenVINO is absent, or refuses the network.
    """
    openvino_engine.require_openvino()
    try:
        made_by = {name: version(name) for name in ("nncf", "openvino")}
    except PackageNotFoundError as error:
        raise EngineUnusable(
            f"`precision` int8 needs a package that is not installed: {error}. Run `pip install oddity[int8]`."
        ) from error
    key = {
        **facts,
        "edition": [EDITION, IMAGES_EDITION, SEED, IMAGES],
        "preprocessing": preprocessing.describe(),
        "versions": made_by,
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    path = None if folder is None else folder / "int8" / f"{name}.json"
    return kept(path, partial(_checked, names), lambda: _measured(build(), preprocessing), dict)


def _checked(names: Sequence[str], told: dict[str, float]) -> dict[str, float]:
    if not isinstance(told, dict) or not has_ranges(names, told):
        raise ValueError(f"{sorted(told)} are not the ranges of {sorted(names)}")
    return told


def _measured(graph: Any, preprocessing: Preprocessing) -> dict[str, float]:
    import nncf  # seconds to import, and needed once in the life of a backbone
    from nncf.errors import InternalError, UnsupportedModelError, ValidationError
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.WARNING)
    log.info("int8: measuring the ranges of activations once, on %s generated images", IMAGES)
    pixels = made_images(IMAGES, preprocessing.image_size, SEED)
    samples = nncf.Dataset(list(pixels), lambda one: preprocessing.apply(one)[None])
    try:
        with redirect_stdout(sys.stderr):  # its progress bars: what a command prints may be read by a program
            quantised = nncf.quantize(
                graph,
                samples,
                subset_size=IMAGES,
                preset=nncf.QuantizationPreset.MIXED,
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
                    disable_bias_correction=True,
                ),
            )
    except (RuntimeError, InternalError, UnsupportedModelError, ValidationError) as error:
        raise EngineUnusable(f"`network` must be quantised by NNCF; {error}") from error
    found: dict[str, float] = {}
    for node in quantised.get_ordered_ops():
        block, _, part = node.get_friendly_name().rpartition(".")
        if node.get_type_name() in ("Convolution", "GroupConvolution") and block and part.startswith("conv"):
            found[block if part == "conv1" else f"{block}.{part}"] = _range_before(node)
    return found


def _range_before(convolution: Any) -> float:
    """The upper end of the rounding that what a convolution takes in has gone through."""
    node = convolution.input_value(0).get_node()
    while node.get_type_name() == "MaxPool":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "FakeQuantize":
        raise EngineUnusable(
            f"`network` must be quantised by NNCF before {convolution.get_friendly_name()}; it was not."
        )
    return float(f"{float(node.input_value(2).get_node().data.max()):.{DIGITS}g}")
