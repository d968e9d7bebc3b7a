"""What importing and starting leave behind is not searched for garbage again and again."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from models.garbage import SEARCH_AFTER, made_to_stay, search_seldom
from models.torchvision_import import import_torchvision


class Thing:
    """What a weak reference can be made to."""


@pytest.fixture(autouse=True)
def searching() -> Iterator[None]:
    """Whatever a test leaves, the others are searched for garbage."""
    import_torchvision()  # else a network that another test still loads switches the search off meanwhile
    assert gc.isenabled()
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)  # Python's own, whatever a server that a test started in this process has set
    yield
    gc.enable()
    gc.set_threshold(*before)


def test_nothing_is_searched_in_the_block_nor_what_it_made_afterwards() -> None:
    with made_to_stay():
        assert not gc.isenabled()
        made = Thing()
        made.itself = [made]
    assert gc.isenabled()
    later = Thing()
    searched = [one for one in gc.get_objects() if isinstance(one, Thing)]
    assert searched == [later]


def test_what_nothing_refers_to_is_freed_all_the_same() -> None:
    with made_to_stay():
        made = Thing()
    watched = weakref.ref(made)
    del made
    assert watched() is None


def test_circles_of_later_are_still_found() -> None:
    with made_to_stay():
        pass
    made = Thing()
    made.itself = made
    watched = weakref.ref(made)
    del made
    assert watched() is not None
    gc.collect()
    assert watched() is None


def test_a_failure_in_the_block_leaves_the_search_on() -> None:
    with pytest.raises(ZeroDivisionError), made_to_stay():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_had_switched_it_off_finds_it_off() -> None:
    gc.disable()
    with made_to_stay():
        pass
    assert not gc.isenabled()


def test_searches_come_after_more_objects_and_still_come() -> None:
    begun: list[int] = []

    def told(phase: str, facts: dict[str, int]) -> None:
        if phase == "start":
            begun.append(facts["generation"])

    def searches(objects: int) -> int:
        gc.collect()
        begun.clear()
        kept = [[number] for number in range(objects)]
        assert len(kept) == objects
        return len(begun)

    gc.callbacks.append(told)
    try:
        assert searches(SEARCH_AFTER - 1000) > 2
        search_seldom()
        assert searches(SEARCH_AFTER - 1000) == 0
        assert searches(SEARCH_AFTER * 3) >= 2
    finally:
        gc.callbacks.remove(told)
