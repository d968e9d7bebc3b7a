"""Threads that do one small thing again and again beside the work of a process."""

import logging
import threading
from abc import ABC, abstractmethod

from sqlalchemy.exc import SQLAlchemyError

from app.errors import ServiceError

log = logging.getLogger("oddity.periodic")


class Periodic(ABC):
    """Calls `turn` every so many seconds between `start` and `stop`; never where that is 0 or None.

    A record or a store that is away, and a collection that has just gone, are met again at the next turn.
    """

    name: str
    """Of the thread."""
    failing: str
    """What does not happen at the moment, when a turn fails."""
    ends_with_a_turn: bool = False
    """Whether `stop` takes one more turn, for what must not wait for the next start of the process."""

    def __init__(self, every_s: float | None) -> None:
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def turn(self) -> None:
        """Do it once; short, as `stop` waits for its end."""

    def start(self) -> None:
        """Begin, unless the settings say never."""
        if self._thread is None and self._every_s:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop after the current turn."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _work(self) -> None:
        while not self._stopping.wait(self._every_s):
            self._try()
        if self.ends_with_a_turn:
            self._try()

    def _try(self) -> None:
        try:
            self.turn()
        except (SQLAlchemyError, OSError, ServiceError) as error:
            log.warning("%s at the moment: %s", self.failing, type(error).__name__)
