"""The picture of the page that README shows: `make picture` draws it anew, from photographs that are made here."""

from pathlib import Path
from tempfile import TemporaryDirectory

import httpx2
import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import expect, sync_playwright

from app.settings import Settings
from tests.browser.conftest import CHROMIUM, FLAGS, serving
from tests.rules.source_tree import ROOT

PICTURE = ROOT / "docs" / "page.webp"
WIDTH, HEIGHT = 1200, 820
GOOD = 60


def part(seed: int, is_damaged: bool) -> Image.Image:
    """A photograph of a flange on brushed metal; the damaged one has a scratch and a spot of rust."""
    random = np.random.default_rng(seed)
    ground = 150.0 + random.normal(0, 9, (480, 1)) + np.linspace(-20, 20, 640) + random.normal(0, 6, (480, 640))
    image = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).convert("RGB").crop((80, 0, 560, 480))
    draw = ImageDraw.Draw(image)
    x, y = (int(240 + one) for one in random.integers(-8, 9, 2))

    def disc(across: float, down: float, radius: float, fill: tuple[int, int, int]) -> None:
        draw.ellipse([x + across - radius, y + down - radius, x + across + radius, y + down + radius], fill=fill)

    disc(0, 0, 156, (60, 66, 76))
    disc(0, 0, 150, (96, 104, 118))
    disc(0, 0, 60, (160, 166, 172))
    for turn in np.arange(6) * np.pi / 3:
        disc(105 * np.cos(turn), 105 * np.sin(turn), 16, (40, 44, 52))
    if is_damaged:
        draw.line([x - 130, y + 70, x - 40, y + 20, x + 10, y + 90], fill=(226, 218, 204), width=10)
        disc(82, -100, 22, (150, 78, 44))
    return image.filter(ImageFilter.GaussianBlur(1.1))


def draw() -> None:
    """Score two new photographs against normal ones on the page, and keep what it shows."""
    with TemporaryDirectory() as folder:
        files = Path(folder) / "photographs"
        (files / "good").mkdir(parents=True)
        for number in range(GOOD):
            part(number, is_damaged=False).save(files / "good" / f"flange-{number:03}.jpg", quality=92)
        new = [files / "flange-212.jpg", files / "flange-213.jpg"]
        for number, (path, is_damaged) in enumerate(zip(new, (False, True), strict=True)):
            part(900 + number, is_damaged).save(path, quality=92)
        settings = Settings(data=Path(folder) / "data", weights="stand-in", jobs="thread", log_level="warning")
        with serving(settings) as address, sync_playwright() as playwright:
            _prepare(address, sorted((files / "good").iterdir()))
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
            page.goto(f"{address}/#/c/flanges/score")
            page.get_by_label("Does this belong?: images").set_input_files(new)
            page.get_by_role("button", name="What does this rest on?").first.click(timeout=120_000)
            expect(page.locator(".heat-layer")).to_have_count(1, timeout=120_000)
            page.evaluate("document.activeElement.blur()")
            page.mouse.move(0, 0)
            page.wait_for_load_state("networkidle")
            shot = Path(folder) / "page.png"
            page.screenshot(path=shot)
            browser.close()
        Image.open(shot).convert("RGB").save(PICTURE, "WEBP", quality=80, method=6)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


def _prepare(address: str, good: list[Path]) -> None:
    flanges = "/v1/collections/flanges"
    with httpx2.Client(base_url=address, timeout=300) as api:
        api.put(flanges, json={"false_alarm_rate": 0.05}).raise_for_status()
        for start in range(0, len(good), 20):
            sent = [("files", (one.name, one.read_bytes(), "image/jpeg")) for one in good[start : start + 20]]
            api.post(f"{flanges}/images", files=sent).raise_for_status()


if __name__ == "__main__":
    draw()
