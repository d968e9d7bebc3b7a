"""The REST reference says what the interface's own description says."""

from pathlib import Path

from app.main import create_app
from app.rest_page import VERBS, rest_page
from app.settings import Settings


def test_every_operation_and_parameter_is_on_the_page(tmp_path: Path) -> None:
    document = create_app(Settings(data=tmp_path, weights="stand-in")).openapi()
    page = rest_page(document)
    sections = page.split("\n### ")[1:]
    told = {section.splitlines()[0].strip("`"): section for section in sections}
    asked = {f"{verb.upper()} {path}" for path, item in document["paths"].items() for verb in VERBS if verb in item}
    assert set(told) == asked
    for path, item in document["paths"].items():
        for verb in set(VERBS) & set(item):
            section = told[f"{verb.upper()} {path}"]
            for parameter in item[verb].get("parameters", []):
                assert f"| `{parameter['name']}` | {parameter['in']} |" in section
    assert "| `limit` | query | integer from 1 to 1000; default `100` |" in told["GET /v1/jobs"]
    assert "| `files` | body |" in told["POST /v1/collections/{c}/anomaly"]
    assert "| `fraction` | body |" in told["POST /v1/collections/{c}/clean"]
    assert "201: Made" in told["PUT /v1/collections/{c}"]
