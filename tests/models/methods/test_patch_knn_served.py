"""Heat maps of patches over HTTP: on the image as a person sees it, whatever its shape and however it was held."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import embedders_are_kept
from tests.app.working import asked, scores
from tests.conftest import add
from tests.contract.problem_shape import problem_of

__all__ = ["embedders_are_kept"]  # a fixture of every test
WIDTH, HEIGHT = 192, 96
PLACE = (0.72, 0.3)  # of the defect's middle, in shares of width and height: in no symmetric spot
ASK = {"scorer": "patch_knn", "heatmap": True}
TURNED = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}


def photograph(seed: int, defect: bool = False) -> Image.Image:
    """A wide sheet of woven cloth, with its own light and grain; a defect is a dark spot of 20 pixels."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = 140 + 30 * np.sin(x / 3) * np.sin(y / 3) + random.normal(0, 4, (HEIGHT, WIDTH)) + random.uniform(-5, 5)
    if defect:
        is_spot = (np.abs(x - PLACE[0] * WIDTH) < 10) & (np.abs(y - PLACE[1] * HEIGHT) < 10)
        pixels[is_spot] -= 50
    return Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2))


def png(image: Image.Image, orientation: int = 1) -> bytes:
    """The image as a camera stores it that was held so: pixels turned, and a note how to turn them back."""
    turn = TURNED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    (image if turn is None else image.transpose(turn)).save(buffer, "PNG", exif=exif)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A service whose collections hold the same cloth, one seen whole and one by its middle."""
    settings = Settings(data=tmp_path_factory.mktemp("served"), weights="stand-in", image_size=96, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        bank = {f"n{seed:02}": png(photograph(seed), orientation=(1, 6, 3, 8)[seed % 4]) for seed in range(40)}
        client.put("/v1/collections/middle", json={"fit": "crop"}).raise_for_status()
        for name in ("whole", "middle"):
            add(client, name, bank)
            answer = client.put(
                f"/v1/collections/{name}/scorers/patch_knn",
                json={"params": {"memory_patches": 256}},
                params={"wait": 60},
            )
            assert answer.status_code == 200 and answer.json()["state"] == "succeeded", answer.text
        yield client


def values(told: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(told["values"]), "<f4").reshape(told["shape"])


def overlay(told: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(told["overlay"].partition(",")[2]))))


def middle_of_redness(picture: np.ndarray) -> tuple[float, float]:
    """Where the overlay is most opaque and reddest, in shares of its width and height."""
    is_opaque = picture[:, :, 3] == picture[:, :, 3].max()
    y, x = np.nonzero(is_opaque & (picture[:, :, 1] == picture[is_opaque][:, 1].min()))  # yellow turns to red
    return (x.mean() + 0.5) / picture.shape[1], (y.mean() + 0.5) / picture.shape[0]


@pytest.mark.parametrize("orientation", TURNED)
def test_the_map_lies_on_the_upright_image(served: TestClient, orientation: int) -> None:
    images = [png(photograph(900, defect=True), orientation), png(photograph(900), orientation)]
    strange, clean = asked(served, "whole", images, **ASK)["results"]
    told = strange["heatmap"]
    heat = values(told)
    assert heat.shape == (12, 12) and heat.max() == pytest.approx(strange["score"])
    rise = np.clip(heat - values(clean["heatmap"]), 0, None)
    y, x = (np.mgrid[:12, :12] + 0.5) / 12
    assert np.average(x, weights=rise) == pytest.approx(PLACE[0], abs=0.12)
    assert np.average(y, weights=rise) == pytest.approx(PLACE[1], abs=0.12)
    picture = overlay(told)
    assert picture.shape == (HEIGHT, WIDTH, 4)  # the image's own proportions, not the square's
    across, down = middle_of_redness(picture)
    assert across == pytest.approx(PLACE[0], abs=0.15) and down == pytest.approx(PLACE[1], abs=0.15)
    # Negative controls: the clean image has no such place, and mirrored it would lie elsewhere.
    assert values(clean["heatmap"]).max() < 0.7 * heat.max()
    assert abs(1 - across - PLACE[0]) > 0.15 < abs(1 - down - PLACE[1])


def test_however_it_was_held_the_answer_is_the_same(served: TestClient) -> None:
    image = photograph(901, defect=True)
    first, *others = [asked(served, "whole", [png(image, one)], **ASK)["results"][0] for one in TURNED]
    assert all(one["heatmap"] == first["heatmap"] and one["score"] == first["score"] for one in others)
    # Negative control: without the note the camera's pixels are another image.
    (plain,) = asked(served, "whole", [png(image.transpose(Image.Transpose.ROTATE_90))], **ASK)["results"]
    assert plain["heatmap"]["values"] != first["heatmap"]["values"]


def test_one_scale_for_all_and_a_normal_image_is_not_red(served: TestClient) -> None:
    images = [png(photograph(seed)) for seed in range(500, 512)] + [png(photograph(600, defect=True))]
    results = asked(served, "whole", images, **ASK)["results"]
    scales = {tuple(one["heatmap"][name] for name in ("low", "border", "high")) for one in results}
    assert len(scales) == 1
    *normal, strange = [overlay(one["heatmap"]) for one in results]
    shares = [np.mean((one[:, :, 1] < 100) & (one[:, :, 3] > 150)) for one in (*normal, strange)]  # deep red
    assert max(shares[:-1]) == 0.0 < shares[-1]
    assert [one["anomalous"] for one in results][-1] is True


def test_the_map_of_a_cropped_image_covers_the_part_that_was_seen(served: TestClient) -> None:
    (one,) = asked(served, "middle", [png(photograph(902))], **ASK)["results"]
    told = one["heatmap"]
    assert told["region"] == {"left": 0.25, "top": 0.0, "right": 0.75, "bottom": 1.0}
    assert overlay(told).shape == (HEIGHT, HEIGHT, 4)


def test_a_score_has_the_same_bits_alone_and_in_company(served: TestClient) -> None:
    images = [png(photograph(seed, defect=seed % 2 == 0)) for seed in range(700, 704)]
    together = scores(served, "whole", images, scorer="patch_knn")
    assert [scores(served, "whole", [one], scorer="patch_knn")[0] for one in images] == together


def test_the_card_is_served_and_wrong_parameters_are_refused(served: TestClient) -> None:
    card = served.get("/v1/scorers/patch_knn").json()
    assert "heat_map" in card["gives"]["outputs"] and card["needs"]["required"] == ["maps"]
    assert served.get("/v1/collections/whole/scorers/patch_knn").json()["fit"]["heatmap"] is True
    answer = served.put("/v1/collections/whole/scorers/patch_knn", json={"params": {"stages": [3, 2]}})
    assert "must be ascending, each stage once; got [3, 2]" in problem_of(answer, 422, "parameter_invalid")["detail"]
