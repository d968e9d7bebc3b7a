"""What is counted and timed while the service works. One set for each application, so that two never mix.

Labels are bounded: routes are templates, methods, statuses and stages are few, and collections and scorers get labels
of their own only up to a limit; what comes after shares `other`.
"""

import functools
import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector

from app.settings import counts_together

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16)
P_VALUES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Names:
    """Labels for names that callers choose: the first `limit` ever seen keep their own, all others share one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def label(self, name: str) -> str:
        """The name itself, or `other`."""
        with self._lock:
            if name in self._known:
                return name
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(name)
            return name


class Instruments:
    """Counters and histograms, in a registry of their own; safe for threads.

    They are those of this process; where several serve one address, those of all of them, whichever is asked.
    """

    def __init__(self, labels_max: int) -> None:
        """`labels_max` collections, and as many scorers, get labels of their own."""
        self.registry = CollectorRegistry()
        self.collections = Names(labels_max)
        self.scorers = Names(labels_max)
        if counts_together():
            counted = CollectorRegistry()  # only read through the files that all processes write
            MultiProcessCollector(self.registry)  # type: ignore[no-untyped-call]
        else:
            counted = self.registry
            ProcessCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self.requests = Counter(
            "oddity_requests", "Requests answered.", ["method", "route", "status"], registry=counted
        )
        self.request_seconds = Histogram(
            "oddity_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["method", "route"],
            buckets=REQUEST_SECONDS,
            registry=counted,
        )
        self.in_progress = Gauge(
            "oddity_requests_in_progress",
            "Requests that came and are not answered yet.",
            registry=counted,
            multiprocess_mode="livesum",
        )
        self.stage_seconds = Histogram(
            "oddity_stage_seconds",
            "Time that requests and jobs spent in one stage of their work.",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=counted,
        )
        self._stage = functools.cache(self.stage_seconds.labels)  # asked a dozen times a request
        self.batch_images = Histogram(
            "oddity_batch_images",
            "Images that were given to the network together.",
            buckets=BATCHES,
            registry=counted,
        )
        self.batch_seconds = Histogram(
            "oddity_batch_seconds",
            "Time of the network for one batch.",
            buckets=STAGE_SECONDS,
            registry=counted,
        )
        self.verdicts = Counter(
            "oddity_verdicts",
            "Images scored, by verdict: anomalous, normal, or none where there are too few normal images for one.",
            ["collection", "scorer", "verdict"],
            registry=counted,
        )
        self.p_value = Histogram(
            "oddity_p_value",
            "P-values of images that were sent to be scored; evenly spread where they are like the normal ones.",
            ["collection", "scorer"],
            buckets=P_VALUES,
            registry=counted,
        )

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has ended."""
        method = method if method in METHODS else OTHER
        self.requests.labels(method, route, str(status)).inc()
        self.request_seconds.labels(method, route).observe(seconds)

    def time_stage(self, name: str, seconds: float) -> None:
        """A part of the work has ended."""
        self._stage(name).observe(seconds)

    def count_batch(self, images: int, seconds: float) -> None:
        """The network has computed a batch."""
        self.batch_images.observe(images)
        self.batch_seconds.observe(seconds)

    def count_scores(
        self, collection: str, scorer: str, p_values: Iterable[float], verdicts: Iterable[bool | None]
    ) -> None:
        """Images have been scored."""
        names = self.collections.label(collection), self.scorers.label(scorer)
        spread = self.p_value.labels(*names)
        for p in p_values:
            spread.observe(p)
        for verdict in verdicts:
            word = "none" if verdict is None else "anomalous" if verdict else "normal"
            self.verdicts.labels(*names, word).inc()
