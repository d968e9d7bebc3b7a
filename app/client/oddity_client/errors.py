"""What can go wrong, seen from the caller.

OddityError
├── Unreachable         no answer came, or the connection broke, and the tries are used up
├── NotOddity           something answers there, but not this service
├── Refused             the service answered with a problem; `status` and `code` are those of its problem+json
│   ├── NotAllowed      401, 403: no key, a wrong one, or one that may not do this
│   ├── NotFound        404
│   ├── Conflict        409: it contradicts what is stored
│   ├── TooLarge        413
│   ├── Invalid         422: a parameter or the body is wrong; `faults` says where
│   └── Busy            429, 503: and it stayed so for all tries
├── JobFailed           a job that was waited for failed or was cancelled; `job` is how it ended
└── WaitedTooLong       the time given to wait for a job is over; the job goes on
"""

from typing import Any

from oddity_client.answers import Job


class OddityError(Exception):
    """Anything this client raises about the service."""


class Unreachable(OddityError):
    """No answer came, or the connection broke, and the tries are used up."""


class NotOddity(OddityError):
    """What answered is not this service."""


class Refused(OddityError):
    """The service answered with an error; its sentence is the message."""

    def __init__(self, status: int, code: str, detail: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.problem = problem or {}  # the whole of the problem+json

    @property
    def faults(self) -> list[dict[str, str]]:
        """Where and what, for each parameter that is wrong."""
        errors: list[dict[str, str]] = self.problem.get("errors") or []
        return errors


class NotAllowed(Refused):
    """There is no key, it is wrong, or it may not do this."""


class NotFound(Refused):
    """The thing that was named does not exist."""


class Conflict(Refused):
    """The request contradicts what is stored."""


class TooLarge(Refused):
    """The body, or a part of it, is over a limit of the service."""


class Invalid(Refused):
    """A parameter or the body is malformed or out of range."""


class Busy(Refused):
    """The service had no room for the request, at each of the tries."""


class JobFailed(OddityError):
    """A job that was waited for failed or was cancelled."""

    def __init__(self, job: Job) -> None:
        told = None if job.problem is None else job.problem.detail
        super().__init__(told or f"Job {job.id} ({job.kind}) was {job.state}.")
        self.job = job


class WaitedTooLong(OddityError):
    """The time given to wait for a job is over; the job itself goes on."""

    def __init__(self, job: Job, seconds: float) -> None:
        super().__init__(f"Job {job.id} ({job.kind}) is still {job.state} after {seconds:g} s; it goes on.")
        self.job = job


BY_STATUS: dict[int, type[Refused]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    422: Invalid,
    429: Busy,
    503: Busy,
}


def refusal(status: int, problem: dict[str, Any]) -> Refused:
    """The error for an answer that is not 2xx."""
    detail = str(problem.get("detail") or f"The service answered with status {status}.")
    return BY_STATUS.get(status, Refused)(status, str(problem.get("code", "unknown")), detail, problem)
