"""A backbone in 8-bit integers: quantised once by NNCF on generated images, and kept on disk.

Two of NNCF's choices are changed. The first convolution stays in float32: it takes little of the time, and in integers
it costs neighbours on every kind of image. The ranges of activations are those that lose least by rounding, told from
histograms, and not the extremes of the generated images: vectors of photographs then stay much closer to float32, at
the price of some neighbours on images of little contrast (steel). `oddity bench precisions` measures both.

NNCF is not needed to run a quantised network, only to make one; it takes long to import, so it is imported when a
network is quantised for the first time.
"""

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from models.backbones import openvino_engine
from models.backbones.made_images import EDITION as IMAGES_EDITION
from models.backbones.made_images import made_images
from models.backbones.weights import file_sha256
from models.errors import EngineUnusable
from models.preprocessing import Preprocessing

log = logging.getLogger("oddity.engine")

EDITION = 2
SEED = 31
IMAGES = 192


def quantised_graph(
    facts: dict[str, object], build: Callable[[], Any], preprocessing: Preprocessing, folder: Path | None
) -> tuple[Any, str]:
    """The network of `build` quantised to int8, and the SHA-256 in hex of its weights.

    `facts` say which network it is; with a folder it is quantised once for the same facts and versions.

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
    if folder is None:
        graph = _quantised(build(), preprocessing)
        return graph, _graph_sha256(graph)
    kept = folder / "int8" / name
    if not (kept / "network.xml").is_file():
        _keep(_quantised(build(), preprocessing), kept)
    try:
        return openvino_engine.core().read_model(kept / "network.xml"), file_sha256(kept / "network.bin")
    except (RuntimeError, OSError) as error:
        shutil.rmtree(kept, ignore_errors=True)  # made anew at the next start
        raise EngineUnusable(f"`network` in int8 must be readable; got {kept}: {error}") from error


def _keep(graph: Any, folder: Path) -> None:
    """Written beside and renamed, so that another process sees all of it or nothing."""
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    openvino_engine.save(graph, part / "network.xml")
    try:
        part.replace(folder)
    except OSError:  # another process was quicker
        shutil.rmtree(part, ignore_errors=True)


def _graph_sha256(graph: Any) -> str:
    digest = hashlib.sha256()
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Constant":
            digest.update(node.data.tobytes())
    return digest.hexdigest()


def _quantised(graph: Any, preprocessing: Preprocessing) -> Any:
    import nncf  # seconds to import, and needed once in the life of a backbone
    from nncf.errors import InternalError, UnsupportedModelError, ValidationError
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    nncf.set_log_level(logging.WARNING)
    log.info("int8: quantising the network once, on %s generated images", IMAGES)
    pixels = made_images(IMAGES, preprocessing.image_size, SEED)
    samples = nncf.Dataset(list(pixels), lambda one: preprocessing.apply(one)[None])
    try:
        with redirect_stdout(sys.stderr):  # its progress bars: what a command prints may be read by a program
            return nncf.quantize(
                graph,
                samples,
                subset_size=IMAGES,
                preset=nncf.QuantizationPreset.MIXED,
                ignored_scope=nncf.IgnoredScope(names=[_first_convolution(graph)]),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM
                ),
            )
    except (RuntimeError, InternalError, UnsupportedModelError, ValidationError) as error:
        raise EngineUnusable(f"`network` must be quantised by NNCF; {error}") from error


def _first_convolution(graph: Any) -> str:
    name: str = next(
        node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"
    )
    return name
