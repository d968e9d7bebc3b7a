"""Counted p-values in the record, on both databases: what servers add, and what goes with a collection or with time."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.clock import utc_now
from app.core import Core
from app.db.tables import CollectionRow
from app.drift import repository
from app.drift.counting import PValueCounts, hour_of
from app.drift.watch import DriftWatch
from models.drift import Counted, nothing_counted
from tests.record.conftest import OpenCore

NOW = datetime(2026, 3, 1, 12, 30)


def make(core: Core, name: str = "c") -> int:
    """A new collection's id."""
    with core.database.write() as session:
        row = CollectionRow(name=name, settings={}, created_at=utc_now(), updated_at=utc_now())
        session.add(row)
        session.flush()
        return row.id


def at(core: Core, moment: datetime) -> Core:
    """The same parts at a moment, with counts of their own."""
    return dataclasses.replace(core, clock=lambda: moment, p_values=PValueCounts(lambda: moment))


def kept(core: Core, collection_id: int, scorer: str = "dn2") -> Counted:
    """All that is in the record."""
    with core.database.read() as session:
        found = repository.hours(session, collection_id, scorer, datetime(2000, 1, 1), datetime(2100, 1, 1))
    return sum((one for _, one in found), nothing_counted())


def test_servers_add_to_the_same_hour_at_the_same_time(core: Core, open_another: OpenCore) -> None:
    number = make(core)
    servers = [at(one, NOW) for one in (core, open_another(), open_another())]

    def answer(server: Core) -> None:
        for turn in range(15):
            server.p_values.note(number, "dn2" if turn % 3 else "other", [0.5, 0.02], 99)
            server.p_values.flush(server.database)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(answer, servers))
    assert (kept(core, number).n, kept(core, number, "other").n) == (3 * 10 * 2, 3 * 5 * 2)
    assert kept(core, number).expected[-1] == pytest.approx(60)
    with core.database.read() as session:
        assert list(repository.scorers(session, number)) == ["dn2", "other"]


def test_a_collection_that_is_gone_takes_its_counts_along(core: Core) -> None:
    number, other = make(core), make(core, "other")
    here = at(core, NOW)
    here.p_values.note(number, "dn2", [0.5], 99)
    here.p_values.flush(here.database)
    here.p_values.note(number, "dn2", [0.5], 99)
    here.p_values.note(other, "dn2", [0.5], 99)
    with core.database.write() as session:
        session.execute(delete(CollectionRow).where(CollectionRow.id == number))
    here.p_values.flush(here.database)
    assert (kept(core, number).n, kept(core, other).n) == (0, 1)


def test_old_counts_go_new_ones_stay(core: Core) -> None:
    number = make(core)
    for moment in (NOW, NOW + timedelta(days=59), NOW + timedelta(days=70)):
        watch = DriftWatch(at(core, moment))
        watch._core.p_values.note(number, "dn2", [0.5], 99)
        watch.turn()
    with core.database.read() as session:
        hours = repository.hours(session, number, "dn2", NOW - timedelta(days=1), NOW + timedelta(days=99))
    assert [moment for moment, _ in hours] == [hour_of(NOW + timedelta(days=days)) for days in (59, 70)]


def test_what_cannot_be_written_waits(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    number = make(core)
    here = at(core, NOW)
    here.p_values.note(number, "dn2", [0.5], 99)

    def away(*_given: object) -> None:
        raise OperationalError("INSERT", {}, Exception("gone"))

    with monkeypatch.context() as patch:
        patch.setattr(Session, "execute", away)
        with pytest.raises(OperationalError):
            here.p_values.flush(here.database)
    here.p_values.note(number, "dn2", [0.5], 49)
    here.p_values.flush(here.database)
    assert (kept(core, number).n, kept(core, number).calibration_n) == (2, 49)


def test_what_a_closing_server_has_counted_is_written(core: Core) -> None:
    number = make(core)
    watch = DriftWatch(core)
    watch.start()
    core.p_values.note(number, "dn2", [0.5], 99)
    watch.stop()
    assert kept(core, number).n == 1
