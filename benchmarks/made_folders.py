"""Folders of labelled images that need no outside data: scikit-learn's digits, and drawn textures with defects."""

from pathlib import Path

from app.cli.demo_images import MadeImage, digit_images, texture_images

DIGITS_TEST_EVERY = 4  # each fourth scan of a digit is a test image
TEXTURES_TRAIN, TEXTURES_TEST, DEFECTIVE = 300, 120, 90


def write_digits(folder: Path) -> Path:
    """A folder of the classes layout: ten digits."""
    seen: dict[str, int] = {}
    for made in digit_images():
        place = seen[made.kind] = seen.get(made.kind, -1) + 1
        _write(made, folder / ("test" if place % DIGITS_TEST_EVERY == 0 else "train") / made.kind)
    return folder


def write_textures(folder: Path, seed: int) -> Path:
    """A folder of the inspection layout: flawless weaves, and three kinds of defect with their masks."""
    for number, made in enumerate(texture_images(TEXTURES_TRAIN + TEXTURES_TEST, DEFECTIVE, seed)):
        part = "train" if number < TEXTURES_TRAIN else "test"
        _write(made, folder / part / ("good" if made.kind == "flawless" else made.kind))
        if made.mask is not None:
            mask = folder / "ground_truth" / made.kind / f"{Path(made.name).stem}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.write_bytes(made.mask)
    return folder


def _write(made: MadeImage, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / made.name).write_bytes(made.data)
