"""What is read off the service at the moment of a scrape: queues, collections, jobs, worker, memory, disk.

Jobs are read from the record, which is the truth about them in whichever process they run.
"""

import os
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from shutil import disk_usage
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from app.core import Core
from app.drift.watch import DriftWatch
from app.health.checks import GLANCE_S, OK, Checks
from app.jobs.lanes import Lanes
from app.jobs.process import WorkerProcess
from app.limits import Slots
from app.memory import memory_bytes, memory_for_collections
from app.monitoring import repository
from app.monitoring.instruments import OTHER


class Readings(Collector):
    """One look at a running service for each scrape."""

    def __init__(
        self,
        core: Core,
        slots: Slots,
        checks: Checks,
        jobs: Lanes | WorkerProcess,
        drift: DriftWatch,
    ) -> None:
        self._core = core
        self._slots = slots
        self._checks = checks
        self._jobs = jobs
        self._drift = drift

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering is not to look."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The service as it is now; what cannot be read is left out, and `oddity_ready` says why."""
        checks = self._checks.run(GLANCE_S)
        yield _one("oddity_info", "Which version runs.", 1, version=version("oddity"))
        yield _many("oddity_ready", "Whether a check of /readyz is passed.", ["check"], _passed(checks))
        yield from self._queues()
        yield from self._memory()
        yield from self._disk()
        yield from self._collections()
        yield from self._drifts()
        yield from self._worker()
        if checks["record"] == OK:
            yield from self._record()

    def _queues(self) -> Iterable[Metric]:
        yield _one("oddity_slots_working", "Requests worked on.", self._slots.working)
        yield _one("oddity_slots_waiting", "Requests that stand in line for a slot.", self._slots.waiting)
        yield _one("oddity_queue_images", "Images that wait for the network.", self._core.embedders.images_waiting())

        pool = self._core.embedders.decoder.pool
        if pool is not None:
            yield _one("oddity_decoders", "Processes that decode images.", len(pool.pids))
            yield _one("oddity_decoders_lost", "Processes that crashed, or took too long and were ended.", pool.lost)

    def _memory(self) -> Iterable[Metric]:
        yield _one("oddity_memory_limit_bytes", "Memory of the machine or the container.", memory_bytes())
        yield _one(
            "oddity_collections_budget_bytes", "Memory set aside for collections.",
            memory_for_collections(self._core.settings),
        )  # fmt: skip

    def _disk(self) -> Iterable[Metric]:
        try:
            usage = disk_usage(self._core.settings.data)
        except OSError:
            return
        yield _one("oddity_disk_free_bytes", "Free disk in the data folder.", usage.free)
        yield _one("oddity_disk_bytes", "Size of the disk of the data folder.", usage.total)

    def _collections(self) -> Iterable[Metric]:
        states = self._core.shelf.loaded()
        count, total = self._core.shelf.memory()
        yield _one("oddity_collections_loaded", "Collections in memory.", count)
        yield _one("oddity_collections_bytes", "Memory of the collections in memory, roughly.", total)
        vectors: dict[tuple[str, ...], float] = {}
        dead: dict[tuple[str, ...], float] = {}
        recall: dict[tuple[str, ...], float] = {}
        names = self._core.observing.instruments.collections
        for state in states:
            label = names.label(state.name)
            with state.lock.read():
                parts = {part: index.describe() for part, index in state.indexes().items()}
            for part, told in parts.items():
                place = (label, part)
                vectors[place] = vectors.get(place, 0) + told["alive"]
                dead[place] = dead.get(place, 0) + told["dead"]
                if label != OTHER:
                    recall[place] = told["recall"]
                else:
                    recall[place] = min(recall.get(place, 1.0), told["recall"])
        labels = ["collection", "part"]
        yield _many("oddity_index_vectors", "Vectors of collections in memory, by part of the index.", labels, vectors)
        yield _many("oddity_index_dead", "Removed vectors that still take room.", labels, dead)
        yield _many(
            "oddity_index_recall",
            "Share of the ten nearest that searches find, measured when the structure was built; 1 where exact.",
            labels,
            recall,
        )

    def _drifts(self) -> Iterable[Metric]:
        labels = ["collection", "scorer"]
        names = {state.id: state.name for state in self._core.shelf.loaded()}
        instruments = self._core.observing.instruments
        p_values: dict[tuple[str, ...], float] = {}
        images: dict[tuple[str, ...], float] = {}
        for (collection_id, scorer), (p, n) in self._drift.found().items():
            if collection_id in names:
                place = (instruments.collections.label(names[collection_id]), instruments.scorers.label(scorer))
                p_values[place] = min(p, p_values.get(place, 1.0))
                images[place] = n + images.get(place, 0)
        yield _many(
            "oddity_drift_p_value",
            "How often images like the normal ones would give p-values as uneven as those of the last day.",
            labels,
            p_values,
        )
        yield _many("oddity_drift_images", "Images of the last day that this is told by.", labels, images)

    def _worker(self) -> Iterable[Metric]:
        up = _many("oddity_worker_up", "Whether the workers of this server run.", ["where"], {})
        restarts, pid = 0, None
        if isinstance(self._jobs, WorkerProcess):
            restarts, pid = self._jobs.restarts, self._jobs.pid
            up.add_metric(["process"], float(pid is not None))
        elif self._jobs.has_runners:
            up.add_metric(["thread"], float(self._jobs.fault() is None))
        yield up
        yield _one("oddity_worker_restarts", "Times that the worker process was started again.", restarts)
        resident = None if pid is None else resident_bytes(pid)
        memory: dict[Any, float] = {} if resident is None else {(): resident}
        yield _many("oddity_worker_resident_bytes", "Memory of the worker process.", [], memory)

    def _record(self) -> Iterable[Metric]:
        try:
            with self._core.database.read() as session:
                counts = repository.jobs(session)
                oldest = repository.oldest_queued_at(session)
        except SQLAlchemyError:
            return
        yield _many(
            "oddity_jobs", "Jobs in the record.", ["kind", "state"], {(kind, state): n for kind, state, n in counts}
        )
        waited = 0.0 if oldest is None else max(0.0, (self._core.clock() - oldest).total_seconds())
        yield _one("oddity_jobs_oldest_queued_seconds", "How long the oldest queued job has waited.", waited)


def resident_bytes(pid: int) -> int | None:
    """Memory of a process, None where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _passed(checks: dict[str, str]) -> dict[tuple[str, ...], float]:
    return {(name,): float(outcome == OK) for name, outcome in checks.items()}


def _one(name: str, what: str, value: float, **labels: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=list(labels))
    family.add_metric(list(labels.values()), value)
    return family


def _many(name: str, what: str, labels: list[str], values: dict[Any, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, what, labels=labels)
    for place, value in values.items():
        family.add_metric(list(place), value)
    return family
