"""When a request is sent again, and after what pause. Nothing here sends: a transport does, and tells what came."""

import email.utils
import random
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from oddity_client.calls import Call, Pause
from oddity_client.errors import NotOddity, OddityError, Unreachable, refusal

T = TypeVar("T")

FROM_PROXY = (502, 504)  # a proxy's own word for no answer: the server behind it has just gone, or hangs


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came: JSON (None when it is none), bytes, or what was written to a file."""

    status: int
    body: Any
    retry_after: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether it is 2xx."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer: nobody listens there, or the connection broke or took too long."""

    reason: str


@dataclass(frozen=True)
class Retries:
    """How often and how patiently a request is sent again.

    A request is sent again when no answer came (a proxy says 502 or 504 then), and when the answer is 429, 503, or 409
    `idempotency_running`: the service is still at work on the same request, whose connection broke. Every request of
    this client may be repeated:
    reads and deletions by nature, writes of images by their ids, and other writes because each carries an
    Idempotency-Key of its own, the same for all its tries.

    Pauses double from `first_pause_s` to `longest_pause_s`, less up to half by chance, so that clients that were
    refused together do not come back together. `Retry-After` is never undercut; one beyond `longest_pause_s` is not
    waited for.
    """

    tries: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0
    chance: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    def pause_s(self, attempt: int, asked: float | None) -> float | None:
        """Seconds before attempt + 1, the first attempt being 1; None when it is not to be made."""
        if attempt >= self.tries or (asked is not None and asked > self.longest_pause_s):
            return None
        longest = min(self.first_pause_s * 2.0 ** (attempt - 1), self.longest_pause_s)
        return max(longest * (1.0 - 0.5 * self.chance.random()), asked or 0.0)


def exchange(call: Call[T], retries: Retries, where: str) -> Generator[Call[T] | Pause, Reply | Lost | None, T]:
    """What the call reads from its answer; yields the call for each attempt, and the pauses between.

    Raises Unreachable, NotOddity, Refused.
    """
    attempt = 0
    while True:
        attempt += 1
        came = yield call
        if isinstance(came, Reply) and came.is_success:
            return _read(call, came, where)
        if isinstance(came, Reply) and came.status == 404 and call.absent is not None:
            return call.absent()
        pause = retries.pause_s(attempt, _asked(came)) if _is_momentary(came) else None
        if pause is None:
            raise failure(came, where)
        yield Pause(pause)


def _is_momentary(came: Reply | Lost | None) -> bool:
    if not isinstance(came, Reply):
        return True
    is_running = came.status == 409 and isinstance(came.body, dict) and came.body.get("code") == "idempotency_running"
    return came.status in (429, 503, *FROM_PROXY) or is_running


def _asked(came: Reply | Lost | None) -> float | None:
    """Seconds that the service asks to wait: a number, or a date."""
    told = came.retry_after if isinstance(came, Reply) else None
    if told is None:
        return None
    if told.strip().isdigit():
        return float(told)
    try:
        moment = email.utils.parsedate_to_datetime(told)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - time.time())


def _read(call: Call[T], came: Reply, where: str) -> T:
    try:
        return call.read(came.body)
    except (ValueError, LookupError, TypeError) as error:
        raise NotOddity(f"{where} does not answer {call.method} {call.path} like Oddity: {error}") from error


def failure(came: Reply | Lost | None, where: str) -> OddityError:
    """What is raised for an answer that is no success, or for none."""
    if isinstance(came, Reply):
        if came.status in FROM_PROXY:
            return Unreachable(f"No answer from {where}: a proxy before it says {came.status}.")
        if isinstance(came.body, dict):
            return refusal(came.status, came.body)
        return NotOddity(f"{where} does not answer like Oddity (status {came.status}, no JSON).")
    return Unreachable(f"No answer from {where}: {came.reason if came else 'nothing came'}.")
