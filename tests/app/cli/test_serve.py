"""What `oddity serve` does with its own process."""

import gc
import threading
import time

from app.cli.serve import announced_server
from app.settings import Settings


def is_searched(*made: object) -> bool:
    """Whether Python looks for garbage among any of these."""
    ids = {id(one) for one in made}
    return any(id(one) in ids for one in gc.get_objects())


def test_what_a_start_makes_is_not_searched_for_garbage_while_requests_wait(settings: Settings) -> None:
    server = announced_server(settings, "127.0.0.1", 0)
    app = server.config.app
    assert not is_searched(app, *app.routes)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.is_announced:
            assert thread.is_alive()
            time.sleep(0.01)
        assert not is_searched(app.state.core, app.state.slots)
        assert gc.isenabled()
    finally:
        server.should_exit = True
        thread.join()
