"""The images of a registered set."""

import numpy as np
from numpy.typing import NDArray

from app.collection_state import CollectionState, GroupEntry


def held(state: CollectionState, entry: GroupEntry) -> NDArray[np.int64]:
    """Members of a set in order, without those whose stored vector is damaged until they are sent again."""
    pks = np.array(entry.members, np.int64)
    return pks[state.entries.known(pks)]
