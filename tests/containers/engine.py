"""A container engine, or its compose command, by its command line."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 180.0  # until something that is started does what it is for


class Engine:
    """Runs commands of Docker, Podman or what looks like them."""

    def __init__(self, command: list[str]) -> None:
        self.command = command

    @property
    def is_podman(self) -> bool:
        """Whether it is Podman, under whatever name."""
        return "podman" in self("--version").lower()

    def __call__(self, *arguments: str, cwd: Path | None = None) -> str:
        """What a command prints; it must succeed."""
        status, told = self.tried(*arguments, cwd=cwd)
        assert status == 0, f"{' '.join(arguments)}: status {status}\n{told}"
        return told.strip()

    def tried(self, *arguments: str, cwd: Path | None = None) -> tuple[int, str]:
        """The status and all output of a command that may fail."""
        ran = subprocess.run([*self.command, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
        return ran.returncode, ran.stdout if ran.returncode == 0 else ran.stdout + ran.stderr


def until(is_so: Callable[[], bool], what: str) -> float:
    """Seconds until something is so."""
    begun = time.monotonic()
    while not is_so():
        assert time.monotonic() - begun < PATIENCE_S, f"{what}: not within {PATIENCE_S:g} s"
        time.sleep(0.1)
    return time.monotonic() - begun
