"""Jobs: the row is the truth, a lease says who works on it, and an interrupted job is run again."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.collections import service as collections
from app.collections.repository import add_embedding, next_sequence
from app.collections.settings import CollectionSettings
from app.core import Core
from app.db.tables import CollectionRow
from app.errors import Conflict, NotFound
from app.jobs import endpoints, repository, service
from app.jobs.context import JobContext
from app.jobs.lanes import Lanes
from app.jobs.log import LINES_MAX, TEXT_MAX
from app.jobs.runner import ATTEMPTS_MAX, Handler, Runner
from app.main import close_core, create_app, open_core
from app.settings import Settings
from app.uploads import consumed
from tests.app.working import core_of

PATIENCE_S = 30.0  # until a test gives up on a thread; nothing waits this long when it works
Result = dict[str, Any]


class Wall:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Stopwatch:
    """A monotonic clock in the hands of a test."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def core(settings: Settings, wall: Wall) -> Iterator[Core]:
    core = open_core(settings, wall)
    yield core
    close_core(core)


def bare_collection(core: Core, name: str = "parts") -> int:
    """A collection as the record knows one, without a network behind it; returns its key."""
    with core.database.write() as session:
        now = core.clock()
        settings = CollectionSettings(backbone="resnet18", weights="none").model_dump(mode="json")
        row = CollectionRow(name=name, settings=settings, created_at=now, updated_at=now)
        session.add(row)
        session.flush()
        facts = {"specification": {}, "identity": {}, "fingerprint": "", "weights": "none", "width": 4}
        row.embedding_id = add_embedding(session, row.id, facts, now).id
        return row.id


def submit(core: Core, kind: str = "work", collection: str | None = None, **parameters: Any) -> str:
    job, _ = service.submit(core, kind, collection, parameters)
    return job["id"]


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread; fails when it does not come."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("waited in vain")


def answering(**result: Any) -> Handler:
    """A handler that has nothing to do."""

    def handler(core: Core, context: JobContext) -> Result:
        return result

    return handler


def noting(ids: list[str]) -> Handler:
    """A handler that notes which jobs it was given."""

    def handler(core: Core, context: JobContext) -> Result:
        ids.append(context.id)
        return {}

    return handler


class Held:
    """A handler that begins, says so, and goes on when it is let go; then it takes one more step."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.contexts: list[JobContext] = []

    def __call__(self, core: Core, context: JobContext) -> Result:
        self.contexts.append(context)
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)
        context.progress(1, 1)
        return {"by": "held"}


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_job_goes_from_queued_to_succeeded_with_its_result(core: Core) -> None:
    states: list[str] = []

    def work(core: Core, context: JobContext) -> Result:
        states.append(service.get_job(core, context.id)["state"])
        return {"doubled": context.parameters["number"] * 2, "kind": context.kind}

    job_id = submit(core, number=21)
    assert service.get_job(core, job_id)["state"] == "queued"
    assert Runner(core, {"work": work}).run_one()
    job = service.get_job(core, job_id)
    assert states == ["running"]
    assert job["state"] == "succeeded"
    assert job["result"] == {"doubled": 42, "kind": "work"}
    assert job["started_at"] is not None
    assert job["finished_at"] is not None


def test_jobs_are_begun_in_the_order_of_submission_and_only_by_who_can_do_them(core: Core, wall: Wall) -> None:
    done: list[str] = []
    ids = []
    for _ in range(4):
        ids.append(submit(core))
        wall.advance(0.001)
    other = submit(core, "other")
    runner = Runner(core, {"work": noting(done)})
    while runner.run_one():
        pass
    assert done == ids
    assert service.get_job(core, other)["state"] == "queued"


def test_a_worker_waits_for_the_lease_of_another_and_then_runs_the_job_again(core: Core, wall: Wall) -> None:
    held = Held()
    job_id = submit(core)
    lost = in_thread(lambda: Runner(core, {"work": held}, lease_s=30).run_one())
    assert held.begun.wait(PATIENCE_S)
    second = Runner(core, {"work": answering(by="second")}, lease_s=30)

    wall.advance(29)
    assert not second.run_one(), "the lease still runs"
    wall.advance(2)
    assert second.run_one()
    job = service.get_job(core, job_id)
    assert (job["state"], job["attempts"], job["result"]) == ("succeeded", 2, {"by": "second"})

    held.go_on.set()
    lost.join()
    assert service.get_job(core, job_id)["result"] == {"by": "second"}, "who lost the lease has no say"


def test_a_worker_that_lost_its_lease_has_no_say_while_the_next_one_works(core: Core, wall: Wall) -> None:
    first, second = Held(), Held()
    job_id = submit(core)
    lost = in_thread(lambda: Runner(core, {"work": first}).run_one())
    assert first.begun.wait(PATIENCE_S)
    wall.advance(31)
    holder = in_thread(lambda: Runner(core, {"work": second}).run_one())
    assert second.begun.wait(PATIENCE_S)
    first.go_on.set()
    lost.join()
    job = service.get_job(core, job_id)
    assert (job["state"], job["result"], job["attempts"]) == ("running", None, 2)
    second.go_on.set()
    holder.join()
    assert service.get_job(core, job_id)["state"] == "succeeded"


def test_a_worker_that_lost_its_lease_commits_nothing(core: Core, wall: Wall) -> None:
    collection_id = bare_collection(core)
    begun, go_on = threading.Event(), threading.Event()

    def note_in(core: Core, context: JobContext, word: str) -> Result:
        with core.database.write() as session:
            next_sequence(session, collection_id, core.clock())
            session.get_one(CollectionRow, collection_id).bank_note = {"word": word}
            session.flush()
            context.conclude(session, {"word": word})
        return {"word": "ignored, for the transaction has said it"}

    def late(core: Core, context: JobContext) -> Result:
        begun.set()
        assert go_on.wait(PATIENCE_S)
        return note_in(core, context, "late")

    job_id = submit(core, collection="parts")
    lost = in_thread(lambda: Runner(core, {"work": late}).run_one())
    assert begun.wait(PATIENCE_S)
    wall.advance(31)
    assert Runner(core, {"work": lambda core, context: note_in(core, context, "second")}).run_one()
    go_on.set()
    lost.join()
    assert service.get_job(core, job_id)["result"] == {"word": "second"}
    assert core.shelf.get("parts").bank_note == {"word": "second"}


def test_what_a_job_has_concluded_stands_whatever_happens_afterwards(core: Core) -> None:
    def work(core: Core, context: JobContext) -> Result:
        with core.database.write() as session:
            context.conclude(session, {"kept": True})
        raise RuntimeError("after the fact")

    job_id = submit(core)
    Runner(core, {"work": work}).run_one()
    job = service.get_job(core, job_id)
    assert (job["state"], job["result"], job["problem"]) == ("succeeded", {"kept": True}, None)


def test_a_silent_job_keeps_its_lease(core: Core, wall: Wall) -> None:
    held = Held()
    job_id = submit(core)
    busy = Runner(core, {"work": held}, lease_s=0.15, poll_s=0.01)
    busy.start()
    assert held.begun.wait(PATIENCE_S)
    other = Runner(core, {"work": answering(by="other")})
    for _ in range(3):
        wall.advance(1000)  # far beyond the lease; only a heartbeat can renew it
        beats = held.contexts[0]
        before = wall.now
        until(lambda: _lease_until(core, job_id) > before)  # noqa: B023 - called within the turn
        assert not other.run_one()
        assert not beats.is_concluded
    held.go_on.set()
    until(lambda: service.has_ended(service.get_job(core, job_id)))
    busy.stop()
    assert service.get_job(core, job_id)["result"] == {"by": "held"}


def test_waiting_for_other_writers_does_not_come_off_the_lease(core: Core, wall: Wall) -> None:
    job_id = submit(core)

    def wait(connection: Any) -> None:
        if connection.get_execution_options().get("oddity_writes"):
            wall.advance(25)

    event.listen(core.database.engine, "begin", wait)
    left: list[timedelta] = []

    def handler(core: Core, context: JobContext) -> Result:
        left.append(_lease_until(core, job_id) - wall.now)
        context.beat()
        left.append(_lease_until(core, job_id) - wall.now)
        return {}

    assert Runner(core, {"work": handler}).run_one()
    assert left == [timedelta(seconds=30), timedelta(seconds=30)]


def test_a_job_that_the_record_failed_is_run_again_and_keeps_its_upload(core: Core, wall: Wall, tmp_path: Path) -> None:
    job_id = submit(core)
    upload = tmp_path / "upload"
    upload.touch()
    failures = [NoConnection("none in time"), OperationalError("SELECT", {}, Exception("went away"))]

    def handler(core: Core, context: JobContext) -> Result:
        with consumed(tmp_path, {"name": "upload"}):
            if failures:
                raise failures.pop()
        return {"by": "the third try"}

    runner = Runner(core, {"work": handler})
    for kind in (OperationalError, NoConnection):
        with pytest.raises(kind):
            runner.run_one()
        assert service.get_job(core, job_id)["state"] == "running" and upload.exists()
        wall.advance(31)
    assert runner.run_one()
    assert service.get_job(core, job_id)["result"] == {"by": "the third try"}
    assert not upload.exists()


def test_a_worker_outlives_a_record_that_has_no_connection_free(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def none_free(*_: Any) -> bool:
        looked.set()
        raise NoConnection("none in time")

    runner = Runner(core, {"work": answering()}, poll_s=0.01)
    with monkeypatch.context() as patch:
        patch.setattr(repository, "is_work_waiting", none_free)
        runner.start()
        assert looked.wait(PATIENCE_S)
    job_id = submit(core)
    until(lambda: service.has_ended(service.get_job(core, job_id)))
    runner.stop()


def _lease_until(core: Core, job_id: str) -> datetime:
    with core.database.read() as session:
        row = repository.find(session, job_id)
        assert row is not None
        assert row.lease_until is not None
        return row.lease_until


def test_a_job_that_takes_its_worker_down_each_time_is_given_up(core: Core, wall: Wall) -> None:
    job_id = submit(core)
    threads = []
    helds = []
    for _ in range(ATTEMPTS_MAX):
        held = Held()
        threads.append(in_thread(lambda held=held: Runner(core, {"work": held}).run_one()))
        assert held.begun.wait(PATIENCE_S)
        assert service.get_job(core, job_id)["state"] == "running"
        helds.append(held)
        wall.advance(31)
    assert not Runner(core, {"work": answering()}).run_one()
    job = service.get_job(core, job_id)
    assert (job["state"], job["attempts"]) == ("failed", ATTEMPTS_MAX)
    assert job["problem"]["code"] == "job_given_up"
    for held, thread in zip(helds, threads, strict=True):
        held.go_on.set()
        thread.join()


def test_stopping_a_worker_puts_its_job_back(core: Core) -> None:
    held = Held()
    job_id = submit(core)
    first = Runner(core, {"work": held}, poll_s=0.01)
    first.start()
    assert held.begun.wait(PATIENCE_S)
    stopping = in_thread(first.stop)
    until(lambda: not stopping.is_alive() or first._stopping.is_set())
    held.go_on.set()
    stopping.join()
    assert service.get_job(core, job_id)["state"] == "queued"
    assert Runner(core, {"work": answering(by="next")}).run_one()
    job = service.get_job(core, job_id)
    assert (job["state"], job["attempts"], job["result"]) == ("succeeded", 1, {"by": "next"})


def test_cancelling_a_queued_job_ends_it_before_it_begins(core: Core) -> None:
    begun: list[str] = []
    job_id = submit(core)
    assert service.cancel(core, job_id)["state"] == "cancelled"
    assert service.cancel(core, job_id)["state"] == "cancelled", "asking twice is one asking"
    assert not Runner(core, {"work": noting(begun)}).run_one()
    assert begun == []


def test_cancelling_a_running_job_stops_it_at_its_next_step(core: Core) -> None:
    watch = Stopwatch()
    steps: list[int] = []

    def work(core: Core, context: JobContext) -> Result:
        for step in range(10):
            steps.append(step)
            if step == 3:
                assert service.cancel(core, context.id)["state"] == "running"
            watch.seconds += 1  # each step is written, and learns what was asked meanwhile
            context.progress(step, 10)
        return {}

    job_id = submit(core)
    Runner(core, {"work": work}, monotonic=watch).run_one()
    job = service.get_job(core, job_id)
    assert steps == [0, 1, 2, 3]
    assert (job["state"], job["result"]) == ("cancelled", None)


def test_a_cancelled_job_does_not_commit_its_result(core: Core) -> None:
    def work(core: Core, context: JobContext) -> Result:
        service.cancel(core, context.id)
        with core.database.write() as session:
            context.conclude(session, {"too": "late"})
        return {}

    job_id = submit(core)
    Runner(core, {"work": work}).run_one()
    job = service.get_job(core, job_id)
    assert (job["state"], job["result"]) == ("cancelled", None)


def test_a_job_that_has_ended_cannot_be_cancelled(core: Core) -> None:
    job_id = submit(core)
    Runner(core, {"work": answering()}).run_one()
    with pytest.raises(Conflict) as caught:
        service.cancel(core, job_id)
    assert caught.value.code == "job_ended"
    with pytest.raises(NotFound):
        service.cancel(core, "0" * 32)


def test_a_refused_job_says_why_and_a_broken_one_keeps_it_to_itself(core: Core) -> None:
    def refuse(core: Core, context: JobContext) -> Result:
        raise Conflict("The bank is busy being small.", "bank_small")

    def break_down(core: Core, context: JobContext) -> Result:
        raise RuntimeError("password: sesame")

    refused, broken = submit(core, "refuse"), submit(core, "break")
    runner = Runner(core, {"refuse": refuse, "break": break_down})
    assert runner.run_one()
    assert runner.run_one(), "a broken job does not end the worker"
    assert service.get_job(core, refused)["problem"] == {
        "code": "bank_small",
        "status": 409,
        "detail": "The bank is busy being small.",
    }
    problem = service.get_job(core, broken)["problem"]
    assert (problem["code"], problem["status"]) == ("internal", 500)
    assert "sesame" not in json.dumps(service.get_job(core, broken))


def test_progress_is_written_at_most_once_a_second(core: Core) -> None:
    watch = Stopwatch()
    seen: list[int] = []

    def work(core: Core, context: JobContext) -> Result:
        for step in range(30):
            context.progress(step, 30, "counting")
            seen.append(service.get_job(core, context.id)["progress"]["done"])
            watch.seconds += 0.1
        return {}

    job_id = submit(core)
    Runner(core, {"work": work}, monotonic=watch).run_one()
    assert len(set(seen)) in (3, 4), seen  # 3 s of work
    assert seen[-1] >= 19
    assert service.get_job(core, job_id)["progress"]["done"] == 29, "the end is written whatever the time"


def test_rate_and_remaining_time_are_counted_from_the_beginning_of_the_stage(core: Core, wall: Wall) -> None:
    watch = Stopwatch()
    shown: list[Result] = []

    def work(core: Core, context: JobContext) -> Result:
        context.progress(0, 7, "loading")
        wall.advance(100)
        context.progress(0, 40, "scoring")
        wall.advance(5)
        watch.seconds += 1
        context.progress(10, 40, "scoring")
        shown.append(service.get_job(core, context.id)["progress"])
        return {}

    submit(core)
    Runner(core, {"work": work}, monotonic=watch).run_one()
    assert shown == [{"stage": "scoring", "done": 10, "total": 40, "rate": 2.0, "remaining_s": 15.0}]


def lines(core: Core, job_id: str) -> list[str]:
    return [line["text"] for line in service.get_job(core, job_id)["log"]]


def test_the_log_of_a_job_says_what_happened_and_when(core: Core, wall: Wall) -> None:
    def work(core: Core, context: JobContext) -> Result:
        for done, stage in enumerate(("reading", "reading", "writing")):
            wall.advance(5)
            context.progress(done, 3, stage)
        context.note("one file was left out")
        return {}

    job_id = submit(core)
    assert lines(core, job_id) == []
    Runner(core, {"work": work}).run_one()
    log = service.get_job(core, job_id)["log"]
    assert [line["text"] for line in log] == ["begins", "reading", "writing", "one file was left out", "succeeded"]
    assert [line["at"][14:19] for line in log] == ["00:00", "00:05", "00:15", "00:15", "00:15"]


def test_the_log_tells_of_workers_that_went_and_of_what_a_job_failed_of(core: Core, wall: Wall) -> None:
    held = Held()
    job_id = submit(core)
    lost = in_thread(Runner(core, {"work": held}).run_one)
    assert held.begun.wait(PATIENCE_S)
    wall.advance(31)

    def refuse(core: Core, context: JobContext) -> Result:
        raise Conflict("There is nothing to do.")

    Runner(core, {"work": refuse}).run_one()
    held.go_on.set()
    lost.join()
    told = ["begins", "its worker has not been heard of", "begins, attempt 2", "There is nothing to do.", "failed"]
    assert lines(core, job_id) == told


def test_a_cancelled_end_is_no_success_in_the_log(core: Core) -> None:
    def work(core: Core, context: JobContext) -> Result:
        service.cancel(core, context.id)
        with core.database.write() as session:
            context.conclude(session, {})
        return {}

    job_id, waiting = submit(core), submit(core, "nobody does this")
    Runner(core, {"work": work}).run_one()
    service.cancel(core, waiting)
    assert (lines(core, job_id), lines(core, waiting)) == (["begins", "cancelled"], ["cancelled"])


def test_a_log_keeps_its_newest_lines(core: Core) -> None:
    def work(core: Core, context: JobContext) -> Result:
        for number in range(3 * LINES_MAX):
            context.note(f"{number} " + "x" * 2 * TEXT_MAX)
        return {}

    job_id = submit(core)
    Runner(core, {"work": work}).run_one()
    found = lines(core, job_id)
    assert len(found) == LINES_MAX and max(map(len, found)) == TEXT_MAX and found[-2].startswith("299 ")


def test_deleting_a_collection_ends_its_jobs_and_not_the_worker(core: Core) -> None:
    watch = Stopwatch()
    bare_collection(core)

    def work(core: Core, context: JobContext) -> Result:
        assert context.collection == "parts"
        collections.delete_collection(core, "parts", None)
        watch.seconds += 1
        context.progress(1, 2)
        pytest.fail("a job without a row must stop")

    job_id = submit(core, collection="parts")
    runner = Runner(core, {"work": work, "other": answering()}, monotonic=watch)
    assert runner.run_one()
    with pytest.raises(NotFound):
        service.get_job(core, job_id)
    other = submit(core, "other")
    assert runner.run_one()
    assert service.get_job(core, other)["state"] == "succeeded"


def test_a_worker_wakes_for_a_new_job(core: Core) -> None:
    runner = Runner(core, {"work": answering()}, poll_s=10 * PATIENCE_S)
    runner.start()
    first = submit(core)
    runner.wake()
    until(lambda: service.has_ended(service.get_job(core, first)))
    second = submit(core)
    runner.wake()
    until(lambda: service.has_ended(service.get_job(core, second)))
    runner.stop()


def test_an_idle_worker_rests(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[datetime] = []
    look = repository.is_work_waiting

    def counted(session: Session, kinds: Collection[str], now: datetime) -> bool:
        if now == core.clock():  # other applications of this process have clocks of their own
            looks.append(now)
        return look(session, kinds, now)

    monkeypatch.setattr(repository, "is_work_waiting", counted)
    runner = Runner(core, {"work": answering()}, poll_s=10 * PATIENCE_S)
    runner.start()
    until(lambda: len(looks) == 1)
    runner.wake()
    until(lambda: len(looks) >= 2)
    threading.Event().wait(0.2)
    assert len(looks) == 2, "woken once, it looks once"
    runner.stop()


def test_a_worker_finds_a_job_that_nobody_woke_it_for(core: Core) -> None:
    runner = Runner(core, {"work": answering()}, poll_s=0.02)
    runner.start()
    job_id = submit(core)
    until(lambda: service.has_ended(service.get_job(core, job_id)))
    runner.stop()


def test_a_quick_job_does_not_wait_for_a_long_one(core: Core) -> None:
    long, quick = Held(), Held()
    lanes = Lanes(core, {"import": long, "calibrate": quick})
    lanes.start()
    first, second = submit(core, "import"), submit(core, "import")
    lanes.wake()
    assert long.begun.wait(PATIENCE_S)
    third = submit(core, "calibrate")
    lanes.wake()
    assert quick.begun.wait(PATIENCE_S)
    states = [service.get_job(core, one)["state"] for one in (third, first, second)]
    assert (states[0], sorted(states[1:])) == ("running", ["queued", "running"]), "and one long job waits for another"
    for held in (long, quick):
        held.go_on.set()
    until(lambda: all(service.has_ended(service.get_job(core, one)) for one in (first, second, third)))
    assert lanes.stop()


def test_as_many_long_jobs_run_at_a_time_as_there_are_workers(core: Core) -> None:
    held = Held()
    lanes = Lanes(core, {"import": held}, workers=2)
    ids = [submit(core, "import") for _ in range(3)]
    lanes.start()
    until(lambda: len(held.contexts) == 2)
    assert sorted(service.get_job(core, one)["state"] for one in ids) == ["queued", "running", "running"]
    stopping = in_thread(lanes.stop)
    held.go_on.set()
    stopping.join()
    assert {service.get_job(core, one)["state"] for one in ids} <= {"queued", "succeeded"}


KILLED = """
import sys, time
from pathlib import Path
from app.collections.repository import add_embedding, next_sequence
from app.collections.settings import CollectionSettings
from app.db.tables import CollectionRow
from app.jobs.runner import Runner
from app.main import open_core
from app.settings import Settings

def work(core, context):
    with core.database.write() as session:
        next_sequence(session, context.collection_id, core.clock())
        session.get_one(CollectionRow, context.collection_id).bank_note = {"half": "done"}
        session.flush()
        print("in the middle", flush=True)
        time.sleep(600)

core = open_core(Settings(data=Path(sys.argv[1]), weights="stand-in", image_size=32, threads=1))
Runner(core, {"work": work}, lease_s=0.5).run_one()
"""


def test_a_job_killed_in_the_middle_of_its_changes_has_changed_nothing_and_is_run_again(settings: Settings) -> None:
    core = open_core(settings)
    bare_collection(core)
    job_id = submit(core, collection="parts")
    command = [sys.executable, "-c", KILLED, str(settings.data)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "in the middle\n"
        os.kill(worker.pid, signal.SIGKILL)
    assert service.get_job(core, job_id)["state"] == "running", "nobody was left to say otherwise"
    assert core.shelf.get("parts").bank_note is None
    runner = Runner(core, {"work": answering(again=True)})
    until(runner.run_one)
    job = service.get_job(core, job_id)
    assert (job["state"], job["attempts"], job["result"]) == ("succeeded", 2, {"again": True})
    close_core(core)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data=tmp_path_factory.mktemp("data"), weights="stand-in", image_size=32, threads=2)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        client.put("/v1/collections/parts").raise_for_status()
        yield client


def test_a_submission_answers_202_with_where_to_look(client: TestClient) -> None:
    answer = client.post("/v1/collections/parts/calibrate")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["collection"]) == ("calibrate", "parts")
    until(lambda: client.get(answer.headers["location"]).json()["state"] == "succeeded")


def test_a_submission_can_wait_for_the_end(client: TestClient) -> None:
    answer = client.post("/v1/collections/parts/calibrate", params={"wait": 30})
    assert answer.status_code == 200
    assert answer.json()["state"] == "succeeded"
    assert answer.json()["result"]["n"] == 0
    assert client.post("/v1/collections/parts/calibrate", params={"wait": 61}).status_code == 422


def test_a_repeat_under_one_key_gets_the_same_job(client: TestClient) -> None:
    key = {"Idempotency-Key": "one"}
    client.put("/v1/collections/keyed").raise_for_status()
    first = client.post("/v1/collections/keyed/calibrate", json={"k": 3}, headers=key, params={"wait": 30})
    again = client.post("/v1/collections/keyed/calibrate", json={"k": 3}, headers=key)
    assert again.json() == first.json(), "as the job stands now, not as it was queued"
    assert again.headers["idempotent-replayed"] == "true"
    assert len(client.get("/v1/jobs", params={"collection": "keyed"}).json()["jobs"]) == 1
    other = client.post("/v1/collections/keyed/calibrate", json={"k": 4}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    client.post("/v1/collections/keyed/calibrate", json={"k": 3}, params={"wait": 30})
    assert len(client.get("/v1/jobs", params={"collection": "keyed"}).json()["jobs"]) == 2, (
        "without a key each submission is a job"
    )


def test_jobs_are_listed_newest_first_in_pages(client: TestClient) -> None:
    for name in ("these", "those"):
        client.put(f"/v1/collections/{name}").raise_for_status()
    made = [
        client.post(f"/v1/collections/{name}/calibrate", params={"wait": 30}).json()["id"]
        for name in ("these", "those", "these", "these")
    ]
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = client.get("/v1/jobs", params={"limit": 2, "cursor": cursor}).json()
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        cursor = page["next"]
    assert [job_id for job_id in seen if job_id in made] == made[::-1]
    assert len(set(seen)) == len(seen)

    def ids(**parameters: str) -> list[str]:
        return [job["id"] for job in client.get("/v1/jobs", params=parameters).json()["jobs"]]

    assert ids(collection="those") == [made[1]]
    assert ids(state="failed", collection="these") == []
    assert ids(state="succeeded", collection="these") == [made[3], made[2], made[0]]
    assert ids(kind="clean", collection="these") == []
    assert client.get("/v1/jobs", params={"collection": "nowhere"}).status_code == 404


def test_events_tell_the_progress_and_end_with_the_job(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "EVENT_EVERY_S", 0.01)
    core = core_of(client)
    ticks = Stopwatch()

    def work(core: Core, context: JobContext) -> Result:
        for step in range(3):
            ticks.seconds += 1
            context.progress(step, 3, f"stage {step}")
            threading.Event().wait(0.3)
        return {"steps": 3}

    job_id = submit(core, "slow", "parts")
    runner = Runner(core, {"slow": work}, monotonic=ticks)
    worker = in_thread(runner.run_one)
    answer = client.get(f"/v1/jobs/{job_id}/events")
    worker.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [
        (lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: ")))
        for block in answer.text.strip().split("\n\n")
        if not block.startswith(":") and (lines := block.split("\n"))
    ]
    assert [kind for kind, _ in events[-2:]] == ["progress", "end"]
    assert events[-1][1]["result"] == {"steps": 3}
    stages = [job["progress"]["stage"] for kind, job in events if kind == "progress" and job["progress"]["stage"]]
    assert stages == sorted(set(stages)), "no event without news"
    assert "stage 1" in stages
    assert client.get(f"/v1/jobs/{'0' * 32}/events").json()["code"] == "job_unknown"


def test_events_go_on_when_the_record_was_away(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "EVENT_EVERY_S", 0.01)
    core = core_of(client)
    job_id = submit(core, "nobody does this either", "parts")
    get_job, looks = service.get_job, count()

    def away(*given: Any) -> Result:
        look = next(looks)
        if look in (1, 2):
            raise OperationalError("SELECT", {}, Exception("away")) if look == 1 else NoConnection("none is free")
        if look == 3:
            service.cancel(core, job_id)
        return get_job(*given)

    monkeypatch.setattr(service, "get_job", away)
    assert "event: end" in client.get(f"/v1/jobs/{job_id}/events").text


def test_cancelling_over_http(client: TestClient) -> None:
    job_id = submit(core_of(client), "nobody does this", "parts")
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    done = client.post("/v1/collections/parts/calibrate", params={"wait": 30}).json()["id"]
    answer = client.post(f"/v1/jobs/{done}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_ended")
    assert client.post(f"/v1/jobs/{'0' * 32}/cancel").status_code == 404
