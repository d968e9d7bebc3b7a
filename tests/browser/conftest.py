"""One server and one browser for all these tests; each test gets a browser profile of its own."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as TookTooLong

from app.cli.demo_images import MadeImage, texture_images
from app.main import create_app
from app.settings import Settings
from models.catalog import installed
from models.contract import Give, Need
from tests.rules.source_tree import ROOT

SEED = 20
CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run"
)
PICTURES = ROOT / ".artefacts" / "page"
AXE = (Path(__file__).parent / "axe_core" / "axe.min.js").read_text(encoding="utf-8")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}

# A screenshot waits for the pictures in view: at most five seconds, for one that never comes is to be seen too.
SEEN = """async () => {
    const inView = [...document.images].filter(one => one.getBoundingClientRect().top < innerHeight * 2);
    const come = Promise.all(inView.map(one => one.decode().catch(() => {})));
    await Promise.race([come, new Promise(over => setTimeout(over, 5000))]); }"""

PATIENCE_MS = 30_000  # on a busy machine
# A screenshot takes a fifth of a second. Seldom Chromium never answers one, with the page in order; it is asked anew.
SHOT_MS = 10_000
SHOTS = 3

Api = httpx2.Client


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever lies in this folder needs a browser."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def weaves() -> dict[str, list[MadeImage]]:
    """The demonstration's textures: a bank, flawless ones that are not in it, and damaged ones."""
    made = texture_images(54, 6, SEED)
    return {"bank": made[:44], "flawless": made[44:54], "damaged": made[54:]}


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The real service on a port of its own; its address."""
    config = uvicorn.Config(create_app(settings), port=0, log_level="error", ws="none", timeout_graceful_shutdown=1)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        while not running.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the service on an empty folder, that all tests share."""
    data = tmp_path_factory.mktemp("browser")
    settings = Settings(data=data, weights="stand-in", image_size=64, threads=1, jobs="thread", log_level="warning")
    with serving(settings) as address:
        yield address


@pytest.fixture(scope="session")
def api(server: str) -> Iterator[Api]:
    """For what a test needs to be there before it begins, and to see what came of it."""
    with httpx2.Client(base_url=server, timeout=120) as client:
        yield client


def send(api: Api, collection: str, images: list[MadeImage], **said: object) -> None:
    """Store images."""
    form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
    files = [("files", (one.name, one.data, "image/png")) for one in images]
    answer = api.post(f"/v1/collections/{collection}/images", files=files, data=form)
    assert answer.status_code == 201, answer.text


def make(api: Api, collection: str, images: list[MadeImage]) -> None:
    """A collection with these normal images, at a false-alarm rate of 5 %."""
    assert api.put(f"/v1/collections/{collection}", json={"false_alarm_rate": 0.05}).status_code == 201
    send(api, collection, images)


@pytest.fixture(scope="session")
def weave(api: Api, weaves: dict[str, list[MadeImage]]) -> str:
    """A collection that tests look at and do not change: a bank, and images that nobody has judged yet."""
    make(api, "weave", weaves["bank"])
    send(api, "weave", weaves["damaged"][:3] + weaves["flawless"][:3], role="unlabelled")
    return "weave"


@pytest.fixture(scope="session")
def files(weaves: dict[str, list[MadeImage]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The textures as files: the folders bank, flawless, damaged."""
    folder = tmp_path_factory.mktemp("files")
    for kind, images in weaves.items():
        (folder / kind).mkdir()
        for one in images:
            (folder / kind / one.name).write_bytes(one.data)
    return folder


def fitted_method(with_heat_maps: bool) -> str:
    """Name of a kept method that is fitted by a job, quick enough to wait for."""
    return next(
        card.name
        for card in installed().values()
        if card.role == "scorer"
        and card.status == "supported"
        and not card.live
        and (Give.HEAT_MAP in card.gives.outputs) == with_heat_maps
        and set(card.needs.required) <= {Need.VECTORS, Need.MAPS}
    )


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, without a window and without a network of its own."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield running
        running.close()


@pytest.fixture
def context(browser: Browser, server: str) -> Iterator[BrowserContext]:
    """A new, empty profile."""
    made = browser.new_context(
        base_url=server, viewport=SIZES["desktop"], color_scheme="light", reduced_motion="reduce"
    )
    made.set_default_timeout(PATIENCE_MS)
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    """A tab; whatever the browser complains of (a script's error, a breach of the policy) fails the test."""
    complaints: list[str] = []
    tab = context.new_page()
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda one: complaints.append(one.text) if _is_complaint(one.text, one.type) else None)
    yield tab
    assert not complaints, complaints


def _is_complaint(text: str, kind: str) -> bool:
    # A refusal (4xx) that the page shows as a sentence is reported by the browser too.
    return kind in ("error", "warning") and "Failed to load resource" not in text


Inspect = Callable[[Page, str], None]


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots are kept."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    return PICTURES


@pytest.fixture
def inspect(pictures: Path) -> Inspect:
    """Takes the screen as it stands, light and dark, desktop and phone, and has it checked for accessibility."""

    def look(page: Page, name: str) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for size, viewport in SIZES.items():
                page.set_viewport_size(viewport)  # type: ignore[arg-type]
                page.evaluate("scrollTo(0, 0)")
                page.evaluate(SEEN)
                photograph(page, pictures / f"{name}-{size}-{scheme}.png")
                wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 0, f"{name} at {size} size is {wide} px wider than the window"
                found = findings(page)
                assert not found, (name, scheme, size, found)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SIZES["desktop"])  # type: ignore[arg-type]

    return look


def photograph(page: Page, path: Path) -> None:
    """A screenshot of the whole page."""
    for _ in range(SHOTS - 1):
        try:
            page.screenshot(path=path, full_page=True, timeout=SHOT_MS)
        except TookTooLong:
            page.bring_to_front()
        else:
            return
    page.screenshot(path=path, full_page=True)


def findings(page: Page) -> list[str]:
    """Serious and critical findings of axe on what is shown."""
    if not page.evaluate("typeof axe !== 'undefined'"):
        page.evaluate(AXE)
    found = page.evaluate("rules => axe.run({runOnly: rules, resultTypes: ['violations']})", RULES)
    return [
        f"{one['impact']}: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
