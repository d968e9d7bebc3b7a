"""The interface as it describes itself: complete, and true to what clients rely on."""

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.classes.schemas import ClassifyParameters
from app.classes.schemas import RegisterParameters as RegisterClassParameters
from app.explaining.schemas import ExplainParameters
from app.groups.schemas import GroupScoreParameters, RegisterParameters
from app.images.schemas import AddParameters
from app.main import _routes, create_app
from app.scoring.schemas import ScoreParameters
from app.search.schemas import QueryParameters
from app.settings import Settings

C = "/v1/collections/{c}"
# Fixed: outside clients rely on these. More may be added.
PATHS = {
    "/v1/collections": {"get"},
    C: {"put", "get", "patch", "delete"},
    f"{C}/images": {"post", "get"},
    f"{C}/images/{{id}}": {"get", "patch", "delete"},
    f"{C}/images/{{id}}/content": {"get"},
    f"{C}/images/{{id}}/thumbnail": {"get"},
    f"{C}/images/delete": {"post"},
    f"{C}/images/import": {"post"},
    f"{C}/anomaly": {"post"},
    f"{C}/groups/{{g}}": {"put"},
    f"{C}/groups/anomaly": {"post"},
    f"{C}/query": {"post"},
    f"{C}/duplicates": {"post"},
    f"{C}/classes": {"get"},
    f"{C}/classes/{{label}}": {"put", "get", "delete"},
    f"{C}/classify": {"post"},
    f"{C}/embeddings": {"post", "get"},
    f"{C}/embeddings/{{v}}/activate": {"post"},
    f"{C}/embeddings/rollback": {"post"},
    f"{C}/scorers/{{id}}": {"put", "get", "delete"},
    f"{C}/explain": {"post"},
    f"{C}/feedback": {"post"},
    f"{C}/drift": {"get"},
    f"{C}/clean": {"post"},
    f"{C}/compress": {"post"},
    f"{C}/calibrate": {"post"},
    f"{C}/compact": {"post"},
    f"{C}/snapshots": {"post", "get"},
    f"{C}/restore": {"post"},
    "/v1/scorers": {"get"},
    "/v1/scorers/{id}": {"get"},
    "/v1/jobs": {"get"},
    "/v1/jobs/{id}": {"get"},
    "/v1/jobs/{id}/events": {"get"},
    "/v1/jobs/{id}/cancel": {"post"},
    "/compat/lookoutvision/2020-11-20/projects/{p}/models/{v}/detect": {"post"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
}
IMAGES_IN = [(f"{C}/images", "post"), (f"{C}/anomaly", "post"), (f"{C}/query", "post"), (f"{C}/groups/{{g}}", "put"),
             (f"{C}/groups/anomaly", "post"), (f"{C}/classes/{{label}}", "put"), (f"{C}/classify", "post"),
             (f"{C}/explain", "post")]  # fmt: skip
VERBS = {"get", "put", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    settings = Settings(data=tmp_path_factory.mktemp("openapi"), weights="stand-in", image_size=32, threads=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient) -> dict:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: dict) -> Iterator[tuple[str, str, dict]]:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if verb in VERBS:
                yield path, verb, operation


def test_it_says_what_it_is(document: dict, client: TestClient) -> None:
    assert document["openapi"].startswith("3.1") and document["info"]["title"] == "Oddity"
    assert document["info"]["version"] and document["info"]["license"]["identifier"] == "Apache-2.0"
    assert client.get("/docs").status_code == 200


@pytest.mark.parametrize("path", PATHS)
def test_a_fixed_path_is_there_with_its_verbs(document: dict, path: str) -> None:
    assert PATHS[path] <= document["paths"].get(path, {}).keys()


def test_every_operation_has_a_sentence_an_answer_and_its_path_parameters(document: dict) -> None:
    seen = set()
    for path, verb, operation in operations(document):
        where = f"{verb} {path}"
        assert operation.get("summary") and operation.get("description"), where
        assert operation["description"].rstrip().endswith((".", "?")), where
        assert operation["operationId"] not in seen, where
        seen.add(operation["operationId"])
        codes = operation["responses"].keys()
        assert any(code.startswith("2") for code in codes), where
        described = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)}", path)), where
        assert operation.get("tags"), where


@pytest.mark.parametrize(("path", "verb"), IMAGES_IN)
def test_a_path_that_takes_images_describes_the_three_ways(document: dict, path: str, verb: str) -> None:
    content = document["paths"][path][verb]["requestBody"]["content"]
    assert {"multipart/form-data", "image/jpeg", "image/png", "application/json"} <= content.keys()
    form = content["multipart/form-data"]["schema"]["properties"]
    assert form["files"]["type"] == "array" and form["files"]["items"]["format"] == "binary"
    assert all(one.get("description") for one in form.values())
    assert set(form) - {"files"} == set(content["application/json"]["schema"]["properties"]) - {"images"}


# Parameters that the reader of a path accepts must be those that the document names.
BODIES = {
    f"{C}/images": AddParameters,
    f"{C}/anomaly": ScoreParameters,
    f"{C}/query": QueryParameters,
    f"{C}/groups/{{g}}": RegisterParameters,
    f"{C}/groups/anomaly": GroupScoreParameters,
    f"{C}/classes/{{label}}": RegisterClassParameters,
    f"{C}/classify": ClassifyParameters,
    f"{C}/explain": ExplainParameters,
}


@pytest.mark.parametrize("path", BODIES)
def test_every_parameter_of_a_body_is_described(document: dict, path: str) -> None:
    verb = "put" if path.endswith(("{g}", "{label}")) else "post"
    form = document["paths"][path][verb]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    assert set(form) - {"files"} == set(BODIES[path].model_fields)


def test_every_reference_leads_somewhere(document: dict) -> None:
    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    for reference in references(document):
        target: object = document
        for step in reference.removeprefix("#/").split("/"):
            assert isinstance(target, dict) and step in target, reference
            target = target[step]


def test_the_main_answers_have_examples(document: dict) -> None:
    for path in (f"{C}/anomaly", f"{C}/query", f"{C}/classify", f"{C}/explain"):
        assert document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["example"]


def test_routes_are_worked_out_before_the_first_request(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    _routes.cache_clear()  # as in a process that has answered nothing yet
    made = create_app(settings)
    monkeypatch.delattr("fastapi.routing.get_dependant")
    with TestClient(made) as client:
        assert client.get("/v1/collections").status_code == 200
        assert client.put("/v1/collections/c").status_code == 201
        assert client.get("/v1/collections/c/scorers/none").status_code == 404
