"""A load of keep-alive clients on a running server, with what it costs and where the processor time goes."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

PATIENCE_S = 600
TICKS = os.sysconf("SC_CLK_TCK")

_BOUNDARY = "images-of-a-request"
_FORM = {"content-type": f"multipart/form-data; boundary={_BOUNDARY}"}
_PART = (
    f"--{_BOUNDARY}\r\n"
    'Content-Disposition: form-data; name="files"; filename="%d.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
).encode()
_END = f"--{_BOUNDARY}--\r\n".encode()


@dataclass(frozen=True, slots=True)
class Load:
    """What a load did: one entry of `milliseconds` for each answer with this status."""

    seconds: float
    milliseconds: dict[int, list[float]]  # by status
    generator_cpu_s: float
    server_cpu_s: float

    def summary(self, images: int = 1) -> dict[str, float | int]:
        """Throughput of good answers, their percentiles, refusals, and the share of processor time the clients took."""
        good = [took for status, all_ in self.milliseconds.items() if status < 300 for took in all_]
        p50, p95, p99 = np.percentile(good, [50, 95, 99]) if good else (float("nan"),) * 3
        return {
            "answers": len(good),
            "refused": sum(len(all_) for status, all_ in self.milliseconds.items() if status == 503),
            "other": sum(len(all_) for status, all_ in self.milliseconds.items() if status >= 300 and status != 503),
            "images_per_s": images * len(good) / self.seconds,
            "p50_ms": float(p50),
            "p95_ms": float(p95),
            "p99_ms": float(p99),
            "generator_cpu_share": self.generator_cpu_s / max(1e-9, self.generator_cpu_s + self.server_cpu_s),
        }


def run_load(url: str, pid: int, clients: int, seconds: float, ask: Callable[[HTTPConnection, int], int]) -> Load:
    """Statuses of `ask(connection, turn)` from so many keep-alive clients that ask again once answered."""
    stop = threading.Event()
    lock = threading.Lock()
    took: dict[int, list[float]] = {}

    def one(number: int) -> None:
        # The standard library's client: it takes a fraction of the processor time that a richer one does.
        with closing(HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)) as http:
            turn = number
            while not stop.is_set():
                began = time.perf_counter()
                status = ask(http, turn)
                spent = 1000 * (time.perf_counter() - began)
                with lock:
                    took.setdefault(status, []).append(spent)
                turn += clients

    family = family_of(pid)
    began, own, servers = time.perf_counter(), time.process_time(), sum(map(cpu_seconds, family))
    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(one, number) for number in range(clients)]
        time.sleep(seconds)
        stop.set()
        for each in running:
            each.result()
    return Load(time.perf_counter() - began, took, time.process_time() - own, sum(map(cpu_seconds, family)) - servers)


def family_of(pid: int) -> list[int]:
    """A process and all that it has started, and these; the process alone where the system does not tell."""
    found = [pid]
    for one in found:
        found += map(int, " ".join(_read(one, f"task/{task}/children") for task in _tasks(one)).split())
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used; 0 where the system does not tell."""
    facts = _read(pid, "stat").rpartition(") ")[2].split()
    return (int(facts[11]) + int(facts[12])) / TICKS if facts else 0.0


def memory_mib(pid: int) -> float:
    """Most memory that a process has held so far, in MiB; 0 where the system does not tell."""
    for line in _read(pid, "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def posted(path: str, images: Sequence[bytes], batch: int = 1) -> Callable[[HTTPConnection, int], int]:
    """Asks by posting one of the JPEGs, the next at each turn; or a batch of them as a form of files."""
    parts = [_PART % place + image + b"\r\n" for place, image in enumerate(images)]

    def ask(http: HTTPConnection, turn: int) -> int:
        if batch == 1:
            http.request("POST", path, images[turn % len(images)], {"content-type": "image/jpeg"})
            return _status(http)
        some = [parts[(turn + place) % len(parts)] for place in range(batch)]
        http.request("POST", path, b"".join([*some, _END]), _FORM)
        return _status(http)

    return ask


def posted_anew(path: str, images: Sequence[bytes], batch: int, first: int) -> Callable[[HTTPConnection, int], int]:
    """Asks by posting a batch of the JPEGs as a form of files, none of which has come before.

    Each differs by a comment: its number, from `first` on.
    """

    def ask(http: HTTPConnection, turn: int) -> int:
        numbers = range(first + turn * batch, first + (turn + 1) * batch)
        some = [_PART % number + commented(images[number % len(images)], number) + b"\r\n" for number in numbers]
        http.request("POST", path, b"".join([*some, _END]), _FORM)
        return _status(http)

    return ask


def commented(image: bytes, number: int) -> bytes:
    """A JPEG of the same picture and other bytes: it has this number as a comment."""
    comment = str(number).encode()
    return image[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + image[2:]


def _status(http: HTTPConnection) -> int:
    answer = http.getresponse()
    answer.read()
    return answer.status


def _tasks(pid: int) -> list[str]:
    try:
        return [task.name for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
