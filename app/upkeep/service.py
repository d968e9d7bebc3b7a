"""Submitting upkeep jobs; what they do stands in `cleaning`, `compression` and `calibration`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from app.core import Core
from app.idempotency import Request
from app.jobs.runner import Handler
from app.jobs.service import submit
from app.upkeep.calibration import run_calibrate
from app.upkeep.cleaning import cleaner_of, run_clean
from app.upkeep.compression import check_compressible, run_compress
from app.upkeep.schemas import CalibrateParameters, CleanParameters, CompressParameters
from models.errors import BankTooSmall

HANDLERS: Mapping[str, Handler] = {"clean": run_clean, "compress": run_compress, "calibrate": run_calibrate}


def submit_clean(
    core: Core, name: str, parameters: CleanParameters, request: Request | None
) -> tuple[dict[str, Any], bool]:
    """The queued job. Raises NotFound, BankTooSmall when there are no two images to compare, and as `cleaner_of`."""
    state = core.shelf.get(name)
    if parameters.scorer is not None:
        cleaner_of(core, state, parameters.scorer)
    with state.lock.read():
        if len(state.dn2.bank) < 2:
            raise BankTooSmall(f"The bank must hold at least 2 normal images; got {len(state.dn2.bank)}.")
    return _submit(core, "clean", name, parameters, request)


def submit_compress(
    core: Core, name: str, parameters: CompressParameters, request: Request | None
) -> tuple[dict[str, Any], bool]:
    """The queued job. Raises NotFound, and BankTooSmall when calibration images could not be set aside."""
    check_compressible(core, name)
    return _submit(core, "compress", name, parameters, request)


def submit_calibrate(
    core: Core, name: str, parameters: CalibrateParameters, request: Request | None
) -> tuple[dict[str, Any], bool]:
    """The queued job. Raises NotFound."""
    return _submit(core, "calibrate", name, parameters, request)


def _submit(
    core: Core, kind: str, name: str, parameters: BaseModel, request: Request | None
) -> tuple[dict[str, Any], bool]:
    return submit(core, kind, name, parameters.model_dump(mode="json", exclude_none=True), request)
