"""`oddity bench hostile`: what is sent is what it says, and one short run on a real server."""

import io
import tarfile
import zipfile

import pytest
from PIL import Image

from benchmarks.hostile import HostilePlan, hostile_text, measure_hostile
from benchmarks.hostile_inputs import bomb, kinds, mutated, odd_archive, picture, png_of
from models.errors import ImageTooLarge
from models.images import ImageLimits, decode_image


def test_inputs_are_seeded_and_what_they_say() -> None:
    assert mutated(3) == mutated(3) != mutated(4) and mutated(3) != picture()
    with Image.open(io.BytesIO(png_of(300, 200, whole=True))) as image:
        image.load()
        assert image.size == (300, 200)
    with pytest.raises(ImageTooLarge):
        decode_image(png_of(50_000, 50_000, whole=False), ImageLimits())
    with zipfile.ZipFile(io.BytesIO(bomb())) as packed:
        assert sum(one.file_size for one in packed.infolist()) == 2**28 > 500 * len(bomb())
    with zipfile.ZipFile(io.BytesIO(odd_archive(0))) as packed:
        assert "../../out.png" in packed.namelist()
    with tarfile.open(fileobj=io.BytesIO(odd_archive(1))) as archive:
        assert archive.getmember("link").issym() and archive.getmember("device").ischr()
    assert len({one.name for one in kinds()}) == len(kinds())


@pytest.mark.slow
def test_nothing_of_it_is_a_server_error() -> None:
    found = measure_hostile(HostilePlan(times=2, clients=2, image_size=32, bank=4))
    assert found["is_within_bars"] and found["server_errors"] == 0
    assert found["stranger"]["told_apart"] == []
    assert found["stranger"]["answered"] == ["/healthz", "/readyz"]
    outcomes = {one["kind"]: set(one["outcomes"]) for one in found["kinds"]}
    assert outcomes["PNG of 9,000 × 9,000, more than a decoder may allocate"] == {"413"}
    assert outcomes["PNG of 4,000 × 4,000 in some KB"] == {"200", "201"}
    assert "A stranger" in "\n".join(hostile_text(found))
