"""A server for commands, in a thread of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.serve import AnnouncedServer, announced_server
from app.settings import Settings

PATIENCE_S = 60.0


@contextmanager
def started(server: AnnouncedServer) -> Iterator[int]:
    """The port of a server that runs in a thread."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not server.is_announced:
            assert thread.is_alive() and time.monotonic() < deadline
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def serving(data: Path) -> Iterator[str]:
    """The address of a server of this data folder."""
    with started(announced_server(Settings(data=data), "127.0.0.1", 0)) as port:
        yield f"http://127.0.0.1:{port}"
