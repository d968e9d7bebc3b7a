"""Image bytes in any store that fsspec reaches: S3, Google Cloud Storage, Azure, SFTP and others.

An object store takes an object as a whole and keeps it once it has said so. Elsewhere a file is written beside and
renamed; how durable it is then, is the other side's promise.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fsspec.core import url_to_fs

from app.errors import Busy
from app.storage import PART, Files, FolderFiles

log = logging.getLogger("oddity.storage")
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"})
TRIES = 4
PAUSE_S = 0.1  # before the second try; each further pause is four times as long
Value = TypeVar("Value")


class ImageStoreUnsupported(Exception):
    """The setting `image_store` names something that cannot be used here; the sentence says what to do."""


def open_files(url: str | None, options: dict[str, Any], part: str, folder: Path) -> Files:
    """The files of one part (`images`, `thumbnails`) below the URL, or below the folder where there is none.

    Raises ImageStoreUnsupported. Nothing is asked of the store yet.
    """
    if url is None:
        return FolderFiles(folder / part)
    protocol, separator, rest = url.partition("://")
    if not separator or protocol in ("file", "local"):
        return FolderFiles(Path(rest if separator else url) / part)
    return RemoteFiles(f"{url.rstrip('/')}/{part}", options)


class RemoteFiles:
    """Files below one URL: `<url>/ab/abcdef…`. What fails for a moment is tried again.

    Raises:
        Busy: the store cannot be reached, or refuses; from every method.
    """

    def __init__(self, url: str, options: dict[str, Any], pause_s: float = PAUSE_S) -> None:
        self._protocol = url.partition("://")[0]
        self._pause_s = pause_s
        try:
            # Another process may have written since: nothing that was listed once is believed again.
            self._system, root = url_to_fs(  # type: ignore[no-untyped-call]
                url, **{"use_listings_cache": False, **options}
            )
        except ImportError as error:
            raise ImageStoreUnsupported(
                f"`image_store` of kind {self._protocol}:// needs a package that is not installed: {error}."
            ) from error
        except (ValueError, TypeError) as error:  # may quote the URL, which may hold a password
            raise ImageStoreUnsupported(
                f"`image_store` or `image_store_options` cannot be used with {self._protocol}://: "
                f"{type(error).__name__}. The URL must begin with a protocol that fsspec knows, such as s3://."
            ) from None
        self._root = root.rstrip("/")

    def write(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Store each (name, bytes): several at a time where the store can."""
        wanted = {self._path(name): data for name, data in items}
        if not wanted:
            return
        if self._protocol in OBJECT_STORES:
            # Always, also what is there: it is the same, and its date is what keeps the collector away.
            self._patiently(lambda: self._system.pipe(wanted))
            return
        for path, data in wanted.items():
            self._patiently(partial(self._write_beside, path, data))

    def read(self, name: str) -> bytes:
        """The bytes of this name. Raises FileNotFoundError."""
        data: bytes = self._patiently(lambda: self._system.cat_file(self._path(name)), may_be_missing=True)
        return data

    def exists(self, name: str) -> bool:
        """Whether there are bytes of this name."""
        try:
            self._patiently(lambda: self._system.info(self._path(name)), may_be_missing=True)
        except FileNotFoundError:
            return False
        return True

    def names(self, start: str) -> Iterator[str]:
        """Every name that begins with these two digits."""
        return (name for name in self._listed(start) if not name.startswith("."))

    def changed_at(self, name: str) -> datetime | None:
        """When the bytes were last written, in UTC; None when there are none."""
        return self._changed_at(self._path(name))

    def remove(self, name: str) -> None:
        """Delete the bytes of this name, if there are any."""
        self._remove(self._path(name))

    def sweep(self, start: str, before: datetime) -> int:
        """How many unfinished files from before a moment were deleted; an object store has none."""
        old = [
            path
            for name in self._listed(start)
            if name.startswith(PART)
            and (changed_at := self._changed_at(path := f"{self._root}/{start}/{name}")) is not None
            and changed_at < before
        ]
        for path in old:
            self._remove(path)
        return len(old)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name[:2]}/{name}"

    def _listed(self, start: str) -> list[str]:
        try:
            found = self._patiently(lambda: self._system.ls(f"{self._root}/{start}", detail=False), may_be_missing=True)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def _changed_at(self, path: str) -> datetime | None:
        try:
            found: datetime = self._patiently(lambda: self._system.modified(path), may_be_missing=True)
        except FileNotFoundError:
            return None
        return found.astimezone(UTC).replace(tzinfo=None)

    def _remove(self, path: str) -> None:
        try:
            self._patiently(lambda: self._system.rm_file(path), may_be_missing=True)
        except FileNotFoundError:
            return

    def _write_beside(self, path: str, data: bytes) -> None:
        folder = path.rpartition("/")[0]
        self._system.makedirs(folder, exist_ok=True)
        part = f"{folder}/{PART}{secrets.token_hex(8)}"
        self._system.pipe_file(part, data)
        self._system.mv(part, path)

    def _patiently(self, work: Callable[[], Value], *, may_be_missing: bool = False) -> Value:
        """What the work returns, tried a few times. Each backend has failures of its own, so any counts as one."""
        for left in range(TRIES - 1, -1, -1):
            try:
                return work()
            except Exception as error:  # rule-skip: broad-except each backend raises classes that are its own
                if may_be_missing and isinstance(error, FileNotFoundError):
                    raise
                # Only the class: what backends say may hold URLs and keys.
                log.warning("the image store failed (%s); %s tries left", type(error).__name__, left)
                if not left or isinstance(error, PermissionError):
                    raise Busy(
                        "The image store cannot be reached or refuses; try again shortly.", "image_store_unavailable"
                    ) from None
            time.sleep(self._pause_s * 4 ** (TRIES - 1 - left))
        raise AssertionError("the last try returns or raises")
