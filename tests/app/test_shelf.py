"""Collections in memory follow the record: step by step they come to what loading afresh gives."""

import json
import random
import threading

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.errors import NotFound
from app.shelf import CollectionState, Shelf
from tests.conftest import add, png

C = "/v1/collections/c"
PICTURES = [png(number, side=16) for number in range(10)]


def step(client: TestClient, chance: random.Random) -> None:
    """One change, chosen by chance."""
    image_id, place = f"i{chance.randrange(12)}", chance.randrange(10)
    kind = chance.choice(["add", "add", "add", "role", "facts", "group", "delete", "set", "no set", "settings"])
    if kind == "add":
        items = [{"id": image_id, "role": chance.choice(["normal", "normal", "anomalous", "example"])}]
        items.append({"id": f"i{chance.randrange(12)}", "group": chance.choice(["g", "h"])})
        files = [("files", ("a.png", PICTURES[place])), ("files", ("b.png", PICTURES[place - 1]))]
        answer = client.post(f"{C}/images", files=files, data={"items": json.dumps(items)})
    elif kind == "role":
        role = chance.choice(["normal", "anomalous", "unlabelled"])
        answer = client.patch(f"{C}/images/{image_id}", json={"role": role})
    elif kind == "facts":
        answer = client.patch(f"{C}/images/{image_id}", json={"metadata": {"n": place}, "label": f"l{place}"})
    elif kind == "group":
        answer = client.patch(f"{C}/images/{image_id}", json={"group": chance.choice(["g", "h", None])})
    elif kind == "delete":
        answer = client.delete(f"{C}/images/{image_id}")
    elif kind == "set":
        answer = client.put(f"{C}/groups/s{place % 3}", json={"ids": [image_id]})
    elif kind == "no set":
        answer = client.delete(f"{C}/groups/s{place % 3}")
    else:
        answer = client.patch(C, json={"neighbours": place, "k": 1 + place % 3})
    assert answer.status_code in (200, 201, 204, 404), answer.text


def contents(state: CollectionState) -> dict:
    """Everything that answers are made from."""
    pks = sorted(state.entries)
    bank = state.dn2.bank.ids()
    calibration = state.dn2.calibration()
    return {
        "settings": state.settings,
        "sequence": state.sequence,
        "entries": {pk: state.entries[pk] for pk in pks},
        "names": {entry.image_id: state.entries.find(entry.image_id) for entry in state.entries.values()},
        "groups": {name: (one.members, one.metadata) for name, one in state.groups.items()},
        "vectors": [state.vectors([pk]).tobytes() for pk in pks],
        "indexes": [one.ids().tolist() for one in (state.dn2.bank, state.dn2.anomalous, state.rest)],
        "calibration": dict(zip(calibration.ids.tolist(), calibration.scores.tolist(), strict=True)),
        "scores": state.dn2.score(state.vectors(bank[:3])).score.tolist() if len(bank) else None,
        "counts": state.counts(),
    }


@pytest.mark.parametrize("seed", range(3))
def test_following_step_by_step_gives_what_loading_afresh_gives(client: TestClient, seed: int) -> None:
    chance = random.Random(seed)
    core = client.app.state.core
    client.put(C, json={"metric": chance.choice(["l2", "cosine"])}).raise_for_status()
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(6)})
    late = Shelf(core.database)  # looks now and then only: several changes at once
    for number in range(30):
        step(client, chance)
        core.shelf.get("c").dn2.calibration()  # so that it is kept up to date and not made at the end
        if number % 7 == 0:
            late.get("c").dn2.calibration()
    fresh = contents(Shelf(core.database).get("c"))
    for followed in (contents(core.shelf.get("c")), contents(late.get("c"))):
        assert followed.pop("calibration") == pytest.approx(fresh["calibration"], rel=1e-6)
        assert followed == {name: value for name, value in fresh.items() if name != "calibration"}


def test_the_comparison_can_fail(client: TestClient) -> None:
    add(client, "c", {f"i{number}": PICTURES[number] for number in range(4)})
    state = client.app.state.core.shelf.get("c")
    before = contents(state)
    for change in ({"role": "example"}, {"label": "x"}, {"group": "g"}):
        client.patch(f"{C}/images/i0", json=change)
        after = contents(client.app.state.core.shelf.get("c"))
        assert {**after, "sequence": 0} != {**before, "sequence": 0}
        before = after


def test_what_is_not_there(client: TestClient) -> None:
    shelf = client.app.state.core.shelf
    with pytest.raises(NotFound):
        shelf.get("none")
    add(client, "c", {"a": PICTURES[0]})
    state = shelf.get("c")
    client.delete(C)
    assert shelf.follow(state) is None
    with pytest.raises(NotFound):
        shelf.get("c")


def test_a_state_is_kept_while_only_images_change(client: TestClient) -> None:
    add(client, "c", {"a": PICTURES[0]})
    shelf = client.app.state.core.shelf
    state = shelf.get("c")
    add(client, "c", {"b": PICTURES[1]})
    assert shelf.get("c") is state and {one.image_id for one in state.entries.values()} == {"a", "b"}
    client.patch(C, json={"metric": "l2"})
    assert shelf.get("c") is not state


def test_searches_while_images_come_and_go_see_whole_states(client: TestClient) -> None:
    """Every answer fits the sequence number that it states: never half of a write."""
    pairs = [(f"a{number}", f"b{number}") for number in range(6)]
    add(client, "c", {"x": PICTURES[0], "y": PICTURES[1]})
    vector = np.zeros(512, np.float32)
    vector[0] = 1
    is_over = threading.Event()
    torn: list[object] = []
    looked = [0]

    def look() -> None:
        while not is_over.is_set():
            answer = client.post(f"{C}/query", json={"vector": vector.tolist(), "k": 100})
            names = {one["id"] for one in answer.json()["results"][0]} if answer.status_code == 200 else {answer.text}
            looked[0] += 1
            if answer.status_code != 200 or any((one in names) != (other in names) for one, other in pairs):
                torn.append(names)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        for one, other in pairs:
            add(client, "c", {one: PICTURES[2], other: PICTURES[3]})
        for pair in pairs:
            client.post(f"{C}/images/delete", json={"ids": list(pair)}).raise_for_status()
    is_over.set()
    for thread in threads:
        thread.join()
    assert torn == [] and looked[0] > 5
