"""The start page: whole, from this server alone, and unable to run what is not its own."""

import re
from importlib.metadata import version

import pytest
from starlette.testclient import TestClient

from tests.contract.problem_shape import problem_of


def test_the_page_names_its_version_and_the_first_step(shared: TestClient) -> None:
    answer = shared.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert version("oddity") in answer.text and "{{" not in answer.text
    assert "oddity demo" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy
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


@pytest.mark.parametrize("path", ["none.js", "..%2fmain.py", "..%2f..%2fpyproject.toml", "%2e%2e/main.py", "%00"])
def test_only_static_files_are_served_as_such(shared: TestClient, path: str) -> None:
    problem_of(shared.get(f"/static/{path}"), 404, "not_found")
