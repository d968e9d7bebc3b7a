"""Many readers or one writer."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.locks import ReadWriteLock


def test_readers_share(  # two must be inside at once for the barrier to open
) -> None:
    lock, inside = ReadWriteLock(), threading.Barrier(2, timeout=30)

    def read() -> None:
        with lock.read():
            inside.wait()

    with ThreadPoolExecutor(2) as threads:
        for one in [threads.submit(read) for _ in range(2)]:
            one.result()


@pytest.mark.parametrize("kinds", [("write", "write"), ("write", "read"), ("read", "write")])
def test_a_writer_is_alone(kinds: tuple[str, str]) -> None:
    lock = ReadWriteLock()
    entered = threading.Event()

    def second() -> None:
        with getattr(lock, kinds[1])():
            entered.set()

    thread = threading.Thread(target=second)
    with getattr(lock, kinds[0])():
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(30)
    thread.join()


def test_a_waiting_writer_goes_before_new_readers() -> None:
    lock = ReadWriteLock()
    order: list[str] = []
    started = threading.Event()

    def write() -> None:
        started.set()
        with lock.write():
            order.append("writer")

    def read() -> None:
        with lock.read():
            order.append("reader")

    writer, reader = threading.Thread(target=write), threading.Thread(target=read)
    with lock.read():
        writer.start()
        started.wait(30)
        while not lock._writers_waiting:
            pass
        reader.start()
        reader.join(0.2)
        assert order == []
    writer.join(30)
    reader.join(30)
    assert order == ["writer", "reader"]


def test_an_error_inside_gives_the_lock_back() -> None:
    lock = ReadWriteLock()
    for way in (lock.read, lock.write, lock.read):
        with pytest.raises(KeyError), way():
            raise KeyError
    with lock.write():
        pass


def test_nobody_sees_half_a_change() -> None:
    lock, pair = ReadWriteLock(), [0, 0]
    torn: list[tuple[int, int]] = []

    def write() -> None:
        for _ in range(300):
            with lock.write():
                pair[0] += 1
                pair[1] += 1

    def read() -> None:
        for _ in range(300):
            with lock.read():
                seen = (pair[0], pair[1])
            if seen[0] != seen[1]:
                torn.append(seen)

    with ThreadPoolExecutor(6) as threads:
        for one in [threads.submit(work) for work in (write, read) * 3]:
            one.result()
    assert pair == [900, 900] and torn == []
