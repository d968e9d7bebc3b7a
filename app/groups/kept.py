"""What is worked out to judge sets, kept until the collection changes."""

from collections.abc import Callable
from typing import TypeVar

from app.collection_state import CollectionState

KEPT = 8  # sizes of set, poolings and k asked for lately
Made = TypeVar("Made")


def kept(state: CollectionState, pooling: str, set_size: int, k: int, make: Callable[[], Made]) -> Made:
    """What `make` returns for these, made once: drawing and pooling sets costs more than scoring one.

    To be called with the collection's lock held.
    """
    place = ("group", pooling, set_size, k)
    found: Made | None = state.cache.get(place)
    if found is None:
        with state.calibrating:
            found = make()
        before = [one for one in list(state.cache) if one[0] == "group"]
        for one in before[: max(0, len(before) - KEPT + 1)]:  # oldest first
            state.cache.pop(one, None)
        state.cache[place] = found
    return found
