"""Every path of the service by the client, against the real application: blocking and asynchronous."""

import ast
import asyncio
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import oddity_client
import pytest
from oddity_client import (
    Answer,
    Calibration,
    Client,
    Collection,
    Conflict,
    GroupMember,
    ImageScore,
    Invalid,
    ItemProblem,
    Job,
    JobFailed,
    NewImage,
    NotFound,
    WaitedTooLong,
)
from oddity_client.calls import operation, streamed
from oddity_client.client import AsyncClient, AsyncCollection
from pydantic import BaseModel

from app.settings import Settings
from tests.app.client.conftest import asynchronous
from tests.conftest import png

SOURCE = Path(oddity_client.__file__).parent


@pytest.fixture(scope="module")
def parts(oddity: Client) -> Collection:
    """A collection of thirty normal images, not to be changed."""
    parts = oddity.collection("parts")
    assert not parts.exists()
    parts.put(description="parts")
    items = list(parts.add_all((NewImage(png(seed), f"{seed}.png", id=f"n{seed}") for seed in range(30)), batch=8))
    assert [(one.id, one.status) for one in items] == [(f"n{seed}", "created") for seed in range(30)]
    return parts


def own(oddity: Client, name: str, count: int = 12) -> Collection:
    place = oddity.collection(name)
    place.put()
    place.add([NewImage(png(seed), f"{seed}.png", id=f"n{seed}") for seed in range(count)])
    return place


def unknown_fields(answer: Any, where: str = "") -> list[str]:
    """Fields that the service sent and the models do not name."""
    found: list[str] = []
    if isinstance(answer, BaseModel):
        found += [f"{type(answer).__name__}.{name}" for name in (answer.model_extra or {})]
        for name in type(answer).model_fields:
            found += unknown_fields(getattr(answer, name))
    elif isinstance(answer, list | tuple):
        for one in answer:
            found += unknown_fields(one)
    return found


def test_collections(oddity: Client, parts: Collection) -> None:
    about = parts.get()
    assert (about.name, about.images, about.roles["normal"], about.description) == ("parts", 30, 30, "parts")
    assert about.created_at.tzinfo is not None
    assert parts.patch(neighbours=4).neighbours == 4
    for name in ("c1", "c2", "c3"):
        oddity.collection(name).put()
    names = [one.name for one in oddity.collections(page=1)]
    assert names == sorted(names) and {"c1", "c2", "c3", "parts"} <= set(names)
    for name in ("c1", "c2", "c3"):
        oddity.collection(name).delete()
    with pytest.raises(NotFound) as raised:
        oddity.collection("c1").get()
    assert raised.value.code == "collection_unknown"
    with pytest.raises(Invalid, match="nonsense"):
        oddity.collection("c1").put(nonsense=1)


def test_images(oddity: Client, parts: Collection) -> None:
    listed = list(parts.images(page=7))
    assert [one.id for one in listed] == [f"n{seed}" for seed in range(30)]
    assert parts.content("n3") == png(3)
    assert parts.thumbnail("n3")[:2] in (b"RI", b"\xff\xd8")
    place = own(oddity, "images")
    told = place.add([NewImage(b"no image", id="bad"), NewImage(png(99), id="good", metadata={"line": 3}, label="a")])
    assert [one.status for one in told.items] == ["refused", "created"]
    assert told.items[0].problem is not None and told.items[0].problem.code == "image_unreadable"
    assert [one.id for one in place.images(filter={"must": [{"key": "line", "match": 3}]})] == ["good"]
    assert place.change_image("good", role="anomalous", label=None).role == "anomalous"
    assert place.image("good").label is None
    place.delete_image("good")
    assert place.delete_images(["n1", "n2", "gone"]).model_dump()["missing"] == ["gone"]
    assert place.get().images == 10


def test_scores_and_searches(parts: Collection) -> None:
    scores = parts.score([png(100), b"no image"], k=3, neighbours=2, false_alarm_rate=0.1)
    assert (scores.k, scores.calibration.n, scores.calibration.requested) == (3, 30, 0.1)
    good, bad = scores.results
    assert isinstance(good, ImageScore) and len(good.neighbours) == 2 and good.p_value is not None
    assert isinstance(bad, ItemProblem) and bad.problem.code == "image_unreadable"
    stored = parts.score(ids=["n1"], control="fdr").results[0]
    assert isinstance(stored, ImageScore) and stored.id == "n1" and stored.flagged is not None
    told: list[Calibration] = []
    images = (png(seed) for seed in range(100, 109))
    every = list(parts.score_all(images, k=3, batch=4, false_alarm_rate=0.1, calibrated=told.append))
    assert told == [scores.calibration] * 3
    assert isinstance(every[0], ImageScore) and every[0].score == pytest.approx(good.score, rel=1e-4)
    assert len(every) == 9
    found = parts.query(id="n1", k=3).results[0]
    assert isinstance(found, list) and len(found) == 3 and found[0].id != "n1"
    found = parts.query([png(1)], k=1).results[0]
    assert isinstance(found, list) and found[0].id == "n1"
    near = parts.query(
        positive=["n1", "n2"], negative=["n3"], k=2, filter={"must": [{"key": "filename", "match": "7.png"}]}
    )
    assert [one.id for one in near.results[0]] == ["n7"]  # type: ignore[union-attr]
    with pytest.raises(Invalid):
        parts.query(id="n1", ids=["n2"])


def test_sets_and_classes(oddity: Client) -> None:
    place = own(oddity, "sets")
    assert place.put_group("day", ids=["n1", "n2"], metadata={"line": 1}).members == ["n1", "n2"]
    assert [one.name for one in place.groups()] == ["day"]
    assert place.group("day").metadata == {"line": 1}
    score = place.score_group([png(50), png(51)], pooling="max")
    assert score.pooling == "max" and len(score.members) == 2
    (one, other) = place.score_group([png(50), png(51)], pooling="excess").members
    assert isinstance(one, GroupMember) and isinstance(other, GroupMember)
    alone = place.score([png(50), png(51)]).results
    assert [one.score, other.score] == [member.score for member in alone if isinstance(member, ImageScore)]
    place.delete_group("day")
    for number, label in enumerate(("dot", "bar")):
        told = place.put_class(label, [png(200 + 10 * number + seed) for seed in range(3)])
        assert (told.label, told.count, told.created) == (label, 3, 3)
    assert place.put_class("bar", ids=["n5"]).items[0].before == {"role": "normal", "label": None}
    assert [(one.label, one.count) for one in place.classes()] == [("bar", 4), ("dot", 3)]
    assert len(place.get_class("bar").examples) == 4
    (one,) = place.classify([png(200)], top=1).results
    assert not isinstance(one, ItemProblem) and len(one.probabilities) == 1 and one.nearest[0].label == "dot"
    assert len(list(place.classify_all([png(200), b"no image"]))) == 2
    (why,) = place.explain([png(200)], scorer="few_shot_lr", label="dot", method="occlusion", grid=2).results
    assert not isinstance(why, ItemProblem) and why.map is not None and why.map.label == "dot"
    assert why.examples.classes[0].label == "dot" and len(why.map.rows()) == 2 and unknown_fields(why) == []
    place.delete_class("dot", images="delete")
    assert [one.label for one in place.classes()] == ["bar"]


def test_jobs_are_waited_for_with_progress(oddity: Client) -> None:
    place = own(oddity, "jobs", 30)
    seen: list[str] = []
    job = oddity.wait(place.clean(0.1), told=lambda one: seen.append(one.state), every_s=0.01)
    assert job.state == "succeeded" and seen[-1] == "succeeded"
    assert oddity.job(job.id) == job
    assert [one.id for one in oddity.jobs(collection="jobs", page=1)] == [job.id]
    (cleaning,) = place.cleanings()
    assert cleaning.dropped == 3 and len(list(place.cleaned_images(job.id, page=2))) == 3
    assert place.undo_cleaning(job.id).undone is not None
    assert oddity.wait(place.calibrate(k=3)).result is not None
    assert oddity.wait(place.compress("kmeans", 5)).state == "succeeded"
    assert place.compression().size == 5
    place.drop_compression()
    assert oddity.wait(place.compact()).kind == "compact"
    assert place.index().exact
    with pytest.raises(JobFailed, match="was cancelled") as failed:
        oddity.wait(job.model_copy(update={"state": "cancelled"}))
    assert failed.value.job.id == job.id


def test_stored_images_at_a_glance(parts: Collection) -> None:
    told = parts.scores(limit=12, false_alarm_rate=0.2)
    assert told.calibration is not None and told.calibration.scores == sorted(told.calibration.scores)
    assert len(told.images) == 12 and told.stored == 30 and told.images[0].anomalous is not None
    laid = parts.map(layout="principal", limit=12)
    assert {one.id for one in laid.images} == {one.id for one in told.images} and laid.images[0].x is not None
    assert unknown_fields([told, laid]) == []
    with pytest.raises(Conflict):
        parts.scores(scorer="none")


def test_jobs_are_listened_to(oddity: Client) -> None:
    place = own(oddity, "events")
    job = place.compact()
    seen = list(oddity.events(job))
    assert seen[-1].has_ended and seen[-1].id == job.id
    assert list(oddity.events(job.id)) == [oddity.job(job.id)]
    with pytest.raises(NotFound):
        next(oddity.events("0" * 32))


def test_keys_and_who_wrote_what(oddity: Client) -> None:
    made = oddity.make_key("camera-7", ["read"], collections=["line-7-*"], requests_per_day=10)
    assert made.token and (made.scopes, made.collections, made.state) == (["read"], ["line-7-*"], "active")
    assert oddity.rotate_key("camera-7", keep_s=60).token != made.token
    assert oddity.get_key(made.id).rotated_at is not None
    assert [one.name for one in oddity.api_keys()] == ["camera-7"]
    with pytest.raises(Conflict):
        oddity.make_key("camera-7", ["read"])
    assert oddity.revoke_key("camera-7").state == "revoked"
    assert unknown_fields([made, *oddity.api_keys()]) == []
    first = next(iter(oddity.audit(page=1)))
    assert first.method == "DELETE"  # type: ignore[attr-defined]


def test_waiting_has_an_end(oddity: Client) -> None:
    place = own(oddity, "waiting")
    job = place.compact()
    queued = job.model_copy(update={"state": "queued"})
    with pytest.raises(WaitedTooLong, match="it goes on"):
        oddity.wait(queued, timeout_s=0.0)
    oddity.wait(job)
    with pytest.raises(Conflict):
        oddity.cancel(job.id)


def test_a_write_repeated_under_its_key_is_one_write(oddity: Client) -> None:
    place = own(oddity, "keys")
    first = place.add([NewImage(png(77), id="x")], key="once")
    assert place.add([NewImage(png(77), id="x")], key="once") == first
    assert place.compact(key="again").id == place.compact(key="again").id


def test_imports_duplicates_and_snapshots(oddity: Client, tmp_path: Path) -> None:
    archive = tmp_path / "parts.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for seed in range(4):
            file.writestr(f"good/{seed}.png", png(seed))
        file.writestr("good/again.png", png(0) + b"trailing")
        file.writestr("good/broken.png", b"no image")
    place = oddity.collection("imported")
    place.put()
    job = oddity.wait(place.import_images(archive, label_from_folder=True))
    assert job.result is not None and (job.result["created"], job.result["refused"]) == (5, 1)
    assert [one.name for one in place.import_problems(job.id)] == ["good/broken.png"]
    report = place.import_report(job.id, tmp_path / "report.jsonl").read_text(encoding="utf-8")
    assert json.loads(report)["name"] == "good/broken.png" and not (tmp_path / "report.jsonl.part").exists()
    assert {one.label for one in place.images()} == {"good"}
    found = oddity.wait(place.find_duplicates(["exact_pixels"]))
    assert [len(one.images) for one in place.duplicates(found.id)] == [2]
    oddity.wait(place.make_snapshot())
    (snapshot,) = place.snapshots()
    path = place.download_snapshot(snapshot.id, tmp_path / "parts.tar")
    assert path.stat().st_size == snapshot.bytes
    with path.open("rb") as file:
        oddity.wait(oddity.collection("back").restore(file))
    assert oddity.collection("back").get().images == 5
    oddity.wait(oddity.collection("back-too").restore(snapshot=snapshot.id))
    place.delete_snapshot(snapshot.id)
    assert list(place.snapshots()) == []


def test_feedback_and_scorers(oddity: Client) -> None:
    place = own(oddity, "taught", 24)
    told = place.give_feedback("missed", NewImage(png(300), "odd.png", id="odd"), note="scratch")
    assert told.image == "odd" and told.changed["role"]["after"] == "anomalous"
    assert place.give_feedback("false_alarm", id="n3").kind == "false_alarm"
    assert [one.image for one in place.feedback(page=1)] == ["n3", "odd"]
    assert place.get_feedback(told.id).note == "scratch"
    assert place.undo_feedback(told.id).undone_at is not None
    pair = place.give_feedback("pair", left="n1", right="n2", answer="left", rater="anna")
    assert (pair.left, pair.right, pair.answer, pair.image) == ("n1", "n2", "left", None)
    assert [one.kind for one in place.feedback()] == ["pair", "false_alarm", "missed"]
    asked = place.next_pairs(n=2)
    assert len(asked.pairs) == 2 and {"left", "right"} <= set(asked.pairs[0])
    assert place.drift().drifted is None
    ids = {one.id for one in oddity.methods()}
    live = next(one for one in oddity.methods() if one.live)
    assert oddity.method(live.id) == live
    assert {one.id for one in place.scorers()} <= ids
    with pytest.raises(Conflict):
        place.fit(live.id)
    with pytest.raises(NotFound):
        place.scorer("none")
    assert oddity.ready().status == "ready" and oddity.alive() == {"status": "ok"}


def test_a_batch_too_large_is_sent_one_by_one(tmp_path: Path) -> None:
    async def run() -> list[str]:
        settings = Settings(
            data=tmp_path, weights="stand-in", image_size=32, threads=1, body_limit_bytes=len(png(1)) + 1500
        )
        async with asynchronous(settings) as client:
            place = client.collection("small")
            await place.put()
            sent = [NewImage(png(seed), id=str(seed)) for seed in (1, 2)] + [NewImage(png(3, side=64), id="large")]
            return [one.status async for one in place.add_all(sent)]

    assert asyncio.run(run()) == ["created", "created", "refused"]


def test_the_asynchronous_client_says_the_same(tmp_path: Path) -> None:
    async def run() -> None:
        settings = Settings(data=tmp_path, weights="stand-in", image_size=32, threads=1)
        async with asynchronous(settings) as client:
            place = client.collection("parts")
            await place.put()
            added = [one async for one in place.add_all(NewImage(png(seed), id=f"n{seed}") for seed in range(12))]
            assert len(added) == 12
            scores = await asyncio.gather(*(place.score([png(seed)]) for seed in (50, 51, 52)))
            assert all(isinstance(one.results[0], ImageScore) for one in scores)
            assert [one.id async for one in place.images(page=5)] == [f"n{seed}" for seed in range(12)]
            job = await client.wait(await place.make_snapshot())
            assert [one.state async for one in client.events(job)] == ["succeeded"]
            assert len((await place.scores()).images) == len((await place.map()).images) == 12
            path = await place.download_snapshot(job.id, tmp_path / "one.tar")
            assert path.stat().st_size > 1000
            with pytest.raises(NotFound):
                await place.image("gone")
            with pytest.raises(WaitedTooLong):
                await client.wait(job.model_copy(update={"state": "queued"}), timeout_s=0.0)

    asyncio.run(run())


def test_both_clients_have_every_method() -> None:
    for blocking, awaited in ((Client, AsyncClient), (Collection, AsyncCollection)):
        names = {name for name in dir(blocking) if not name.startswith("_")}
        assert names == {name for name in dir(awaited) if not name.startswith("_")}
        assert len([name for name in names if isinstance(getattr(blocking, name), operation | streamed)]) > 5


def test_no_answer_holds_what_the_models_do_not_name(oddity: Client, parts: Collection) -> None:
    answers: list[Any] = [parts.get(), parts.image("n1"), parts.score([png(60)]), parts.query(id="n1"), parts.scorers()]
    answers += [parts.score_group([png(61)]), parts.index(), parts.add([NewImage(png(0), id="n0")]), parts.classes()]
    answers += [*oddity.jobs(), *oddity.methods()]
    assert unknown_fields(answers) == []


def test_fields_of_newer_servers_are_kept() -> None:
    class One(Answer):
        known: int

    one = One.model_validate({"known": 1, "new": {"deep": 2}})
    assert one.new == {"deep": 2}  # type: ignore[attr-defined]
    job = Job.model_validate(
        {"id": "a", "kind": "k", "collection": None, "state": "running", "parameters": {}, "attempts": 1, "later": 1}
        | {"progress": {"stage": "", "done": 0, "total": None, "rate": None, "remaining_s": None}}
        | dict.fromkeys(("result", "problem", "started_at", "finished_at"))
        | {"cancel_requested": False, "created_at": "2026-01-01T00:00:00.000Z"}
    )
    assert not job.has_ended


def test_it_needs_nothing_but_httpx_and_pydantic() -> None:
    allowed = {*sys.stdlib_module_names, "httpx", "pydantic", "oddity_client"}
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [str(node.module)]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{path.name} imports {name}"


def test_files_that_cannot_be_read_raise_what_opening_them_raises(parts: Collection, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        parts.add([tmp_path / "gone.png"])
    assert parts.query([io.BytesIO(png(0))], k=1).results[0][0].id == "n0"  # type: ignore[index]
