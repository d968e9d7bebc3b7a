"""`oddity bench speed`: made images, what is told of a load, and one tiny run of everything."""

import io

import pytest
from PIL import Image

from benchmarks.clients import Load, commented, cpu_seconds, memory_mib, posted_anew
from benchmarks.errors import BenchmarkRefused
from benchmarks.speed import PARTS, SpeedPlan, _ratios, _server, add_steadily, made_jpegs, measure_speed, speed_text
from models.backbones.embedder import EmbeddingSpec


def test_made_jpegs_are_seeded_and_of_the_size() -> None:
    first = made_jpegs(2, (50, 40), 1)
    assert first == made_jpegs(2, (50, 40), 1) != made_jpegs(2, (50, 40), 2)
    assert [Image.open(io.BytesIO(one)).size for one in first] == [(50, 40)] * 2


def test_a_comment_makes_another_file_of_the_same_picture() -> None:
    image = made_jpegs(1, (50, 40), 1)[0]
    other = commented(image, 7)
    assert other != image != commented(image, 8)
    with Image.open(io.BytesIO(image)) as before, Image.open(io.BytesIO(other)) as after:
        assert before.tobytes() == after.tobytes()


def test_no_file_is_added_twice() -> None:
    images = made_jpegs(3, (50, 40), 1)
    forms: list[bytes] = []

    class Line:
        """Takes forms, and answers as a server that has taken them."""

        status = 201

        def request(self, _method: str, _path: str, body: bytes, _headers: dict[str, str]) -> None:
            forms.append(body)

        def getresponse(self) -> "Line":
            return self

        def read(self) -> None:
            pass

    for first in (0, 1000):
        ask = posted_anew("/images", images, 4, first)
        assert [ask(Line(), turn) for turn in range(3)] == [201] * 3
    files = [part.partition(b"\r\n\r\n")[2] for form in forms for part in form.split(b"--images-of-a-request")[1:-1]]
    assert len(set(files)) == len(files) == 24
    assert all(Image.open(io.BytesIO(one)).size == (50, 40) for one in files)


def test_a_load_is_summed_up() -> None:
    load = Load(2.0, {200: [float(n) for n in range(1, 101)], 503: [1.0] * 7, 500: [1.0]}, 0.5, 1.5)
    summary = load.summary()
    assert (summary["answers"], summary["refused"], summary["other"]) == (100, 7, 1)
    assert summary["images_per_s"] == 50 and summary["generator_cpu_share"] == 0.25
    assert (summary["p50_ms"], summary["p99_ms"]) == pytest.approx((50.5, 99.01))


def test_a_ratio_is_of_what_was_measured_in_one_turn() -> None:
    slow = {
        "decoder": 100.0,
        "network": 100.0,
        "baseline": 5.0,
        "scoring": 30.0,
        "batched": 45.0,
        "adding": 27.0,
        "adding_by_several": 33.0,
        "alone_ms": 12.0,
        "parts_ms": 10.0,
        "parts_after_a_pause_ms": 15.0,
    }
    twice = {name: value / 2 if name.endswith("_ms") else 2 * value for name, value in slow.items()}
    found = _ratios([slow, twice])
    assert found == {
        "service_over_ceiling": pytest.approx([0.6, 0.6]),
        "batched_over_ceiling": pytest.approx([0.9, 0.9]),
        "service_over_baseline": pytest.approx([6.0, 6.0]),
        "batched_over_baseline": pytest.approx([9.0, 9.0]),
        "adding_over_scoring": pytest.approx([0.9, 0.9]),
        "adding_by_several_over_scoring": pytest.approx([1.1, 1.1]),
        "idle_p50_over_parts": pytest.approx([1.2, 1.2]),
        "idle_p50_over_parts_after_a_pause": pytest.approx([0.8, 0.8]),
    }


@pytest.mark.parametrize("wrong", [{"parts": ("all",)}, {"sizes": ("huge",)}, {"precisions": ("fp4",)}])
def test_parts_that_do_not_exist_are_refused(wrong: dict) -> None:
    with pytest.raises(BenchmarkRefused, match="must be of"):
        SpeedPlan(**wrong)


def test_a_process_that_is_gone_has_used_nothing() -> None:
    assert (cpu_seconds(2**30), memory_mib(2**30)) == (0.0, 0.0)


TINY = SpeedPlan(
    backbones=("resnet18",), sizes=("small",), precisions=("float32",), clients=(1, 32), images=2, bank=4, seconds=0.2,
    image_size=32, threads=1, turns=2,
)  # fmt: skip


def test_the_parts_in_this_process_are_measured() -> None:
    plan = SpeedPlan(**{name: getattr(TINY, name) for name in TINY.__slots__ if name != "parts"}, parts=PARTS[:3])
    found = measure_speed(plan)["backbones"]["resnet18"]
    assert found["decoder"]["small"]["images_per_s"] > 0 and found["baseline"]["small"]["images_per_s"] > 0
    assert set(found["network"]) == {"served", "openvino float32", "torch float32"}
    assert not found["ratios"]  # which need a server


@pytest.mark.slow
def test_images_that_are_there_already_are_not_counted_as_added() -> None:
    images = made_jpegs(2, (50, 40), 1)
    with _server(TINY, EmbeddingSpec(weights="stand-in", image_size=32), None, images) as (url, pid, _):
        assert add_steadily(url, pid, images, 0.2)["images_per_s"] > 0
        assert add_steadily(url, pid, images, 0.2, first=1_000_000, clients=3)["images_per_s"] > 0
        with pytest.raises(BenchmarkRefused, match="must make as many"):
            add_steadily(url, pid, images, 0.2)  # under the same numbers


@pytest.mark.slow
def test_everything_is_measured_on_a_real_server() -> None:
    found = measure_speed(TINY)
    one = found["backbones"]["resnet18"]
    service = one["service"]["small"]
    loads = [*service["clients"].values(), *service["batched"].values()]
    assert len(loads) == 4 and all(load["answers"] > 0 and not load["other"] for load in loads)
    assert all(len(ratios) == 2 and min(ratios) > 0 for ratios in one["ratios"]["small"].values())
    text = speed_text(found)
    assert "## resnet18" in text and any("small: adding over scoring" in line for line in text)
