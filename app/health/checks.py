"""What must be right for requests to be served, each looked at within a few seconds, whatever hangs."""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from shutil import disk_usage

from sqlalchemy.exc import SQLAlchemyError

from app.core import Core
from models.errors import ModelsError

CHECK_S = 60.0  # loading weights on a busy machine takes its time; whoever asks may give up earlier
GLANCE_S = 3.0  # for a look beside others, such as a scrape
OK = "ok"


class Checks:
    """Looks at the record, the embedding, the disk and the worker; safe for threads.

    Each check has a thread of its own. One that does not come back in time is reported, and not begun a second time
    before it has ended.
    """

    def __init__(
        self,
        core: Core,
        worker: Callable[[], str | None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`worker` says what is wrong with the workers of this server, None where nothing is."""
        self._core = core
        self._monotonic = monotonic
        self._looks = {"record": self._record, "embedding": self._embedding, "disk": self._disk, "worker": worker}
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=f"check-{name}") for name in self._looks}
        self._running: dict[str, Future[str | None]] = {}
        self.is_ending = False

    def run(self, wait_s: float = CHECK_S) -> dict[str, str]:
        """For each check `ok`, or what is wrong; within `wait_s` for all together."""
        for name, look in self._looks.items():
            running = self._running.get(name)
            if running is None or running.done():
                self._running[name] = self._threads[name].submit(look)
        until = self._monotonic() + wait_s
        found = {name: self._outcome(self._running[name], until) for name in self._looks}
        return {"service": "is ending", **found} if self.is_ending else found

    def close(self) -> None:
        """Begin no more checks."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)

    def _outcome(self, running: "Future[str | None]", until: float) -> str:
        try:
            return running.result(max(0.0, until - self._monotonic())) or OK
        except TooSlow:
            return "no answer yet"

    def _record(self) -> str | None:
        try:
            known, found = self._core.database.revisions()
        except SQLAlchemyError as error:
            return type(error).__name__
        return None if known == found else f"is at revision {found}, and this version needs {known}"

    def _embedding(self) -> str | None:
        try:
            self._core.embedders.get_default()
        except ModelsError as error:
            return str(error)
        return None

    def _disk(self) -> str | None:
        data, reserve = self._core.settings.data, self._core.settings.disk_reserve_bytes
        try:
            with tempfile.TemporaryFile(dir=data) as file:
                file.write(b"ready")
            free = disk_usage(data).free
        except OSError as error:
            return f"the data folder cannot be written to: {error.strerror}"
        return None if free >= reserve else f"{free} bytes are free, fewer than {reserve}"
