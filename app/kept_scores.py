"""Scores of stored images by one fit. Neither changes, so a score that is known stays right."""

import threading

MOST = 20_000  # of one fit: some 4 MB

Key = tuple[int, str]
"""The number of an image's row, and the sha256 of its bytes."""


class KeptScores:
    """Safe for threads; the oldest make room for the newest."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[Key, float] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> float | None:
        """The score of an image; None when it is not known."""
        with self._lock:
            return self._kept.get(key)

    def keep(self, key: Key, score: float) -> None:
        """Remember a score."""
        with self._lock:
            self._kept[key] = score
            if len(self._kept) > self._most:
                self._kept.pop(next(iter(self._kept)))
