"""The wall clock: UTC without a zone in the record, with `Z` in answers."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present moment in UTC, as the record stores it."""
    return datetime.now(UTC).replace(tzinfo=None)


def shown(moment: datetime) -> str:
    """A moment of the record as an answer shows it: RFC 3339 in UTC."""
    return moment.isoformat(timespec="milliseconds") + "Z"
