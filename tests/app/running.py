"""A real server in a process of its own."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0


class Running:
    """A real server in a process of its own, and what it wrote to its log."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until = time.monotonic() + PATIENCE_S
        while not self.url:
            assert process.poll() is None and time.monotonic() < until, self.lines
            time.sleep(0.02)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line)
                if found := re.search(r"at (http://\S+:\d+)/", line):
                    self.url = found[1]

    def ended(self) -> int:
        """The status that it ended with."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join()
        return code

    def kill(self) -> None:
        """End it in any case."""
        self.process.kill()
        self.ended()

    def answered(self) -> dict[str, int]:
        """Ids and statuses of the requests that it has worked on, from its log."""
        lines = [json.loads(line) for line in self.lines if line.startswith("{")]
        return {line["id"]: line["status"] for line in lines if line["event"] == "request"}


@contextmanager
def running(data: Path, **settings: str) -> Iterator[Running]:
    """A server that is up, of these settings; it is killed at the end where it still runs."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ODDITY_")},
        **{f"ODDITY_{name.upper()}": value for name, value in settings.items()},
        "ODDITY_WEIGHTS": "stand-in",
        "ODDITY_IMAGE_SIZE": "32",
        "ODDITY_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--data", str(data)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    server = Running(process)
    try:
        yield server
    finally:
        server.kill()
