"""`make soak`: a server and a worker under mixed load for minutes, with one fault after the other, and then a look.

    python -m tests.faults.soak --minutes 10 --record postgresql

At the end, and after every fault, everything acknowledged must be there; no answer may be 5xx but 503, and 507 while
the disk is full; and the memory of the last server must stay near what it was after its first minute.
"""

import argparse
import contextlib
import itertools
import json
import random
import resource
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pgserver
import psutil

from app.db.engine import Database
from tests.conftest import png
from tests.faults.whole_service import PATIENCE_S, C, Load, Service, age, check

CLASSES = "/v1/collections/k"
REFUSED = (503, 507)
FULL_BYTES = 1024  # less than an image, so that its file cannot be written whatever the record is
FAULT_S = 3.0  # how long a disk is full, a record held up, a database away
WARM_S = 60.0
MEMORY_TIMES, MEMORY_MORE_MIB = 1.25, 64


class Refused(Exception):
    """An answer that asks to come again."""


class MixedLoad(Load):
    """Everything that `Load` does, beside scores, searches and classifications, through every fault."""

    def __init__(self, seed: int, service: Service) -> None:
        super().__init__(seed)
        self.jobs.may_fail_with += ("storage_full", "record_unavailable")
        self.answers: Counter[tuple[str, int]] = Counter()
        self.cut = 0  # requests whose connection ended
        self.good_at = 0.0  # when a write was last acknowledged
        self._service = service
        self._seeds = itertools.count(10**6)

    def steps(self) -> dict[str, Callable[[httpx2.Client], None]]:
        """What is done, each in a thread of its own."""
        return {
            "add": self._add,
            "delete": self._delete,
            "jobs": self.jobs.step,
            "score": lambda client: self._ask(client, f"{C}/anomaly", 409),
            "search": lambda client: self._ask(client, f"{C}/query?k=3"),
            "classify": lambda client: self._ask(client, f"{CLASSES}/classify"),
        }

    def begin(self, is_over: threading.Event) -> list[threading.Thread]:
        """Threads that send until it is over, to whichever server there is."""
        threads = [
            threading.Thread(target=self._keep_on, args=(name, step, is_over)) for name, step in self.steps().items()
        ]
        for thread in threads:
            thread.start()
        return threads

    def make_classes(self, client: httpx2.Client) -> None:
        """Two classes to tell apart."""
        for number in range(6):
            name = f"k{number}"
            self.images[name] = png(5000 + number, kind=("noise", "stripes")[number % 2])
            client.put(
                f"{CLASSES}/classes/{'ab'[number % 2]}",
                files=[("files", (f"{name}.png", self.images[name]))],
                data={"items": json.dumps([{"id": name}])},
            ).raise_for_status()

    def _keep_on(self, name: str, step: Callable[[httpx2.Client], None], is_over: threading.Event) -> None:
        def seen(answer: httpx2.Response) -> None:
            self.answers[name, answer.status_code] += 1
            if answer.status_code in REFUSED:
                raise Refused
            if answer.status_code >= 500:
                answer.read()
                self.wrong.append(f"{name}: {answer.status_code} {answer.text[:300]}")
            elif name == "add" and answer.status_code == 201:
                self.good_at = time.monotonic()

        while not is_over.is_set():
            hooks = {"response": [seen]}
            with httpx2.Client(base_url=self._service.url, timeout=PATIENCE_S, event_hooks=hooks) as client:
                try:
                    while not is_over.is_set():
                        try:
                            step(client)
                        except Refused:
                            time.sleep(0.05)
                except httpx2.TransportError:
                    self.cut += 1
                    time.sleep(0.1)
                except (AssertionError, httpx2.HTTPStatusError) as error:
                    if f"{name}: {error}" not in self.wrong:
                        self.wrong.append(f"{name}: {error}")
                    time.sleep(0.1)

    def _ask(self, client: httpx2.Client, path: str, *also: int) -> None:
        answer = client.post(path, content=png(next(self._seeds)), headers={"content-type": "image/png"})
        assert answer.status_code in (200, *also), answer.text


class Postgres:
    """A PostgreSQL server that may be killed, or held up."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="oddity-pg-"))  # a short path, for its socket
        self._server = pgserver.get_server(self._folder / "data", cleanup_mode="stop")
        self.url = self._server.get_uri()

    def processes(self) -> list[psutil.Process]:
        """The postmaster and its children."""
        postmaster = psutil.Process(self._server.get_pid())
        return [postmaster, *postmaster.children(recursive=True)]

    def signal(self, number: signal.Signals) -> None:
        """Send it to all of them."""
        for one in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def kill(self) -> None:
        """kill -9 to all of them: no transaction ends, no page is written."""
        processes = self.processes()
        self.signal(signal.SIGKILL)
        psutil.wait_procs(processes, PATIENCE_S)

    def start(self) -> None:
        """Start it again."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it and remove what it wrote."""
        self._server.cleanup()
        shutil.rmtree(self._folder)


@dataclass
class Faults:
    """What may happen to a service; each method does it, and undoes it."""

    service: Service
    record: Path | Postgres

    def worker_killed(self) -> None:
        self.service.kill("work")
        with self.service.started("work"):
            pass

    def decoders_killed(self) -> None:
        for one in decoders(self.service.pid("start")):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()

    def server_killed(self) -> None:
        left = decoders(self.service.pid("start"))
        self.service.kill("start")
        with self.service.started("start"):
            pass
        _, alive = psutil.wait_procs(left, PATIENCE_S)
        assert not alive, "a decoding process has outlived its server"

    def disk_full(self) -> None:
        """The kernel's own limit on the size of a file: writes of every file fail, the record's too with SQLite."""
        pids = [self.service.pid("start"), self.service.pid("work")]
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_BYTES, resource.RLIM_INFINITY))
        time.sleep(FAULT_S)
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def record_held_up(self) -> None:
        """As by a slow disk: SQLite is locked by another, PostgreSQL's processes are stopped."""
        if isinstance(self.record, Postgres):
            self.record.signal(signal.SIGSTOP)
            time.sleep(FAULT_S)
            self.record.signal(signal.SIGCONT)
            return
        connection = sqlite3.connect(self.record, timeout=PATIENCE_S, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(FAULT_S)
        connection.execute("ROLLBACK")
        connection.close()

    def database_killed(self) -> None:
        assert isinstance(self.record, Postgres)
        self.record.kill()
        time.sleep(FAULT_S)
        self.record.start()

    def in_turn(self) -> Iterator[Callable[[], None]]:
        """All of them again and again."""
        some = [self.worker_killed, self.decoders_killed, self.disk_full, self.record_held_up, self.server_killed]
        if isinstance(self.record, Postgres):
            some.insert(3, self.database_killed)
        return itertools.cycle(some)


@dataclass
class Round:
    """What became of a fault."""

    fault: str
    refused: int
    cut: int
    again_s: float  # from its end until the next write was acknowledged


@dataclass
class Soak:
    """The whole run and what it found."""

    minutes: float
    seed: int
    record: str
    between_s: float = 10.0
    rounds: list[Round] = field(default_factory=list)
    images: int = 0
    memory_mib: tuple[float, float] = (0.0, 0.0)
    seconds: float = 0.0

    def run(self, data: Path, say: Callable[[str], None] = print) -> MixedLoad:
        """Load and faults for so long. Raises AssertionError: something acknowledged is lost, or another promise."""
        database = Postgres() if self.record == "postgresql" else data / "record.db"
        url = database.url if isinstance(database, Postgres) else f"sqlite:///{database}"
        data.mkdir(parents=True, exist_ok=True)
        service = Service(data / "data", url, {"ODDITY_DECODING": "processes"})
        load = MixedLoad(self.seed, service)
        looking = Database(url)
        began = time.monotonic()
        try:
            with service.started() as client:
                client.put(C).raise_for_status()
                client.put(CLASSES).raise_for_status()
                load.make_classes(client)
                load.top_up(client, 20)
            self._rounds(service, load, Faults(service, database), looking, data / "data", say)
            service.kill("work")
            with service.started("start") as client:
                self.images = check(client, load, looking, anew=True)
        finally:
            self.seconds = time.monotonic() - began
            looking.close()
            service.close()
            if isinstance(database, Postgres):
                database.close()
        assert not load.wrong, "\n".join(load.wrong[:20])
        assert self.images >= sum(map(len, load.acknowledged)) > 0
        before, after = self.memory_mib
        assert after <= MEMORY_TIMES * before + MEMORY_MORE_MIB, f"memory grew from {before:.0f} to {after:.0f} MiB"
        return load

    def _rounds(
        self,
        service: Service,
        load: MixedLoad,
        faults: Faults,
        looking: Database,
        data: Path,
        say: Callable[[str], None],
    ) -> None:
        began = time.monotonic()
        turns = faults.in_turn()
        chance = random.Random(self.seed)
        lives_from, warm = began, 0.0
        while (passed := time.monotonic() - began) < 60 * self.minutes:
            fault = next(turns)
            is_last_life = passed > 60 * self.minutes / 2
            if fault == faults.server_killed and is_last_life:
                continue  # the last server is to live long enough to say something about memory
            is_over = threading.Event()
            threads = load.begin(is_over)
            time.sleep(self.between_s * chance.uniform(0.5, 1))
            if not warm and time.monotonic() - lives_from > min(WARM_S, 10 * self.minutes):
                warm = memory_mib(service.pid("start"))
            refused, cut = self._refused(load), load.cut
            fault()
            if fault == faults.server_killed:
                lives_from, warm = time.monotonic(), 0.0
            ended = time.monotonic()
            while load.good_at < ended and time.monotonic() < ended + PATIENCE_S:
                time.sleep(0.01)
            again_s = load.good_at - ended
            assert again_s > 0, f"after {fault.__name__} no write was acknowledged for {PATIENCE_S:g} s"
            time.sleep(self.between_s * chance.uniform(0, 0.5))
            is_over.set()
            for one in threads:
                one.join(2 * PATIENCE_S)
                assert not one.is_alive(), "a request is not answered"
            self.rounds.append(Round(fault.__name__, self._refused(load) - refused, load.cut - cut, again_s))
            self.memory_mib = (warm or memory_mib(service.pid("start")), memory_mib(service.pid("start")))
            service.kill("work")  # nothing may move while it is looked at
            age(data)
            with service.started("start") as client:
                self.images = check(client, load, looking, anew=False)
                self._forget_restored(client, load)
            with service.started("work"):
                pass
            one = self.rounds[-1]
            say(
                f"{passed:5.0f} s  {one.fault}: {one.refused} refused, {one.cut} cut, again after {one.again_s:.1f} s; "
                f"{self.images} images, {self.memory_mib[1]:.0f} MiB"
            )

    @staticmethod
    def _refused(load: MixedLoad) -> int:
        return sum(count for (_, status), count in load.answers.items() if status in REFUSED)

    @staticmethod
    def _forget_restored(client: httpx2.Client, load: MixedLoad) -> None:
        """Collections that were restored and looked at would only pile up."""
        for one in client.get("/v1/collections").raise_for_status().json()["collections"]:
            if one["name"] in load.jobs.restored:
                client.delete(f"/v1/collections/{one['name']}").raise_for_status()

    def text(self, load: MixedLoad) -> str:
        """The tables of the run."""
        lines = [
            "| fault | times | requests refused | cut | next write acknowledged after, s (median, most) |",
            "|---|---:|---:|---:|---|",
        ]
        for name in dict.fromkeys(one.fault for one in self.rounds):
            some = [one for one in self.rounds if one.fault == name]
            again = [one.again_s for one in some]
            lines.append(
                f"| {name.replace('_', ' ')} | {len(some)} | {sum(one.refused for one in some)} | "
                f"{sum(one.cut for one in some)} | {statistics.median(again):.1f}, {max(again):.1f} |"
            )
        statuses = sorted({status for _, status in load.answers})
        lines += ["", f"| requests | {' | '.join(map(str, statuses))} |", f"|---|{'---:|' * len(statuses)}"]
        for name in load.steps():
            lines.append(f"| {name} | {' | '.join(str(load.answers[name, one]) for one in statuses)} |")
        deleted = sum(map(len, load.deleted))
        kept = sum(map(len, load.acknowledged)) + deleted
        warm, end = self.memory_mib
        lines += [
            "",
            f"{self.record}, {self.seconds:.0f} s, {len(self.rounds)} faults: {kept} images acknowledged, none lost; "
            f"{deleted} deleted, none back; {len(load.jobs.done)} jobs done; server and decoding processes took "
            f"{warm:.0f} MiB after the warm-up and {end:.0f} MiB at the end.",
        ]
        return "\n".join(lines)


def decoders(server: int) -> list[psutil.Process]:
    """The processes that decode for a server."""
    return [one for one in psutil.Process(server).children() if "models.decoding.worker" in one.cmdline()]


def memory_mib(server: int) -> float:
    """Memory of a server and of the processes that decode for it."""
    processes = [psutil.Process(server), *decoders(server)]
    return sum(one.memory_info().rss for one in processes) / 2**20


def main() -> None:
    """Run, print the tables, and end with status 1 when a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--record", choices=("sqlite", "postgresql"), default="postgresql")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    soak = Soak(given.minutes, given.seed, given.record)
    with tempfile.TemporaryDirectory(prefix="oddity-soak-") as folder:
        try:
            load = soak.run(Path(folder))
        except AssertionError as error:
            sys.exit(f"A promise was not kept: {error}")
    print(soak.text(load))


if __name__ == "__main__":
    main()
