"""Coalescing across threads: everybody gets exactly their own vectors, and nobody waits for or suffers from another."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from models.backbones.embedder import BATCH_MAX, PreparedImage
from models.batching import WAITING_AHEAD, BatchingEmbedder, Ticket
from models.errors import DeadlinePassed, FingerprintMismatch, ParameterInvalid, QueueFull

PATIENCE_S = 30.0  # a test that hangs fails; none waits this long


class Boom(Exception):
    pass


def image(number: float, preparation: str = "here") -> PreparedImage:
    return PreparedImage(np.full((1,), number, np.float32), 1, 1, "PNG", preparation)


class NumberEmbedder:
    """Vector of image n is (n, n + 0.5). A negative n raises. The gate holds batches back until it is opened."""

    width = 2

    def __init__(self, runs_at_once: int = 1) -> None:
        self.engine = SimpleNamespace(runs_at_once=runs_at_once)
        self.batches: list[list[float]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def check(self, prepared: list[PreparedImage]) -> None:
        if any(one.preparation != "here" for one in prepared):
            raise FingerprintMismatch("`preparation` of an image must be here; got elsewhere.")

    def embed(self, prepared: list[PreparedImage]) -> np.ndarray:
        numbers = [float(one.tensor[0]) for one in prepared]
        self.batches.append(numbers)
        self.entered.release()
        assert self.gate.wait(PATIENCE_S)
        if min(numbers) < 0:
            raise Boom(f"got {min(numbers)}")
        return np.array([[number, number + 0.5] for number in numbers], dtype=np.float32)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


Make = Callable[..., BatchingEmbedder]


@pytest.fixture
def network() -> NumberEmbedder:
    return NumberEmbedder()


@pytest.fixture
def make(network: NumberEmbedder) -> Iterator[Make]:
    made: list[BatchingEmbedder] = []

    def build(queue_images_max: int = 1000, **options: object) -> BatchingEmbedder:
        made.append(BatchingEmbedder(network, queue_images_max, **options))
        return made[-1]

    yield build
    network.gate.set()
    for one in made:
        one.close()


def busy(batching: BatchingEmbedder, network: NumberEmbedder) -> Ticket:
    """A ticket whose image is in the network, which is held; what is enqueued next stays in the queue."""
    network.gate.clear()
    ticket = batching.enqueue([image(0)])
    assert network.entered.acquire(timeout=PATIENCE_S)
    return ticket


def expected(numbers: list[float]) -> list[list[float]]:
    return [[number, number + 0.5] for number in numbers]


def test_an_idle_network_starts_at_once(make: Make, network: NumberEmbedder) -> None:
    assert make().submit([image(3), image(1)]).tolist() == expected([3, 1])
    assert make().submit([]).shape == (0, 2)


def test_many_threads_get_exactly_their_own(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    wrong: list[object] = []
    done = threading.Semaphore(0)

    def work(thread: int) -> None:
        rng = np.random.default_rng(thread)
        for turn in range(30):
            start = thread * 10_000 + turn * 100
            numbers = [float(start + index) for index in range(int(rng.integers(1, 40)))]
            found = batching.submit([image(number) for number in numbers], deadline_s=PATIENCE_S)
            if found.tolist() != expected(numbers):
                wrong.append((thread, turn))
        done.release()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(done.acquire(blocking=False) for _ in threads)
    assert max(len(batch) for batch in network.batches) == BATCH_MAX
    mixed = [batch for batch in network.batches if len({number // 10_000 for number in batch}) > 1]
    assert mixed  # requests did meet in one batch, or nothing was tested


def test_what_waits_is_coalesced(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    first = busy(batching, network)
    tickets = [batching.enqueue([image(number)]) for number in range(1, 20)]
    assert batching.images_waiting() == 19
    network.gate.set()
    for number, ticket in enumerate((first, *tickets)):
        assert ticket.result().tolist() == expected([number])
    assert [len(batch) for batch in network.batches] == [1, 16, 3]


def test_a_smaller_batch_waits_for_company(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    busy(batching, network)
    tickets = [batching.enqueue([image(number)]) for number in range(1, 6)]
    network.gate.set()
    for number, ticket in enumerate(tickets, start=1):
        assert ticket.result().tolist() == expected([number])
    # Five are computed as four and one: the one is not kept from those who come while the four are computed.
    assert [len(batch) for batch in network.batches] == [1, 4, 1]


def test_where_many_wait_the_next_batch_is_handed_over_early() -> None:
    network = NumberEmbedder(runs_at_once=2)
    with BatchingEmbedder(network, 1000) as batching:
        first = busy(batching, network)
        tickets = [batching.enqueue([image(number)]) for number in range(1, WAITING_AHEAD)]
        assert not network.entered.acquire(timeout=0.05)  # too few: they wait for company
        tickets.append(batching.enqueue([image(WAITING_AHEAD)]))
        assert network.entered.acquire(timeout=PATIENCE_S)
        assert [len(batch) for batch in network.batches] == [1, WAITING_AHEAD]
        more = batching.enqueue([image(number) for number in range(100, 140)])
        assert not network.entered.acquire(timeout=0.05)  # never a third
        network.gate.set()
        for number, ticket in enumerate((first, *tickets)):
            assert ticket.result().tolist() == expected([number])
        assert more.result().tolist() == expected(list(range(100, 140)))


def test_one_large_request_is_handed_over_early_too() -> None:
    network = NumberEmbedder(runs_at_once=2)
    with BatchingEmbedder(network, 1000) as batching:
        network.gate.clear()
        large = batching.enqueue([image(number) for number in range(100)])
        assert all(network.entered.acquire(timeout=PATIENCE_S) for _ in range(2))
        network.gate.set()
        assert large.result().tolist() == expected(list(range(100)))


def test_early_batches_keep_rows_apart_under_load() -> None:
    seconds: list[tuple[int, float]] = []
    network = NumberEmbedder(runs_at_once=2)
    with BatchingEmbedder(network, 10_000, observe=lambda *told: seconds.append(told)) as batching:
        tickets = [batching.enqueue([image(number), image(number + 0.25)]) for number in range(500)]
        for number, ticket in enumerate(tickets):
            assert ticket.result().tolist() == expected([number, number + 0.25])
    assert sum(size for size, _ in seconds) == 1000
    assert all(took >= 0 for _, took in seconds)


def test_a_small_request_does_not_stand_behind_a_large_one(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    busy(batching, network)
    large = batching.enqueue([image(number) for number in range(100, 200)])
    small = batching.enqueue([image(7)])
    network.gate.set()
    assert small.result().tolist() == expected([7])
    assert large.result().tolist() == expected(list(range(100, 200)))
    assert 7 in network.batches[1]


def test_a_full_queue_refuses_and_then_has_room_again(make: Make, network: NumberEmbedder) -> None:
    batching = make(3)
    first = busy(batching, network)
    waiting = batching.enqueue([image(1), image(2)])
    with pytest.raises(QueueFull, match="got 2 where 2 of 3 places are taken"):
        batching.enqueue([image(3), image(4)])
    fits = batching.enqueue([image(5)])
    network.gate.set()
    for ticket, numbers in ((first, [0]), (waiting, [1, 2]), (fits, [5])):
        assert ticket.result().tolist() == expected(numbers)
    assert batching.submit([image(3), image(4)]).tolist() == expected([3, 4])


def test_a_request_larger_than_the_queue_is_taken_where_nothing_waits(make: Make, network: NumberEmbedder) -> None:
    batching = make(3)
    assert batching.submit([image(number) for number in range(50)]).tolist() == expected(list(range(50)))


def test_an_expired_request_leaves_the_queue(make: Make, network: NumberEmbedder) -> None:
    clock = Clock()
    batching = make(2, clock=clock)
    busy(batching, network)
    late = batching.enqueue([image(1), image(2)], deadline_s=5)
    with pytest.raises(QueueFull):
        batching.enqueue([image(3)])
    clock.now += 5
    replacement = batching.enqueue([image(3), image(4)], deadline_s=5)  # the room of the expired one
    with pytest.raises(DeadlinePassed, match="before the deadline"):
        late.result()
    network.gate.set()
    assert replacement.result().tolist() == expected([3, 4])
    assert not {1, 2} & {number for batch in network.batches for number in batch}


def test_waiting_ends_at_the_deadline(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    held = busy(batching, network)
    with pytest.raises(DeadlinePassed):
        batching.submit([image(1)], deadline_s=0.01)
    assert batching.images_waiting() == 0
    network.gate.set()
    assert held.result().tolist() == expected([0])


def test_a_deadline_that_has_passed_costs_no_computation(make: Make, network: NumberEmbedder) -> None:
    with pytest.raises(DeadlinePassed):
        make().submit([image(1)], deadline_s=0)
    assert make().submit([image(2)]).tolist() == expected([2])
    assert [1.0] not in network.batches


def test_a_cancelled_request_leaves_the_queue(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    held = busy(batching, network)
    ticket = batching.enqueue([image(1)])
    ticket.cancel()
    assert batching.images_waiting() == 0
    with pytest.raises(DeadlinePassed, match="stops waiting"):
        ticket.result()
    held.cancel()  # already in the network: its row goes nowhere
    network.gate.set()
    with pytest.raises(DeadlinePassed):
        held.result()
    assert batching.submit([image(2)]).tolist() == expected([2])
    assert network.batches == [[0], [2]]


def test_an_event_loop_goes_on_while_it_waits(make: Make, network: NumberEmbedder) -> None:
    batching = make()

    async def run() -> list[np.ndarray]:
        network.gate.clear()
        waiting = [asyncio.create_task(batching.submit_async([image(n), image(n + 0.25)])) for n in range(5)]
        await asyncio.sleep(0)
        assert not any(one.done() for one in waiting)
        network.gate.set()
        return await asyncio.gather(*waiting)

    for number, rows in enumerate(asyncio.run(asyncio.wait_for(run(), PATIENCE_S))):
        assert rows.tolist() == expected([number, number + 0.25])


def test_what_ended_before_an_event_loop_asked_is_told_at_once(make: Make) -> None:
    ticket = make().enqueue([image(3)])
    ticket.result()
    assert asyncio.run(ticket.result_async()).tolist() == expected([3])


def test_an_event_loop_hears_of_errors_deadlines_and_full_queues(make: Make, network: NumberEmbedder) -> None:
    batching = make(queue_images_max=2)
    with pytest.raises(Boom):
        asyncio.run(batching.submit_async([image(-1)]))
    first = busy(batching, network)
    with pytest.raises(DeadlinePassed):
        asyncio.run(batching.submit_async([image(1)], 0.01))
    assert batching.images_waiting() == 0
    batching.enqueue([image(1), image(2)])
    with pytest.raises(QueueFull):
        asyncio.run(batching.submit_async([image(3)]))
    network.gate.set()
    first.result()


def test_a_cancelled_task_leaves_the_queue(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    first = busy(batching, network)

    async def run() -> None:
        waiting = asyncio.create_task(batching.submit_async([image(7)]))
        while not batching.images_waiting():
            await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))
    assert batching.images_waiting() == 0
    network.gate.set()
    first.result()
    assert [7.0] not in network.batches


def test_an_event_loop_that_has_ended_does_not_stop_the_network(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    first = busy(batching, network)
    ticket = batching.enqueue([image(7)])
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(ticket.result_async())
    loop.run_until_complete(asyncio.sleep(0))
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # it is to be left behind
    loop.close()
    network.gate.set()
    assert first.result().tolist() and batching.submit([image(8)]).tolist() == expected([8])


def test_cancelling_what_is_finished_changes_nothing(make: Make) -> None:
    ticket = make().enqueue([image(1)])
    ticket.result()
    ticket.cancel()
    assert ticket.result().tolist() == expected([1])


def test_an_error_reaches_its_submitter_and_nobody_else(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    held = busy(batching, network)
    good = [batching.enqueue([image(number), image(number + 0.25)]) for number in (1, 2, 3)]
    bad = batching.enqueue([image(10), image(-1), image(11)])
    network.gate.set()
    with pytest.raises(Boom, match="got -1"):
        bad.result()
    for number, ticket in zip((1, 2, 3), good, strict=True):
        assert ticket.result().tolist() == expected([number, number + 0.25])
    assert held.result().tolist() == expected([0])
    assert batching.submit([image(4)]).tolist() == expected([4])  # the worker lives on


def test_a_request_that_failed_in_part_computes_no_further(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    with pytest.raises(Boom):
        batching.submit([image(-1), *(image(number) for number in range(100))])
    batching.submit([image(500)])
    assert [len(batch) for batch in network.batches] == [16, 1]


def test_images_of_another_embedding_are_refused_at_the_door(make: Make, network: NumberEmbedder) -> None:
    with pytest.raises(FingerprintMismatch):
        make().submit([image(1), image(2, preparation="elsewhere")])
    assert not network.batches


def test_waiting_for_company_fills_batches(make: Make, network: NumberEmbedder) -> None:
    batching = make(wait_s=1.0)
    tickets = [batching.enqueue([image(number)]) for number in range(BATCH_MAX)]
    for number, ticket in enumerate(tickets):
        assert ticket.result().tolist() == expected([number])
    assert [len(batch) for batch in network.batches] == [BATCH_MAX]


def test_closing_finishes_what_was_accepted_and_refuses_the_rest(make: Make, network: NumberEmbedder) -> None:
    batching = make()
    first = busy(batching, network)
    second = batching.enqueue([image(number) for number in range(1, 40)])
    closer = threading.Thread(target=batching.close)
    closer.start()
    while True:  # until close() has shut the door
        try:
            batching.enqueue([image(99)]).cancel()
        except QueueFull as error:
            assert "closing" in str(error)
            break
    network.gate.set()
    closer.join()
    assert first.result().tolist() == expected([0])
    assert second.result().tolist() == expected(list(range(1, 40)))
    batching.close()


def test_leaving_the_block_closes(network: NumberEmbedder) -> None:
    with BatchingEmbedder(network, 10) as batching:
        batching.submit([image(1)])
    with pytest.raises(QueueFull):
        batching.submit([image(1)])


@pytest.mark.parametrize(("queue", "wait", "name"), [(0, 0, "queue_images_max"), (1, -1, "wait_s"), (1, 2, "wait_s")])
def test_parameters_out_of_range_are_refused(network: NumberEmbedder, queue: int, wait: float, name: str) -> None:
    with pytest.raises(ParameterInvalid, match=name):
        BatchingEmbedder(network, queue, wait)
