"""What can be asked of the service as a whole: collections by name, methods, jobs, whether it is well."""

from time import monotonic
from typing import Any

from oddity_client.answers import Backbone, CollectionRecord, Job, JobState, Method, Readiness
from oddity_client.calls import (
    Call,
    Listen,
    Out,
    Pause,
    Plan,
    listed,
    operation,
    page_of,
    pages,
    reading,
    segment,
    streamed,
)
from oddity_client.errors import WaitedTooLong

LONGEST_LOOK_S = 5.0
FIRST_LOOK_S = 0.5


class ServiceOperations:
    """Each method is one path of the service; see its `/docs` for what the parameters mean."""

    @operation
    def alive(self) -> Call[Any]:
        """Whether the process answers; raises Unreachable if not."""
        return Call("GET", "/healthz", dict)

    @operation
    def ready(self) -> Call[Readiness]:
        """Whether requests would be served; Busy when not."""
        return Call("GET", "/readyz", reading(Readiness))

    @operation
    def openapi(self) -> Call[dict[str, Any]]:
        """The interface as it describes itself."""
        return Call("GET", "/openapi.json", dict)

    @streamed
    def collections(self, *, page: int = 100) -> Plan[CollectionRecord]:
        """Every collection, in order of name."""
        call = Call("GET", "/v1/collections", page_of(CollectionRecord, "collections"), query={"limit": page})
        return pages(call)

    @operation
    def methods(self) -> Call[list[Method]]:
        """The cards of the methods that are installed."""
        return Call("GET", "/v1/scorers", listed(Method, "scorers"))

    @operation
    def method(self, name: str) -> Call[Method]:
        """The card of one method."""
        return Call("GET", f"/v1/scorers/{segment(name)}", reading(Method))

    @operation
    def backbones(self) -> Call[list[Backbone]]:
        """The networks that can be built, with the cards of their weights."""
        return Call("GET", "/v1/backbones", listed(Backbone, "backbones"))

    @streamed
    def jobs(
        self,
        *,
        collection: str | None = None,
        state: JobState | None = None,
        kind: str | None = None,
        page: int = 100,
    ) -> Plan[Job]:
        """Jobs, newest first."""
        query = {"collection": collection, "state": state, "kind": kind, "limit": page}
        return pages(Call("GET", "/v1/jobs", page_of(Job, "jobs"), query=query))

    @operation
    def job(self, job: str) -> Call[Job]:
        """One job as it stands."""
        return _job(job)

    @operation
    def cancel(self, job: str) -> Call[Job]:
        """Ask for the end of a job."""
        return Call("POST", f"/v1/jobs/{segment(job)}/cancel", reading(Job))

    @streamed
    def follow(self, job: Job | str, *, every_s: float = 0.2, timeout_s: float | None = None) -> Plan[Job]:
        """The job at each look until it has ended, which is the last; raises WaitedTooLong, never JobFailed.

        Looks are `every_s` apart at first and grow rarer, up to 5 s.
        """
        return _following(job, every_s, timeout_s)

    @streamed
    def events(self, job: Job | str) -> Plan[Job]:
        """The job at each change until it has ended, which is the last; as the service tells it.

        Where the connection breaks the job is looked at, and listened to again.
        """
        return _listening(job.id if isinstance(job, Job) else job)


def _job(job: str) -> Call[Job]:
    return Call("GET", f"/v1/jobs/{segment(job)}", reading(Job))


def _listening(job: str) -> Plan[Job]:
    while True:
        last: Job | None = yield Listen(Call("GET", f"/v1/jobs/{segment(job)}/events", reading(Job)))
        if last is not None and last.has_ended:
            return
        current: Job = yield _job(job)
        if current.has_ended:
            yield Out(current)
            return
        yield Pause(FIRST_LOOK_S)


def _following(job: Job | str, every_s: float, timeout_s: float | None) -> Plan[Job]:
    started = monotonic()
    pause = every_s
    current: Job = job if isinstance(job, Job) else (yield _job(job))
    while True:
        yield Out(current)
        if current.has_ended:
            return
        spent = monotonic() - started
        if timeout_s is not None and spent >= timeout_s:
            raise WaitedTooLong(current, timeout_s)
        yield Pause(pause if timeout_s is None else min(pause, timeout_s - spent))
        pause = min(pause * 1.2, max(LONGEST_LOOK_S, every_s))
        current = yield _job(current.id)
