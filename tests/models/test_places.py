"""Places that are given in the order in which they were asked for."""

import asyncio
import random
import threading
import time

from models.decoding.places import Places

PATIENCE_S = 30.0


def in_line(places: Places, count: int) -> None:
    """Wait until so many threads are in line."""
    deadline = time.monotonic() + PATIENCE_S
    while places.waiting != count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_who_came_first_goes_first() -> None:
    places, order, threads = Places(1), [], []

    def take(number: int) -> None:
        assert places.acquire(PATIENCE_S)
        order.append(number)
        places.release()

    assert places.acquire(0)
    for number in range(6):
        threads.append(threading.Thread(target=take, args=(number,)))
        threads[-1].start()
        in_line(places, number + 1)
    places.release()
    for one in threads:
        one.join(PATIENCE_S)
    assert order == list(range(6))


def test_nobody_goes_before_the_one_whose_turn_it_is() -> None:
    places, may_leave = Places(1), threading.Event()
    got = []

    def take() -> None:
        got.append(places.acquire(PATIENCE_S))
        may_leave.wait(PATIENCE_S)
        places.release()

    assert places.acquire(0)
    first = threading.Thread(target=take)
    first.start()
    in_line(places, 1)
    places.release()  # it is the other thread's now, even before that has woken
    assert not places.acquire(0)
    may_leave.set()
    first.join(PATIENCE_S)
    assert got == [True]
    assert places.acquire(0)


def test_who_gave_up_stands_in_line_no_longer() -> None:
    places = Places(1)
    assert places.acquire(0)
    assert not places.acquire(0)
    assert not places.acquire(0.01)
    assert places.waiting == 0
    places.release()
    assert places.acquire(0)


def test_places_are_neither_lost_nor_given_twice() -> None:
    places, count, together = Places(2), threading.Lock(), threading.Barrier(8)
    inside, most, refused = 0, 0, 0

    def work(seed: int) -> None:
        nonlocal inside, most, refused
        chance = random.Random(seed)
        together.wait(PATIENCE_S)
        for _ in range(300):
            if not places.acquire(chance.choice((0, 1e-5, 1e-4, PATIENCE_S))):
                refused += 1
                continue
            with count:
                inside += 1
                most = max(most, inside)
            time.sleep(chance.choice((0, 1e-5)))
            with count:
                inside -= 1
            places.release()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(PATIENCE_S)
    assert most == 2
    assert refused > 0
    assert [places.acquire(0) for _ in range(3)] == [True, True, False]


def test_tasks_and_threads_stand_in_one_line() -> None:
    places, order = Places(1), []
    assert places.acquire(0)

    async def take(number: int) -> None:
        assert await places.acquire_async(PATIENCE_S)
        order.append(number)
        places.release()

    def take_in_thread(number: int) -> None:
        assert places.acquire(PATIENCE_S)
        order.append(number)
        places.release()

    async def run() -> None:
        taking = []
        for number in range(6):
            coming = asyncio.to_thread(take_in_thread, number) if number % 2 else take(number)
            taking.append(asyncio.create_task(coming))
            while places.waiting != number + 1:
                await asyncio.sleep(0.001)
        places.release()
        await asyncio.gather(*taking)

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert order == list(range(6))
    assert places.acquire(0)


def test_a_task_that_gave_up_or_was_cancelled_keeps_no_place() -> None:
    places = Places(1)

    async def run() -> None:
        assert await places.acquire_async(0)
        assert not await places.acquire_async(0.01)
        waiting = asyncio.create_task(places.acquire_async(PATIENCE_S))
        await asyncio.sleep(0)
        assert places.waiting == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled() and places.waiting == 0
        # Given in the moment in which it is cancelled: the next one has it.
        late = asyncio.create_task(places.acquire_async(PATIENCE_S))
        await asyncio.sleep(0)
        places.release()
        late.cancel()
        await asyncio.wait([late])
        assert late.cancelled()

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert [places.acquire(0) for _ in range(2)] == [True, False]
