"""A server for commands, in a thread of this process."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.serve import announced_server
from app.settings import Settings


@contextmanager
def serving(data: Path) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    server = announced_server(Settings(data=data), "127.0.0.1", 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.is_announced:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
