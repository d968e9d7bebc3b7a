"""What every source of an import gives, and the rules for names, whatever the source."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from app.errors import Invalid, ServiceError, TooLarge, item_problem

ITEMS_NAME = "metadata.jsonl"
ITEMS_LIMIT_BYTES = 64 * 2**20
NAME_LIMIT = 1024
CHUNK_BYTES = 2**18
_DRIVE = re.compile(r"[A-Za-z]:")
_ARCHIVES = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What an import may read at most."""

    file_bytes: int
    unpacked_bytes: int
    ratio: float
    entries: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source: its bytes, or why it is refused, or neither when it is none of ours."""

    place: list[Any]  # JSON; later entries have a larger one
    name: str
    data: bytes | None = None
    problem: dict[str, Any] | None = None


class Source(Protocol):
    """Files in an order that does not change."""

    def scan(self, check: Callable[[], None]) -> tuple[int, bytes | None]:
        """How many entries there are, and the bytes of the items file, if there is one. Calls `check` now and then.

        Raises Invalid, TooLarge when nothing of the source should be imported.
        """

    def entries(self, after: list[Any] | None, seen: Callable[[str], None]) -> Iterator[Entry]:
        """The entries behind a place, in order; `seen` is told every name, those before the place too."""


def plain_name(raw: str) -> str:
    """The name of a file relative to its source, with `/` and without what stands for nothing.

    Bytes that are not UTF-8 are shown as the replacement character. Raises Invalid for a path that would lead out.
    """
    text = raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    parts = text.replace("\\", "/").split("/")
    if "\0" in text or len(text) > NAME_LIMIT:
        raise Invalid(f"The name must have at most {NAME_LIMIT} characters and no zero byte.", "path_refused")
    if parts[0] == "" or _DRIVE.match(text) or ".." in parts:
        raise Invalid("The path must be relative and stay below its folder.", "path_refused")
    return "/".join(part for part in parts if part not in ("", "."))


def shown_name(raw: str) -> str:
    """A name for a report, whatever it holds."""
    return raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "\ufffd")[:NAME_LIMIT]


def refused(place: list[Any], raw: str, error: ServiceError) -> Entry:
    """An entry that is not taken, and why."""
    return Entry(place, shown_name(raw), problem=item_problem(error))


def too_large(size: int, limits: Limits) -> TooLarge:
    """Why a file of this size is not read."""
    return TooLarge(f"An image must have at most {limits.file_bytes} bytes; got {size}.", "image_too_large")


def refuse_archive(data: bytes) -> None:
    """Raise Invalid when these bytes are an archive: it is reported, never opened."""
    for start, kind in _ARCHIVES.items():
        if data.startswith(start):
            raise Invalid(f"An archive within ({kind}) is not opened; import it by itself.", "archive_nested")
    if data[257:262] == b"ustar":
        raise Invalid("An archive within (tar) is not opened; import it by itself.", "archive_nested")
