"""A collection's state of a job's own, read from the record."""

from app.core import Core
from app.jobs.context import JobContext, LeaseLost
from app.shelf import CollectionState


def fresh_state(core: Core, context: JobContext) -> CollectionState:
    """The collection as the record has it now, shared with nobody.

    A job may look at it, and change it, for minutes without holding up requests. It needs the bank's memory once more
    for as long as the job runs.
    """
    assert context.collection is not None
    state = core.shelf.load(context.collection)
    if state.id != context.collection_id:  # deleted, and made again under the same name
        raise LeaseLost
    return state
