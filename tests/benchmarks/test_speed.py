"""`oddity bench speed`: made images, what is told of a load, and one tiny run of everything."""

import io

import pytest
from PIL import Image

from benchmarks.clients import Load, commented, cpu_seconds, memory_mib, posted_anew
from benchmarks.errors import BenchmarkRefused
from benchmarks.speed import PARTS, SpeedPlan, _ratios, made_jpegs, measure_speed, speed_text


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


def test_ratios_are_of_what_was_measured() -> None:
    answers = {"1": {"images_per_s": 10.0, "p50_ms": 12.0}, "32": {"images_per_s": 30.0, "p50_ms": 900.0}}
    found = {
        "decoder": {"small": {"images_per_s": 100.0}},
        "network": {"served": {"images_per_s": {"batch_1": 20.0, "batch_16": 100.0}}},
        "baseline": {"small": {"images_per_s": 5.0}},
        "stages": {"small": {"decode_ms": 4.0, "network_1_ms": 5.0, "search_1000_ms": 1.0}},
        "stages_after_a_pause": {"small": {"decode_ms": 5.0, "network_1_ms": 8.0, "search_1000_ms": 2.0}},
        "service": {
            "small": {
                "clients": answers,
                "batched": {"1": {"images_per_s": 45.0}, "8": {"images_per_s": 40.0}},
                "adding": {"images_per_s": 27.0},
            }
        },
    }
    assert _ratios(found, "small") == pytest.approx(
        {
            "ceiling_images_per_s": 50.0,
            "service_over_ceiling": 0.6,
            "batched_over_ceiling": 0.9,
            "service_over_baseline": 6.0,
            "batched_over_baseline": 9.0,
            "adding_over_scoring": 0.9,
            "idle_p50_over_parts": 1.2,
            "idle_p50_over_parts_after_a_pause": 0.8,
        }
    )
    assert set(_ratios({}, "small").values()) == {None}
    del answers["32"]
    alone = _ratios(found, "small")
    assert alone["service_over_baseline"] == 2.0
    assert alone["adding_over_scoring"] is None  # one client scores more slowly, which would flatter it


@pytest.mark.parametrize("wrong", [{"parts": ("all",)}, {"sizes": ("huge",)}, {"precisions": ("fp4",)}])
def test_parts_that_do_not_exist_are_refused(wrong: dict) -> None:
    with pytest.raises(BenchmarkRefused, match="must be of"):
        SpeedPlan(**wrong)


def test_a_process_that_is_gone_has_used_nothing() -> None:
    assert (cpu_seconds(2**30), memory_mib(2**30)) == (0.0, 0.0)


TINY = SpeedPlan(
    backbones=("resnet18",), sizes=("small",), precisions=("float32",), clients=(1, 32), images=2, bank=4, seconds=0.2,
    image_size=32, threads=1,
)  # fmt: skip


def test_the_parts_in_this_process_are_measured() -> None:
    plan = SpeedPlan(**{name: getattr(TINY, name) for name in TINY.__slots__ if name != "parts"}, parts=PARTS[:3])
    found = measure_speed(plan)["backbones"]["resnet18"]
    assert found["decoder"]["small"]["images_per_s"] > 0 and found["baseline"]["small"]["images_per_s"] > 0
    assert set(found["network"]) == {"served", "openvino float32", "torch float32"}
    assert found["ratios"]["small"]["ceiling_images_per_s"] > 0


@pytest.mark.slow
def test_everything_is_measured_on_a_real_server() -> None:
    found = measure_speed(TINY)
    one = found["backbones"]["resnet18"]
    service = one["service"]["small"]
    loads = [*service["clients"].values(), *service["batched"].values()]
    assert len(loads) == 4 and all(load["answers"] > 0 and not load["other"] for load in loads)
    assert all(ratio > 0 for ratio in one["ratios"]["small"].values())
    assert "## resnet18" in speed_text(found)
