"""The image of a small request becomes a vector before a thread has seen the request.

Under load most of the time of such a request would go into threads that wait for the decoder, the network and each
other. So the event loop waits for those, and one thread does the rest for all who have their vectors by then. A lone
request has nobody to wait for, and its thread is a little sooner.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bodies import Upload
from app.core import Core
from app.errors import item_problem
from models.batching import BatchingEmbedder
from models.errors import InputError

# What the event loop does in one go, less than half a millisecond: beyond it a thread does everything.
BYTES_MAX = 2**20  # sent to a decoder
SIDE_MAX = 128  # pixels of the square that comes back


@dataclass(frozen=True, slots=True)
class Ahead:
    """An image that was sent, as a network sees it, or what is wrong with it."""

    network: BatchingEmbedder
    vectors: NDArray[np.float32]  # (1, width), the network's own; (0, width) of one that cannot be read
    problem: dict[str, Any] | None


async def embed_ahead(core: Core, name: str, uploads: list[Upload]) -> Ahead | None:
    """The one image of a request for a collection; None where a thread should see to it.

    By the network that was the right one for the last request: whoever goes on with it looks whether it still is.

    Raises:
        QueueFull, DeadlinePassed, DecoderUnavailable: the same image may be sent again a moment later.
    """
    if len(uploads) != 1 or len(uploads[0].data) > BYTES_MAX:
        return None
    network = core.shelf.network_of(name)
    if network is None or network.embedder.identity.preprocessing.image_size > SIDE_MAX:
        return None
    try:
        prepared = await core.embedders.prepare_one_async(network.embedder, uploads[0].data)
    except InputError as error:
        return Ahead(network, np.empty((0, network.embedder.width), np.float32), item_problem(error))
    return Ahead(network, await core.embedders.embed_async(network, [prepared]), None)
