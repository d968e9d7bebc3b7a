"""Deletions are dropped from the record after a while, and whoever had not heard of them reads afresh."""

from datetime import timedelta

from sqlalchemy import func, select, update

from app.clock import utc_now
from app.collecting import repository
from app.core import Core
from app.db.tables import CollectionRow, DeletionRow
from app.images import service as images
from app.images.schemas import Selection
from tests.record.conftest import OpenCore
from tests.record.test_following import filled

LATER = timedelta(days=1)


def delete(core: Core, *numbers: int) -> None:
    images.delete_images(core, "c", Selection(ids=[f"c-{number}" for number in numbers]))


def prune(core: Core, collection_id: int, *, age: timedelta = -LATER, limit: int = 1000) -> int:
    with core.database.write() as session:
        return repository.prune_deletions(session, collection_id, utc_now() - age, limit)


def kept(core: Core) -> int:
    with core.database.read() as session:
        return session.scalar(select(func.count()).select_from(DeletionRow)) or 0


def test_a_follower_that_is_behind_reads_afresh_and_one_that_is_not_goes_on(core: Core, open_another: OpenCore) -> None:
    number = filled(core, "c", 30)
    behind, abreast = open_another(), open_another()
    old = behind.shelf.get("c")
    delete(core, 1, 2)
    known = abreast.shelf.get("c")
    assert prune(core, number) == 2
    delete(core, 3)
    assert abreast.shelf.get("c") is known
    fresh = behind.shelf.get("c")
    assert fresh is not old
    for state in (fresh, known, core.shelf.get("c")):
        assert sorted(one.image_id for one in state.entries.values()) == sorted(
            f"c-{n}" for n in range(30) if n not in (1, 2, 3)
        )
        assert len(state.dn2.bank) == 27


def test_without_the_mark_a_follower_would_keep_what_is_gone(core: Core, open_another: OpenCore) -> None:
    """The negative control: what the mark is for."""
    number = filled(core, "c", 30)
    behind = open_another()
    behind.shelf.get("c")
    delete(core, 1)
    prune(core, number)
    with core.database.write() as session:
        session.execute(update(CollectionRow).values(pruned_sequence=0))
    assert behind.shelf.get("c").entries.find("c-1") is not None


def test_young_deletions_stay_and_many_go_in_steps(core: Core) -> None:
    number = filled(core, "c", 40)
    delete(core, 1, 2, 3)
    for single in range(10, 20):
        delete(core, single)
    assert prune(core, number, age=LATER) == 0
    with core.database.read() as session:
        assert repository.collections_with_deletions(session, utc_now() - LATER) == []
        assert repository.collections_with_deletions(session, utc_now() + LATER) == [number]
    assert prune(core, number, limit=2) == 3, "those of one change go together"
    assert prune(core, number, limit=4) == 4
    assert kept(core) == 6
    with core.database.write() as session:  # as an earlier version of the service left them
        session.execute(update(DeletionRow).values(created_at=None))
    assert prune(core, number, age=LATER) == 6
    assert kept(core) == 0
    assert prune(core, number + 1000) == 0, "no such collection"
