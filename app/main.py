"""Joins all parts into the ASGI application."""

import os
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from app import errors
from app.access.audit import Audit
from app.access.gate import Doorkeepers, Gate
from app.access.keyring import Keyring
from app.access.ledger import Ledger
from app.access.meter import Meter
from app.backbones.endpoints import router as backbones_router
from app.bodies import BodyLimit
from app.classes.endpoints import router as classes_router
from app.clock import Clock, utc_now
from app.collections.endpoints import router as collections_router
from app.compat.endpoints import router as compat_router
from app.compat.problems import LookoutProblems
from app.core import Core
from app.db.engine import Database
from app.dependencies import reads_its_body, refuse_unknown_parameters
from app.drift.counting import PValueCounts
from app.drift.endpoints import router as drift_router
from app.drift.watch import DriftWatch
from app.duplicates.endpoints import router as duplicates_router
from app.duplicates.service import HANDLERS as DUPLICATES
from app.embedders import Embedders
from app.embeddings.endpoints import router as embeddings_router
from app.embeddings.service import HANDLERS as EMBEDDINGS
from app.explaining.endpoints import router as explaining_router
from app.feedback.endpoints import router as feedback_router
from app.fitted_shelf import FittedShelf
from app.groups.endpoints import router as groups_router
from app.headers import SecurityHeaders
from app.health.checks import Checks
from app.health.endpoints import router as health_router
from app.idempotency import Idempotency
from app.images.endpoints import router as images_router
from app.importing.endpoints import router as importing_router
from app.importing.service import HANDLERS as IMPORTING
from app.indexing.endpoints import router as indexing_router
from app.indexing.files import IndexFiles
from app.indexing.service import HANDLERS as INDEXING
from app.jobs.endpoints import router as jobs_router
from app.jobs.lanes import Lanes
from app.jobs.process import WorkerProcess
from app.keys.endpoints import router as keys_router
from app.limits import BodyDeadline, LeaveWhenGone, Slots
from app.memory import memory_for_collections, memory_for_scorers
from app.monitoring.instruments import Instruments
from app.monitoring.readings import Readings
from app.monitoring.tracing import open_tracing
from app.observe import Observing, RequestLog
from app.openapi import add_security
from app.overview.endpoints import router as overview_router
from app.page import PageFiles
from app.page import router as page_router
from app.projections import Projections
from app.remote_storage import open_files
from app.scorers.endpoints import router as scorers_router
from app.scorers.service import HANDLERS as SCORERS
from app.scoring.endpoints import router as scoring_router
from app.search.endpoints import router as search_router
from app.settings import Settings
from app.shelf import Shelf
from app.snapshots.endpoints import router as snapshots_router
from app.snapshots.service import HANDLERS as SNAPSHOTS
from app.storage import IMAGES_LOCK, ImageStore, Thumbnails
from app.upkeep.endpoints import router as upkeep_router
from app.upkeep.service import HANDLERS as UPKEEP
from index import set_scratch_folder, set_threads

# Asked first for the path of each request, and their routes are the application's own: a router within another has to
# look for a path twice.
QUICK_ROUTERS = (scoring_router, search_router)
ROUTERS = (  # asked in turn: those that are asked most often come first
    images_router,
    page_router,
    collections_router,
    importing_router,
    overview_router,
    explaining_router,
    groups_router,
    classes_router,
    scorers_router,
    backbones_router,
    embeddings_router,
    feedback_router,
    drift_router,
    upkeep_router,
    indexing_router,
    duplicates_router,
    snapshots_router,
    jobs_router,
    keys_router,
    health_router,
    compat_router,
)
HANDLERS = {**UPKEEP, **IMPORTING, **DUPLICATES, **SNAPSHOTS, **SCORERS, **EMBEDDINGS, **INDEXING}
# These write what they receive to a file, under limits of their own.
UPLOADS = re.compile(r"/v1/collections/[^/]+/(images/import|restore)")
PROBES, PROBES_WAITING, PROBE_S = 4, 64, 30.0  # a check that hangs holds up neither the others nor requests
NO_PATH = "/ "  # that no route has
END_STEP_S = 1.0  # what jobs get at the end even where requests have taken all the time


def open_core(
    settings: Settings, clock: Clock = utc_now, memory_share: int = 1, observing: Observing | None = None
) -> Core:
    """Open the record (migrating it), the image store and everything derived from them.

    Collections are kept in one `memory_share`-th of the memory that the settings allow.
    """
    observing = observing or Observing(Instruments(settings.metrics_collections))
    settings.data.mkdir(parents=True, exist_ok=True)
    threads = settings.threads or len(os.sched_getaffinity(0))
    set_threads(threads)
    scratch = settings.data / "scratch"
    scratch.mkdir(exist_ok=True)
    set_scratch_folder(scratch)
    database = Database(settings.database, settings.database_busy_s)
    database.migrate()
    images, thumbnails = (
        open_files(settings.image_store_url, settings.image_store_parameters, part, settings.data)
        for part in ("images", "thumbnails")
    )
    index_files = IndexFiles(settings.data / "indexes")
    return Core(
        settings=settings,
        database=database,
        store=ImageStore(images, partial(database.lock, IMAGES_LOCK, shared=True)),
        thumbnails=Thumbnails(thumbnails),
        embedders=Embedders(settings, threads, observing.instruments.count_batch),
        shelf=Shelf(
            database,
            memory_for_collections(settings) // memory_share,
            settings.follow_wait_s,
            files=index_files,
        ),
        fitted=FittedShelf(database, memory_for_scorers(settings)),
        index_files=index_files,
        projections=Projections(),
        idempotency=Idempotency(database, settings.idempotency_hours, clock),
        clock=clock,
        observing=observing,
        p_values=PValueCounts(clock),
    )


def close_core(core: Core) -> None:
    """Finish accepted work and close what `open_core` opened."""
    core.embedders.close()
    core.shelf.close()
    core.database.close()


def jobs_of(core: Core) -> Lanes | WorkerProcess:
    """What runs the jobs of a server, as its settings say; with `off` it runs none."""
    if core.settings.jobs == "process":
        return WorkerProcess(core.settings)
    return Lanes(core, HANDLERS if core.settings.jobs == "thread" else {}, core.settings.job_workers)


class Service(FastAPI):
    """The application with ids, counts, headers and the log around all of it, the answers to what nobody expected too.

    Its document of the interface says which scope a path takes.
    """

    observing: Observing

    def openapi(self) -> dict[str, Any]:
        """The document of the interface; made once."""
        is_new = self.openapi_schema is None
        document = super().openapi()
        if is_new:
            add_security(document)
        return document

    def build_middleware_stack(self) -> ASGIApp:
        """The layers that a request passes through."""
        return RequestLog(LookoutProblems(SecurityHeaders(super().build_middleware_stack())), self.observing)


def open_doors(core: Core) -> Doorkeepers:
    """What the gate of a server asks: keys, what they may do at once, and where it is written down."""
    settings = core.settings
    admin_key = None if settings.admin_key is None else settings.admin_key.get_secret_value()
    meter = Meter(core.clock)
    audit = Audit(settings.data / "audit", settings.audit_limit_bytes, settings.audit_limit_files)
    return Doorkeepers(
        Keyring(core.database, core.clock, admin_key), meter, Ledger(core.database, audit, meter, core.clock)
    )


def ending(
    limit_s: float, observing: Observing, slots: Slots, checks: Checks, jobs: Lanes | WorkerProcess
) -> tuple[Callable[[], None], Callable[[], float]]:
    """What begins the end of a server, once, and what tells how much of its time is left.

    From then on it says that it is not ready, nobody waits for what may come later, and workers hand back their jobs.
    """
    ends_at: list[float] = []

    def end_soon() -> None:
        if not ends_at:
            ends_at.append(time.monotonic() + limit_s)
            checks.is_ending = slots.is_ending = observing.is_ending = True
            jobs.ask_to_stop()

    def remaining_s() -> float:
        return ends_at[0] - time.monotonic() if ends_at else limit_s

    return end_soon, remaining_s


def create_app(settings: Settings | None = None, clock: Clock = utc_now) -> FastAPI:
    """The application; it opens the record when it starts and closes it when it stops."""
    settings = settings or Settings()
    observing = Observing(Instruments(settings.metrics_collections))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        observing.tracing = open_tracing(settings, "oddity")
        app.state.core = core = open_core(settings, clock, observing=observing)
        app.state.slots = slots = Slots(settings.inference_slots, settings.queue_limit_requests, settings.deadline_s)
        app.state.refits = Slots(1, settings.queue_limit_requests, settings.deadline_s)
        app.state.probes = Slots(PROBES, PROBES_WAITING, PROBE_S)
        app.state.mapping = Slots(
            max(1, settings.inference_slots // 8), settings.queue_limit_requests, settings.deadline_s
        )
        app.state.doors = doors = open_doors(core)
        doors.ledger.start()
        jobs = jobs_of(core)
        app.state.wake_jobs = jobs.wake
        app.state.checks = checks = Checks(core, jobs.fault)
        app.state.end_soon, remaining_s = ending(settings.shutdown_s, observing, slots, checks, jobs)
        drift = DriftWatch(core)
        readings = Readings(core, slots, checks, jobs, drift)
        observing.instruments.registry.register(readings)
        jobs.start()
        drift.start()
        try:
            yield
        finally:
            app.state.end_soon()
            jobs.stop(max(END_STEP_S, remaining_s()))
            drift.stop()
            observing.instruments.registry.unregister(readings)
            checks.close()
            doors.ledger.stop()
            close_core(core)
            observing.close()

    app = Service(
        title="Oddity",
        version=version("oddity"),
        summary="Image anomaly detection and similarity search.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        docs_url=None,  # ours, without a network: see app.page
        redoc_url=None,
        # The framework's own spans would carry query strings and the sentences of errors; see app.observe for ours.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.observing = observing
    errors.install(app)
    app.add_middleware(
        BodyLimit,
        limit_bytes=settings.body_limit_bytes,
        budget_bytes=settings.bodies_limit_bytes,
        limit_values=settings.json_limit_values,
        apart=UPLOADS,
    )
    app.add_middleware(LeaveWhenGone)
    app.add_middleware(Gate, access=settings.access)
    app.add_middleware(BodyDeadline, wait_s=settings.body_wait_s)
    app.mount("/static", PageFiles(packages=[("app", "static")]), name="static")
    app.router.routes.extend(_routes())
    return app


@cache
def _routes() -> tuple[BaseRoute, ...]:
    """Every path but that of the page's files, worked out once for all applications of a process.

    Left to them the first request does it, under a switch of warnings that is not safe with threads, and everybody
    waits for it.
    """
    together = APIRouter()
    for router in QUICK_ROUTERS:
        together.routes.extend(router.routes)
    for router in ROUTERS:
        reads_itself = all(map(reads_its_body, router.routes))
        together.include_router(router, dependencies=[] if reads_itself else [Depends(refuse_unknown_parameters)])
    nowhere = {"type": "http", "method": "GET", "path": NO_PATH, "root_path": "", "headers": []}
    for route in together.routes:
        route.matches(nowhere)
    return tuple(together.routes)
