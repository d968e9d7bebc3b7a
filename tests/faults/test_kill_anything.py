"""kill -9 of server and worker at random moments of every kind of work, on both databases."""

import random
import threading
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from app.db.engine import Database
from app.db.tables import Base
from tests.faults.whole_service import PATIENCE_S, C, Load, Service, age, check, kill

JOB_KINDS = 5
ENOUGH_IMAGES = 60  # for every kind of job to have something to do, however few came in between the deaths
VICTIMS = (("start",), ("work",), ("start", "work"))


def kill_at_random_moments(data: Path, record_url: str, moments: int, seed: int) -> Load:
    chance = random.Random(seed)
    load = Load(seed)
    service = Service(data, record_url)
    record = Database(record_url)
    try:
        with service.started() as client:
            client.put(C).raise_for_status()
        for moment in range(moments):
            with service.started():
                pass
            before = len(load.batches)
            is_over = threading.Event()
            threads = load.run(service.url, is_over)
            while len(load.batches) < before + 2 and all(one.is_alive() for one in threads):
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.5))
            service.kill(*chance.choice(VICTIMS))
            is_over.set()
            for one in threads:
                one.join(PATIENCE_S)
                assert not one.is_alive()
            assert load.wrong == []
            service.kill("work")  # nothing may move while it is looked at
            age(data)
            with service.started("start") as client:
                check(client, load, record, anew=moment % 25 == 24)
        finish(service, load)
        service.kill("work")
        with service.started("start") as client:
            assert check(client, load, record, anew=True) >= sum(map(len, load.acknowledged)) > 0
    finally:
        record.close()
        service.close()
    return load


def finish(service: Service, load: Load) -> None:
    """Let the jobs come round once, undisturbed: what deaths have cut off goes on, and each kind is seen to end."""
    with service.started() as client:
        load.top_up(client, ENOUGH_IMAGES)
        until = load.jobs.turn + JOB_KINDS
        given_up = time.monotonic() + JOB_KINDS * PATIENCE_S
        while load.jobs.turn < until:
            load.jobs.step(client)
            assert time.monotonic() < given_up, f"the jobs do not end: {client.get('/v1/jobs').text}"
            time.sleep(0.1)  # the worker is at a lower priority than a server that is asked all the time


def test_three_deaths(tmp_path: Path, record_url: str) -> None:
    load = kill_at_random_moments(tmp_path / "data", record_url, 3, seed=1)
    assert {"snapshot", "restore", "clean", "compress", "compact"} <= set(load.jobs.done)


@pytest.mark.slow
def test_a_hundred_deaths(tmp_path: Path, record_url: str) -> None:
    load = kill_at_random_moments(tmp_path / "data", record_url, 100, seed=2)
    assert {"snapshot", "restore", "clean", "compress", "compact"} <= set(load.jobs.done)
    assert load.deleted


def kill_migrations(data: Path, record_url: str, moments: int, seed: int) -> None:
    """A migration that was killed has made every table or none, and the next one is not the worse for it."""
    chance = random.Random(seed)
    service = Service(data, record_url)
    record = Database(record_url)
    tables = set(Base.metadata.tables)
    try:
        longest = 0.05
        for _ in range(moments):
            (pid,) = service.fork("migrate")
            began = time.monotonic()
            time.sleep(chance.uniform(0, longest))
            kill(int(pid))
            with record.engine.connect() as connection:
                made = tables & set(inspect(connection).get_table_names())
            assert made in (set(), tables)
            if made:
                longest = max(0.01, 0.7 * (time.monotonic() - began))
                with record.engine.begin() as connection:
                    connection.exec_driver_sql("DROP TABLE alembic_version")
                    Base.metadata.drop_all(connection)
            else:
                longest *= 1.3
        record.migrate()
        with record.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []
    finally:
        record.close()
        service.close()


def test_a_migration_that_is_killed_has_done_all_or_nothing(tmp_path: Path, record_url: str) -> None:
    kill_migrations(tmp_path / "data", record_url, 3, seed=3)


@pytest.mark.slow
def test_many_migrations_that_are_killed(tmp_path: Path, record_url: str) -> None:
    kill_migrations(tmp_path / "data", record_url, 60, seed=4)
