"""Vectors that another engine or precision computed: compared where the gate passed, else computed as they were."""

from pathlib import Path

import pytest
from sqlalchemy import select

import app.embedders
from app.db.tables import RuntimeRow
from app.embedders import Embedders
from models.backbones.choice import EngineChoice
from models.backbones.embedder import Embedder, EmbeddingSpec
from models.backbones.loader import load_embedder
from models.backbones.torch_engine import gpu_precisions
from models.catalog import installed
from models.contract import Need
from models.errors import EngineUnusable
from models.runtime import COMPARABLE
from tests.app.conftest import Serve
from tests.conftest import add, png
from tests.contract.problem_shape import problem_of

C = "/v1/collections/c"
IMAGES = {f"i{seed}": png(seed) for seed in range(4)}
# Any method on vectors that is fitted; this file names none.
METHOD = next(
    name
    for name, card in installed().items()
    if not card.live and card.needs.required == (Need.VECTORS,) and card.role == "scorer" and card.needs.bank_min <= 2
)
QUERY = {"files": ("q.png", png(9), "image/png")}


def runtimes(client) -> list[dict]:
    with client.app.state.core.database.read() as session:
        return list(session.scalars(select(RuntimeRow.description)))


def pretend(client, comparable_with: str) -> None:
    """The record as it would be had the vectors been computed at another precision."""
    core = client.app.state.core
    with core.database.write() as session:
        for row in session.scalars(select(RuntimeRow)):
            row.description = {**row.description, "comparable_with": comparable_with}
    core.shelf.drop("c")


def test_the_record_says_how_vectors_were_computed(client) -> None:
    add(client, "c", IMAGES)
    described = runtimes(client)[0]
    assert described["engine"] == "openvino" and described["comparable_with"] == COMPARABLE
    assert described["hints"]["INFERENCE_PRECISION_HINT"] == "f32"


def test_another_float32_engine_goes_on_with_the_same_collection(serve: Serve) -> None:
    with serve(engine="torch") as client:
        add(client, "c", IMAGES)
        by_torch = client.post(f"{C}/anomaly", files=QUERY).json()["results"][0]
    with serve(engine="openvino", precision="exact") as client:
        by_openvino = client.post(f"{C}/anomaly", files=QUERY).json()["results"][0]
        add(client, "c", {"more": png(77)})
        assert {one["engine"] for one in runtimes(client)} == {"torch", "openvino"}
        assert client.post(f"{C}/anomaly", files=QUERY).status_code == 200
    assert by_openvino["score"] == pytest.approx(by_torch["score"], rel=1e-4)
    assert [one["id"] for one in by_openvino["neighbours"]] == [one["id"] for one in by_torch["neighbours"]]


def test_a_collection_in_int8_is_gone_on_with_by_any_engine_and_at_any_setting(serve: Serve) -> None:
    ours = {"weights": "embedded", "image_size": None}
    with serve(**ours) as client:
        add(client, "c", IMAGES)
        (usual,) = runtimes(client)
        assert (usual["engine"], usual["precision"]) == ("openvino", "int8")
        shown = client.get(C).json()["runtime"]
        assert shown == {name: usual[name] for name in ("engine", "precision", "comparable_with")}
        assert shown["comparable_with"].startswith("int8 ")
        assert client.put("/v1/collections/empty").json()["runtime"] is None
        by_openvino = client.post(f"{C}/anomaly", files=QUERY).json()["results"][0]
    for other in ({"engine": "torch"}, {"precision": "exact"}):
        with serve(**ours, **other) as client:
            found = client.post(f"{C}/anomaly", files=QUERY).json()["results"][0]
            assert found["score"] == pytest.approx(by_openvino["score"], rel=0.01)
            assert found["neighbours"][0]["id"] == by_openvino["neighbours"][0]["id"]
            name = next(iter(other.values()))
            add(client, "c", {f"by {name}": png(80)})
            add(client, f"begun-by-{name}", IMAGES)
            names = {one["comparable_with"] for one in runtimes(client)}
            assert names == {usual["comparable_with"], COMPARABLE}  # what is begun now is in floating point
            assert client.post(f"/v1/collections/begun-by-{name}/anomaly", files=QUERY).status_code == 200


def test_vectors_that_nothing_here_can_be_compared_with_are_refused(client) -> None:
    add(client, "c", IMAGES)
    before = client.post(f"{C}/anomaly", files=QUERY).json()["results"][0]["score"]
    pretend(client, "int8 0123456789abcdef")
    for path in ("anomaly", "query", "images"):
        problem = problem_of(client.post(f"{C}/{path}", files=QUERY), 409, "runtime_mismatch")
        assert "int8 0123456789abcdef" in problem["detail"] and "ODDITY_PRECISION" in problem["detail"]
    # What is stored can still be looked at, and an emptied collection takes whatever comes.
    assert client.post(f"{C}/anomaly", json={"ids": ["i0"]}).status_code == 200
    client.post(f"{C}/images/delete", json={"ids": list(IMAGES)}).raise_for_status()
    pretend(client, COMPARABLE)
    add(client, "c", IMAGES)
    assert client.post(f"{C}/anomaly", files=QUERY).json()["results"][0]["score"] == before


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """At int8, a real embedder that did not pass the gate; at any other precision the usual one."""

    def load(spec: EmbeddingSpec, *, weights_folder: Path, threads: int, choice: EngineChoice) -> Embedder:
        plain = load_embedder(spec, weights_folder=weights_folder, threads=threads, choice=EngineChoice("torch"))
        if choice.precision != "int8":
            return plain
        return Embedder(plain.identity, plain.engine, (64, 128, 256, 512), "int8 0123456789abcdef")

    monkeypatch.setattr(app.embedders, "load_embedder", load)


def test_an_int8_service_serves_float32_collections_in_float32_and_its_own_in_int8(serve: Serve, apart: None) -> None:
    with serve() as client:
        add(client, "c", IMAGES)
        expected = client.post(f"{C}/anomaly", files=QUERY).json()["results"]
    with serve(precision="int8") as client:
        assert client.post(f"{C}/anomaly", files=QUERY).json()["results"] == expected
        add(client, "c", {"more": png(5)})
        assert {one["comparable_with"] for one in runtimes(client)} == {COMPARABLE}
        add(client, "new", IMAGES)
        assert {one["comparable_with"] for one in runtimes(client)} == {COMPARABLE, "int8 0123456789abcdef"}
        assert client.post("/v1/collections/new/anomaly", files=QUERY).status_code == 200
        asked = client.post("/v1/collections/new/anomaly", files=QUERY).json()["results"]
    with serve() as client:
        assert client.post("/v1/collections/new/anomaly", files=QUERY).json()["results"] == asked
        assert client.post(f"{C}/anomaly", files=QUERY).status_code == 200


def fitted(client, collection: str) -> dict:
    path = f"/v1/collections/{collection}/scorers/mine"
    answer = client.put(path, json={"method": METHOD}, params={"wait": 60})
    assert answer.status_code == 200 and answer.json()["state"] == "succeeded", answer.text
    return client.get(path).json()["fit"]["runtime"]


def test_a_fit_keeps_to_the_runtime_that_it_was_made_under(serve: Serve, apart: None) -> None:
    bank = {f"b{seed:02}": png(seed) for seed in range(24)}
    ask = {"params": {"scorer": "mine"}, "files": QUERY}
    with serve() as client:
        add(client, "c", bank)
        runtime = fitted(client, "c")
        assert (runtime["precision"], runtime["comparable_with"]) == ("float32", COMPARABLE)
        expected = client.post(f"{C}/anomaly", **ask).json()["results"]
    with serve(precision="int8") as client:
        # What was fitted in float32 is asked in float32, and a fit made now is made as the vectors are.
        assert client.post(f"{C}/anomaly", **ask).json()["results"] == expected
        assert fitted(client, "c")["comparable_with"] == COMPARABLE
        # Every image sent anew to a collection that was emptied: its vectors are others, and the fit is not of them.
        client.post(f"{C}/images/delete", json={"ids": list(bank)}).raise_for_status()
        client.app.state.core.shelf.drop("c")
        add(client, "c", bank)
        problem = problem_of(client.post(f"{C}/anomaly", **ask), 409, "runtime_mismatch")
        assert "int8 0123456789abcdef" in problem["detail"] and "fits it again" in problem["detail"]
        stored = client.post(f"{C}/anomaly", json={"ids": ["b00"], "scorer": "mine"})
        problem_of(stored, 409, "runtime_mismatch")
        assert fitted(client, "c")["comparable_with"] == "int8 0123456789abcdef"
        expected = client.post(f"{C}/anomaly", **ask).json()["results"]
    with serve() as client:
        assert client.post(f"{C}/anomaly", **ask).json()["results"] == expected


def test_a_gpu_that_is_not_there_stops_the_service_at_its_start(settings) -> None:
    if gpu_precisions():
        return  # there is one
    with pytest.raises(EngineUnusable, match="cuda must find a GPU"):
        Embedders(settings.model_copy(update={"engine": "cuda"}), 1)
