"""Two keys, each for a collection of its own: on every path of the interface neither learns anything of the other.

The paths come from the interface's own description, so a new one is tried without a line here. Only what lies outside
a collection and takes neither `read` nor `write` by app/access/rules.py has to be named: see ADMINS.
"""

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from tests.app.conftest import embedders_are_kept  # noqa: F401 - a fixture
from tests.app.keyholders import holder
from tests.conftest import add, png

MINE, THEIRS, NOWHERE = "quokka", "numbat", "thylacine"
VERBS = ("get", "put", "post", "patch", "delete")
# Paths for admins. One that is neither below a collection nor here fails: app/access/rules.py is to say what it takes.
ADMINS = ("/v1/keys", "/v1/audit")
# POST below a collection with scope read: what it answers is computed, nothing is changed.
COMPUTING = {"anomaly", "classify", "query", "groups/anomaly", "explain"}
PUBLIC = {"/healthz", "/readyz"}
document = create_app(Settings()).openapi()  # opens nothing
OPERATIONS = [(verb, path) for path, item in document["paths"].items() for verb in VERBS if verb in item]
LIMITED = [one for one in OPERATIONS if one[1] not in PUBLIC]
NAMED = [one for one in LIMITED if "{" in one[1]]
ids = lambda one: " ".join(one) if isinstance(one, tuple) else None  # noqa: E731


class Owner:
    """A collection with one of everything, and what must not become known of it."""

    def __init__(self, admin: TestClient, name: str, seed: int) -> None:
        self.name = name
        self.base = f"/v1/collections/{name}"
        images = {f"{name}-img-{number}": png(seed + number) for number in range(12)}
        add(admin, name, images)
        self.ids = {"img": f"{name}-img-1", "g": f"{name}-group", "label": f"{name}-label", "scorers": f"{name}-scorer"}
        labelled = {"ids": [self.ids["img"]], "metadata": {"note": f"{name}-note"}}
        admin.put(f"{self.base}/groups/{self.ids['g']}", json=labelled).raise_for_status()
        admin.put(f"{self.base}/classes/{self.ids['label']}", json={"ids": [f"{name}-img-2"]}).raise_for_status()
        told = admin.post(f"{self.base}/feedback", json={"kind": "missed", "id": f"{name}-img-3"})
        self.ids["feedback"] = told.json()["id"]
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr(f"{name}-packed.png", png(seed + 100))
        zipped = {"content": archive.getvalue(), "headers": {"content-type": "application/zip"}}
        self.ids["imports"] = self.job(admin, "post", "images/import", **zipped)
        self.ids["duplicates"] = self.job(admin, "post", "duplicates", json={"levels": ["exact_bytes"]})
        self.ids["snapshots"] = self.job(admin, "post", "snapshots")
        self.ids["clean"] = self.job(admin, "post", "clean", json={"fraction": 0.1})
        self.ids["jobs"] = self.ids["duplicates"]
        shown = admin.get(f"{self.base}/images/{self.ids['img']}").json()
        self.marks = {name, shown["sha256"], *self.ids.values()}

    def job(self, admin: TestClient, verb: str, tail: str, **sent: Any) -> str:
        """The id of a job that has succeeded."""
        answer = admin.request(verb, f"{self.base}/{tail}", params={"wait": 60}, **sent)
        assert answer.status_code == 200 and answer.json()["state"] == "succeeded", answer.text
        found: str = answer.json()["id"]
        return found

    def path(self, template: str, collection: str | None = None) -> str:
        """A path with this owner's things in its places, in this or another collection."""

        def place(match: re.Match[str]) -> str:
            holder_of = template[: match.start()].rstrip("/").rpartition("/")[2]  # images in …/images/{id}
            known = {"c": collection or self.name, "p": collection or self.name, "g": self.ids["g"], "v": "dn2"}
            if match[1] in known:
                return known[match[1]]
            return self.ids.get(match[1]) or self.ids.get(holder_of) or self.ids["img"]

        return re.sub(r"{(\w+)}", place, template)


class World:
    """A service with two owners, and a key of the first."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.admin = holder(client, "admin", "admin")
        self.mine, self.theirs = Owner(self.admin, MINE, 0), Owner(self.admin, THEIRS, 1000)
        self.key = holder(client, "mine", "read", "write", collections=[MINE, "spare-*"])

    def told(self, answer: Any, sent: str) -> set[str]:
        """What of the other an answer tells that was not in the question."""
        text = answer.text + str(dict(answer.headers))
        return {mark for mark in self.theirs.marks if mark in text and mark not in sent}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = Settings(
        data=tmp_path_factory.mktemp("two"), weights="stand-in", image_size=32, threads=1, access="keys"
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield World(client)


def code_of(answer: Any) -> str:
    """What kind of error it is, in the shape of this service or in that of the one it stands in for."""
    code: str = answer.json().get("code") or answer.headers["x-amzn-errortype"]
    return code


def bodies(owner: Owner) -> list[dict[str, Any]]:
    """Ways to name another's things in a body."""
    return [
        {},
        {"json": {"ids": [owner.ids["img"]]}},
        {"json": {"id": owner.ids["img"], "kind": "missed"}},
        {"json": {"snapshot": owner.ids["snapshots"]}},
        {"content": png(5), "headers": {"content-type": "image/png"}},
    ]


@pytest.mark.parametrize("operation", NAMED, ids=ids)
def test_what_is_anothers_is_never_reached(world: World, operation: tuple[str, str]) -> None:
    verb, template = operation
    path = world.theirs.path(template)
    for sent in bodies(world.theirs):
        answer = world.key.request(verb, path, **sent)
        if template.startswith("/v1/scorers/"):  # of methods, which are everybody's
            assert answer.status_code == 404
        else:
            assert answer.status_code in (401, 403, 404), (verb, path, answer.text)
        assert world.told(answer, f"{path} {sent}") == set(), (verb, path, answer.text)
    # Whether it is there makes no difference to the answer.
    unknown = template.replace("{c}", NOWHERE).replace("{p}", NOWHERE)
    unknown = re.sub(r"{(job|id)}", "0" * 32, unknown)
    unknown = re.sub(r"{\w+}", "x", unknown)
    absent, there = world.key.request(verb, unknown), world.key.request(verb, path)
    assert (absent.status_code, code_of(absent)) == (there.status_code, code_of(there)), (verb, path)


@pytest.mark.parametrize("operation", [one for one in NAMED if one[1].count("{") > 1 or one[0] != "get"], ids=ids)
def test_anothers_things_are_not_found_through_ones_own_collection(world: World, operation: tuple[str, str]) -> None:
    verb, template = operation
    if not template.startswith("/v1/collections/{c}/") or (verb == "delete" and template.count("{") == 1):
        return  # nothing to name, or it would end the collection
    # A PUT to a name that another has used makes a thing of one's own.
    path = world.mine.path(template) if verb == "put" else world.theirs.path(template, collection=MINE)
    for sent in bodies(world.theirs):
        answer = world.key.request(verb, path, **sent)
        if verb in ("get", "delete", "patch"):
            assert answer.status_code >= 400, (verb, path, answer.text)
        assert world.told(answer, f"{path} {sent}") == set(), (verb, path, answer.text)


@pytest.mark.parametrize("operation", [one for one in LIMITED if one[0] == "get" and "{" not in one[1]], ids=ids)
def test_lists_hold_nothing_of_anothers(world: World, operation: tuple[str, str]) -> None:
    for query in ({}, {"limit": "1000"}, {"collection": MINE}, {"collection": THEIRS}):
        answer = world.key.get(operation[1], params=query)
        assert world.told(answer, str(query)) == set(), answer.text
        if THEIRS in query.values():
            assert answer.status_code >= 400, answer.text


def test_ones_own_is_listed(world: World) -> None:
    mine = {MINE, "spare-restored"}  # the second by another test, perhaps
    assert {MINE} <= {one["name"] for one in world.key.get("/v1/collections").json()["collections"]} <= mine
    jobs = world.key.get("/v1/jobs?limit=1000").json()["jobs"]
    assert world.mine.ids["jobs"] in {one["id"] for one in jobs} and {one["collection"] for one in jobs} <= {
        *mine,
        None,
    }
    assert world.key.get(f"/v1/jobs/{world.mine.ids['jobs']}").status_code == 200
    everything = world.admin.get("/v1/jobs?limit=1000").json()["jobs"]
    assert {one["collection"] for one in everything} >= {MINE, THEIRS}


def test_anothers_snapshot_is_not_restored_and_ones_own_is(world: World) -> None:
    path = "/v1/collections/spare-restored/restore"
    refused = world.key.post(path, json={"snapshot": world.theirs.ids["snapshots"]})
    absent = world.key.post(path, json={"snapshot": "0" * 32})
    assert refused.status_code == absent.status_code == 404
    assert refused.json()["code"] == absent.json()["code"] == "snapshot_unknown"
    mine = {"snapshot": world.mine.ids["snapshots"]}
    assert world.key.post(f"/v1/collections/{NOWHERE}/restore", json=mine).status_code == 403
    job = world.key.post(path, json=mine, params={"wait": 60})
    assert job.json()["state"] == "succeeded", job.text
    # Its job belongs to no collection when it begins, and is the key's own all the same; not that of another key.
    assert world.key.get(f"/v1/jobs/{job.json()['id']}").status_code == 200
    assert job.json()["id"] in world.key.get("/v1/jobs").text
    other = holder(world.client, "theirs", "read", "write", collections=[THEIRS])
    assert other.get(f"/v1/jobs/{job.json()['id']}").status_code == 404
    assert job.json()["id"] not in other.get("/v1/jobs?limit=1000").text


def test_folders_of_the_server_are_for_keys_without_limits(world: World) -> None:
    answer = world.key.post(f"/v1/collections/{MINE}/images/import", json={"folder": "/srv"})
    assert (answer.status_code, answer.json()["code"]) == (403, "folder_refused")


# The matrix of scopes.


def scope_of(verb: str, path: str) -> str:
    """The scope that a path must take, said once more, independently of the service."""
    if path.startswith(ADMINS):
        return "admin"
    tail = path.removeprefix("/v1/collections/{c}").strip("/")
    is_read = verb == "get" or (verb == "post" and (tail in COMPUTING or path.endswith("/detect")))
    return "read" if is_read else "write"


@pytest.fixture(scope="module")
def holders(world: World) -> dict[str, TestClient]:
    return {scope: holder(world.client, f"only-{scope}", scope) for scope in ("read", "write", "admin")}


@pytest.mark.parametrize("operation", LIMITED, ids=ids)
def test_each_path_takes_its_scope(world: World, holders: dict[str, TestClient], operation: tuple[str, str]) -> None:
    verb, template = operation
    wanted = scope_of(verb, template)
    declared = document["paths"][template][verb].get("security")
    assert declared and all(list(one.values()) == [[wanted]] for one in declared), (
        f"{verb} {template} takes {declared}; if that is meant, say so in app/access/rules.py and here"
    )
    # Nothing is there under these names, so that nothing happens where the scope suffices.
    path = re.sub(r"{(job|id)}", "0" * 32, template.replace("{c}", NOWHERE).replace("{p}", NOWHERE))
    path = re.sub(r"{\w+}", "x", path)
    # Clients of the other service know one status for both.
    assert world.client.request(verb, path).status_code == (403 if path.startswith("/compat/") else 401)
    for scope, client in holders.items():
        if scope in (wanted, "admin"):
            if verb in ("put", "post") and (path.endswith(NOWHERE) or path == "/v1/keys"):
                continue  # would make one
            assert client.request(verb, path, content=b"{").status_code not in (401, 403), (scope, verb, path)
        else:
            answer = client.request(verb, path)
            assert answer.status_code == 403, (scope, verb, path)
            assert code_of(answer) == "scope_missing" or path.startswith("/compat/"), (scope, verb, path)


def test_a_path_that_is_not_described_takes_admin(world: World, holders: dict[str, TestClient]) -> None:
    for verb, path in (("GET", "/v1/things"), ("POST", "/v1/jobs"), ("DELETE", "/v1/scorers/dn2"), ("GET", "/v2/x")):
        assert holders["read"].request(verb, path).status_code == 403
        assert holders["write"].request(verb, path).status_code == 403
        assert holders["admin"].request(verb, path).status_code in (404, 405)


def test_the_search_for_marks_can_fail(world: World) -> None:
    answer = world.admin.get(f"/v1/collections/{THEIRS}/images")
    assert world.told(answer, "") >= {THEIRS, world.theirs.ids["img"]}
    assert THEIRS not in world.told(answer, THEIRS)


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/collections/{MINE}/../{THEIRS}",
        f"/v1/collections/{MINE}/..%2f{THEIRS}/images",
        f"/v1/collections/{MINE}%2f..%2f{THEIRS}",
        f"/v1/collections//{THEIRS}",
        f"//v1/collections/{THEIRS}",
        f"/v1/collections/{THEIRS}%00",
        f"/v1/./collections/{THEIRS}",
        f"/V1/collections/{THEIRS}",
        f"/v1/collections/{THEIRS.upper()}",
        f"/static/../v1/collections/{THEIRS}",
        f"/static/%2e%2e/v1/collections/{THEIRS}/images",
        f"/v1/collections/{THEIRS}/",
        f"/v1/collections/{THEIRS};x/images",
        f"/v1/collections/{THEIRS}?c={MINE}",
        f"/docs/../v1/collections/{THEIRS}",
    ],
)
def test_no_spelling_of_a_path_gets_round(world: World, path: str) -> None:
    for client in (world.key, world.client):
        scope_path = path  # sent as it stands: httpx would tidy it up
        answer = client.get(f"http://testserver{scope_path}", follow_redirects=True)
        assert answer.status_code >= 400, (path, answer.text)
        assert world.told(answer, path) == set()
