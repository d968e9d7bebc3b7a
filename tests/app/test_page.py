"""The start page: whole, from this server alone, and unable to run what is not its own."""

import os
import re
from importlib.metadata import version
from importlib.resources import files
from pathlib import PurePosixPath

import pytest
from starlette.testclient import TestClient

from tests.contract.problem_shape import problem_of


def test_the_page_names_its_version_and_the_first_step(shared: TestClient) -> None:
    answer = shared.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert version("oddity") in answer.text and "{{" not in answer.text
    assert "oddity demo" in answer.text
    policy = answer.headers["content-security-policy"]
    for part in (
        "default-src 'none'",
        "script-src 'self';",
        "style-src 'self';",
        "connect-src 'self';",
        "base-uri 'none'",
    ):
        assert part in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("page", ["/", "/docs"])
def test_everything_it_loads_is_here(shared: TestClient, page: str) -> None:
    text = shared.get(page).text
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    assert loaded
    for address in loaded:
        assert address.startswith(("/", "#")), f"{address} lies elsewhere"
        if address.startswith("/"):
            assert shared.get(address).status_code == 200, address
    assert "<script>" not in text and "onclick" not in text  # the policy would not run them


def test_every_module_it_imports_is_here_and_kept_fresh(shared: TestClient) -> None:
    waiting, seen = ["/static/page/main.js"], set()
    while waiting:
        address = waiting.pop()
        if address in seen:
            continue
        seen.add(address)
        answer = shared.get(address)
        assert answer.status_code == 200, address
        assert answer.headers["content-type"].startswith("text/javascript"), address
        assert answer.headers["cache-control"] == "no-cache"
        found = re.findall(
            r"""(?:^|[;}])\s*(?:import|export)[^;"'`]*from\s*["']([^"']+)["']""", answer.text, re.MULTILINE
        )
        assert all(one.startswith(".") for one in found), address  # nothing is taken from elsewhere
        waiting.extend(str(PurePosixPath(os.path.normpath(PurePosixPath(address).parent / one))) for one in found)
    assert len(seen) > 15 and "/static/vendor/preact/preact.js" in seen
    etag = shared.get("/static/page.css").headers["etag"]
    assert shared.get("/static/page.css", headers={"If-None-Match": etag}).status_code == 304


def test_vendored_parts_come_with_their_licences() -> None:
    vendored = files("app") / "static" / "vendor"
    for part in ("preact", "htm"):
        assert "opyright" in (vendored / part / "LICENSE").read_text(encoding="utf-8")
        assert part in (vendored / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", ["none.js", "..%2fmain.py", "..%2f..%2fpyproject.toml", "%2e%2e/main.py", "%00"])
def test_only_static_files_are_served_as_such(shared: TestClient, path: str) -> None:
    problem_of(shared.get(f"/static/{path}"), 404, "not_found")
