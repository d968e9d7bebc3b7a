"""A worker process: jobs and nothing else, at low priority, on the record and the data folder of the servers."""

import logging
import os
import signal
import sys
import threading
from io import FileIO

from prometheus_client import start_http_server

from app.core import Core
from app.jobs.lanes import Lanes
from app.kept_process import obey
from app.main import HANDLERS, close_core, open_core
from app.monitoring.instruments import Instruments
from app.monitoring.tracing import open_tracing
from app.observe import Observing
from app.settings import Settings

log = logging.getLogger("oddity.jobs")
STEP_S = 30.0  # what a step may still take when the worker is to end
MEMORY_SHARE = 4  # a worker keeps a quarter of what a server may: it works on one or two collections at a time


def worker_settings(settings: Settings) -> Settings:
    """The settings that a worker opens the record with: few threads."""
    threads = settings.job_threads or max(1, len(os.sched_getaffinity(0)) // 2)
    return settings.model_copy(update={"threads": threads})


def work(settings: Settings, orders: FileIO | None = None, metrics: tuple[str, int] | None = None) -> None:
    """Run jobs until SIGTERM or SIGINT, or, with `orders` from a server, until that ends.

    `metrics`: address and port at which Prometheus may ask for those of this process.

    A job that is under way then ends at its next step and goes back into the queue. One whose step takes longer than
    30 s is left to its lease: the process ends, and another worker begins the job again when the lease has run out.
    """
    ended = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: ended.set())
    os.nice(settings.job_niceness)
    observing = Observing(Instruments(settings.metrics_collections), open_tracing(settings, "oddity-worker"))
    core = open_core(worker_settings(settings), memory_share=MEMORY_SHARE, observing=observing)
    if metrics is not None:
        start_http_server(metrics[1], metrics[0], observing.instruments.registry)
    lanes = Lanes(core, HANDLERS, settings.job_workers)
    lanes.start()
    if orders is not None:
        obey(orders, lanes.wake, ended.set)
    log.info("worker begins")
    ended.wait()
    _end(core, lanes)


def _end(core: Core, lanes: Lanes) -> None:
    if lanes.stop(STEP_S):
        close_core(core)
        core.observing.close()
        log.info("worker ends")
        return
    log.warning("worker ends in the middle of a step; its job will be run again")
    sys.stderr.flush()
    os._exit(0)  # the interpreter's own end would wait for threads in the middle of that step
