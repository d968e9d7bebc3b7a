"""Decoding in processes: the same bits as in a thread, and whatever an image does, it does to itself."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image

from models.decoding.decoder import Decoder
from models.decoding.pool import DecodingPool
from models.decoding.worker import KEPT_BYTES
from models.errors import (
    DeadlinePassed,
    DecoderUnavailable,
    ImageCrashed,
    ImageTooLarge,
    ImageTooSlow,
    ImageUnreadable,
    InputError,
)
from models.images import ImageLimits
from models.preprocessing import Preprocessing
from tests.conftest import png
from tests.faults.broken_decoder import COMMAND, marked
from tests.rules.source_tree import ROOT

LIMITS = ImageLimits()
MEMORY = 128 * 2**20
SQUARE = Preprocessing(32)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (300, 200), **options: object) -> bytes:
    pixels = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 4), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(out, kind, **options)
    return out.getvalue()


PICTURES = {
    "jpeg": encoded("JPEG"),
    "turned": encoded("JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
    "png": encoded("PNG", "RGBA"),
    "webp": encoded("WEBP"),
    "tiff": encoded("TIFF", "CMYK"),
    "gif": encoded("GIF", "P"),
    "bmp": encoded("BMP", "L"),
    "large": encoded("JPEG", size=(700, 500)),
}


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """Two processes that have the faults an image asks for."""
    decoder = Decoder(LIMITS, DecodingPool(2, MEMORY, 60, COMMAND))
    yield decoder
    decoder.close()


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_the_bits_are_those_of_a_thread(decoder: Decoder, name: str, fit: str) -> None:
    here, data = Decoder(LIMITS), PICTURES[name]
    for preprocessing in (Preprocessing(32, fit), Preprocessing(224, fit, "bicubic")):
        one, other = decoder.square(data, preprocessing), here.square(data, preprocessing)
        for awaited in (decoder, here):
            found = asyncio.run(awaited.square_async(data, preprocessing))
            np.testing.assert_array_equal(found.pixels, other.pixels)
            assert (found.width, found.height, found.format) == (other.width, other.height, other.format)
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.width, one.height, one.format) == (other.width, other.height, other.format)
    assert decoder.size(data) == here.size(data) == (other.width, other.height)
    assert decoder.pixel_sha256(data) == here.pixel_sha256(data)
    assert decoder.thumbnail(data) == here.thumbnail(data)
    assert decoder.altered_copies(data) == here.altered_copies(data)
    np.testing.assert_array_equal(decoder.grey(data), here.grey(data))


def test_refusals_are_the_same(decoder: Decoder) -> None:
    for data in (b"", b"<svg", PICTURES["png"][:400], PICTURES["jpeg"][:20]):
        with pytest.raises(ImageUnreadable) as there:
            decoder.square(data, SQUARE)
        with pytest.raises(ImageUnreadable) as here:
            Decoder(LIMITS).square(data, SQUARE)
        with pytest.raises(ImageUnreadable) as awaited:
            asyncio.run(decoder.square_async(data, SQUARE))
        assert str(there.value) == str(here.value) == str(awaited.value)
    small = Decoder(ImageLimits(pixels_max=100), decoder.pool)
    with pytest.raises(ImageTooLarge, match="at most 100 pixels"):
        small.size(PICTURES["png"])


@pytest.mark.parametrize("fault", ["abort", "segfault", "raise"])
def test_a_crash_costs_its_image_only(decoder: Decoder, fault: str) -> None:
    assert decoder.pool is not None
    good, lost = png(1), decoder.pool.lost
    images = [good, marked(good, fault), good, good]

    def one(data: bytes) -> object:
        try:
            return decoder.square(data, SQUARE).pixels.tobytes()
        except InputError as error:
            return type(error)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(one, images))
    assert found[1] is ImageCrashed and found[0] == found[2] == found[3] == one(good)
    assert decoder.pool.lost == lost + 2  # tried again once
    assert len(decoder.pool.pids) <= 2


@pytest.mark.parametrize("lie", ["nan", "huge", "short"])
def test_what_no_picture_is_goes_no_further(decoder: Decoder, lie: str) -> None:
    good = png(1)
    with pytest.raises(ImageCrashed, match="as no picture has them"):
        decoder.square(marked(good, lie), SQUARE)
    with pytest.raises(ImageCrashed, match="as no picture has them"):
        asyncio.run(decoder.square_async(marked(good, lie), SQUARE))
    np.testing.assert_array_equal(decoder.square(good, SQUARE).pixels, Decoder(LIMITS).square(good, SQUARE).pixels)


@pytest.mark.parametrize("fault", ["abort", "segfault"])
def test_while_an_event_loop_goes_on_a_crash_costs_its_image_only(decoder: Decoder, fault: str) -> None:
    assert decoder.pool is not None
    good, lost = png(1), decoder.pool.lost
    images = [good, marked(good, fault), *[good] * 6]

    async def run() -> list[object]:
        return await asyncio.gather(*(decoder.square_async(one, SQUARE) for one in images), return_exceptions=True)

    found = asyncio.run(run())
    assert isinstance(found.pop(1), ImageCrashed)
    wanted = decoder.square(good, SQUARE).pixels
    for one in found:
        np.testing.assert_array_equal(one.pixels, wanted)  # type: ignore[attr-defined]
    decoder.pool._starter.submit(int).result()  # by then the lost ones have been seen to
    assert decoder.pool.lost == lost + 2 and len(decoder.pool.pids) <= 2


def test_a_caller_who_leaves_costs_neither_a_process_nor_a_place(decoder: Decoder) -> None:
    assert decoder.pool is not None
    decoder.size(png(1))
    lost, large = decoder.pool.lost, encoded("JPEG", size=(3000, 2000))

    async def run() -> None:
        for _ in range(3):
            leaving = [asyncio.create_task(decoder.square_async(large, SQUARE)) for _ in range(5)]
            await asyncio.sleep(0.01)  # two are being decoded, the others stand in line
            for one in leaving:
                one.cancel()
            await asyncio.wait(leaving)
            assert all(one.cancelled() for one in leaving)
        assert (await decoder.square_async(large, SQUARE)).width == 3000
        while decoder.pool._exchanges:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(run(), 30))
    assert decoder.pool.lost == lost
    assert decoder.pool._places.acquire(0) and decoder.pool._places.acquire(0)
    decoder.pool._places.release()
    decoder.pool._places.release()


def test_an_event_loop_that_ends_takes_the_process_it_waited_for_along() -> None:
    pool = DecodingPool(1, MEMORY, 60, COMMAND)
    decoder = Decoder(LIMITS, pool)
    decoder.size(png(1))
    (pid,) = pool.pids

    async def run() -> None:
        asking = asyncio.create_task(decoder.square_async(marked(png(1), "sleep"), SQUARE))
        await asyncio.sleep(0.05)
        assert not asking.done()

    asyncio.run(run())
    assert decoder.size(png(1)) == (32, 32)  # in another, and at once
    assert pid not in pool.pids and pool.lost == 1
    decoder.close()


@pytest.mark.parametrize("is_awaited", [False, True])
def test_an_image_whose_process_died_by_chance_is_tried_again(decoder: Decoder, tmp_path, is_awaited: bool) -> None:
    once = marked(png(1), f"once:{tmp_path / 'was here'}")
    found = asyncio.run(decoder.square_async(once, SQUARE)) if is_awaited else decoder.square(once, SQUARE)
    assert (found.width, found.height) == (32, 32)
    assert (tmp_path / "was here").exists()


def test_idle_processes_that_were_killed_cost_nobody_anything(decoder: Decoder) -> None:
    assert decoder.pool is not None
    decoder.size(png(1))
    for pid in decoder.pool.pids:
        os.kill(pid, signal.SIGKILL)
    assert decoder.size(png(2)) == (32, 32)


def test_what_hoards_memory_is_refused_and_the_next_image_has_room(decoder: Decoder) -> None:
    assert decoder.pool is not None
    with pytest.raises(ImageTooLarge, match="fit into memory"):
        decoder.size(marked(png(1), "hoard"))
    assert decoder.size(PICTURES["large"]) == (700, 500)
    used = max(psutil.Process(pid).memory_info().rss for pid in decoder.pool.pids)
    assert used < MEMORY + 100 * 2**20


LEFTOVERS = """
import psutil
from models.decoding.worker import give_back
pieces = [bytes(60_000) for _ in range(4000)]
last = bytes(60_000)  # at the top of the heap, so that freeing the others gives nothing back by itself
del pieces
print(psutil.Process().memory_info().rss)
give_back()
print(psutil.Process().memory_info().rss)
"""


def test_what_a_large_image_took_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", LEFTOVERS], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert after < KEPT_BYTES < before


@pytest.mark.parametrize("is_awaited", [False, True])
def test_what_does_not_end_is_ended(is_awaited: bool) -> None:
    pool = DecodingPool(1, MEMORY, 0.3, COMMAND)
    decoder = Decoder(LIMITS, pool)
    endless = marked(png(1), "sleep")
    try:
        with pytest.raises(ImageTooSlow, match=r"within 0\.3 s"):
            asyncio.run(decoder.square_async(endless, SQUARE)) if is_awaited else decoder.square(endless, SQUARE)
        pool._starter.submit(int).result()
        assert pool.pids == [] and pool.lost == 1
    finally:
        decoder.close()


def test_who_finds_no_free_process_is_told_to_come_again() -> None:
    pool = DecodingPool(1, MEMORY, 1, COMMAND)
    decoder = Decoder(LIMITS, pool)
    with ThreadPoolExecutor(1) as thread:
        stuck = thread.submit(decoder.size, marked(png(1), "sleep"))
        while not pool.pids:
            time.sleep(0.01)
        with pytest.raises(DeadlinePassed):
            decoder.size(png(1), wait_s=0.05)
        with pytest.raises(DeadlinePassed):
            asyncio.run(decoder.square_async(png(1), SQUARE, wait_s=0.05))
        assert isinstance(stuck.exception(), ImageTooSlow)
    decoder.close()


@pytest.mark.parametrize("command", [(sys.executable, "-c", "pass"), ("/nowhere/python",)])
def test_processes_that_do_not_start_are_no_fault_of_the_image(command: tuple[str, ...]) -> None:
    decoder = Decoder(LIMITS, DecodingPool(1, MEMORY, 60, command))
    with pytest.raises(DecoderUnavailable):
        decoder.size(png(1))
    with pytest.raises(DecoderUnavailable):
        asyncio.run(decoder.square_async(png(1), SQUARE))
    decoder.close()


def test_the_end_leaves_no_process_and_no_place_for_later_images() -> None:
    pool = DecodingPool(2, MEMORY, 60)
    decoder = Decoder(LIMITS, pool)
    decoder.size(png(1))
    (pid,) = pool.pids
    decoder.close()
    assert not psutil.pid_exists(pid)
    with pytest.raises(DecoderUnavailable):
        decoder.size(png(1))
    with pytest.raises(DecoderUnavailable):
        asyncio.run(decoder.square_async(png(1), SQUARE))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere niceness belongs to processes")
def test_decoders_stand_back_for_the_process_that_started_them() -> None:
    own = psutil.Process().nice()
    for niceness in (0, 3):
        pool = DecodingPool(1, MEMORY, 60, niceness=niceness)
        Decoder(LIMITS, pool).size(png(1))
        (pid,) = pool.pids
        assert psutil.Process(pid).nice() == min(19, own + niceness)
        pool.close()


SERVER = """
import io, sys, threading, time
from PIL import Image
from models.decoding.decoder import Decoder
from models.decoding.pool import DecodingPool
from models.images import ImageLimits
from tests.faults.broken_decoder import COMMAND, marked
out = io.BytesIO()
Image.new("RGB", (32, 32)).save(out, "PNG")
image = out.getvalue()
pool = DecodingPool(2, 2**28, 3600, COMMAND)
decoder = Decoder(ImageLimits(), pool)
threading.Thread(target=decoder.size, args=(marked(image, "sleep"),)).start()
while not pool.pids:
    time.sleep(0.01)
decoder.size(image)
print(*pool.pids, flush=True)
sys.stdin.read()
"""


def test_kill_9_leaves_no_process_neither_idle_nor_at_work() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        pids = [int(pid) for pid in server.stdout.readline().split()]
        assert len(pids) == 2 and all(map(psutil.pid_exists, pids))
        server.send_signal(signal.SIGKILL)
        server.wait()
    until = time.monotonic() + 60
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < until, "a decoding process has outlived its server"
        time.sleep(0.01)
