"""A client on the application with a worker beside it, and what tests of jobs ask of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.testclient import TestClient

from app.feedback.endpoints import router as feedback_router
from app.jobs.endpoints import router as jobs_router
from app.jobs.runner import Runner
from app.main import create_app
from app.settings import Settings
from app.upkeep.endpoints import router as upkeep_router
from app.upkeep.service import HANDLERS


@contextmanager
def working_client(settings: Settings) -> Iterator[TestClient]:
    """A client whose jobs are worked on."""
    app = create_app(settings)
    for router in (jobs_router, upkeep_router, feedback_router):
        app.include_router(router)
    with TestClient(app, raise_server_exceptions=False) as client:
        runner = Runner(app.state.core, HANDLERS)
        app.state.wake_jobs = runner.wake
        runner.start()
        try:
            yield client
        finally:
            runner.stop()


def finished(client: TestClient, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The result of a job that is expected to succeed."""
    answer = client.post(path, json=body or {}, params={"wait": 60})
    assert answer.status_code == 200, answer.text
    job = answer.json()
    assert job["state"] == "succeeded", job
    return job["result"]
