"""Registered normal sets, and the score of a set."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.bodies import Upload, refuse_large
from app.collection_state import CollectionState
from app.collections.repository import next_sequence
from app.core import Core
from app.entry_columns import ImageEntry
from app.errors import Invalid, NotFound
from app.groups import repository
from app.groups.by_scores import fit_for_sets, score_live_set, score_set_by_fit
from app.groups.kept import kept
from app.groups.members import held
from app.groups.schemas import GroupScoreParameters, RegisterParameters
from app.images.repository import by_ids
from app.images.schemas import AddParameters
from app.images.service import add_images
from app.scoring.images import show_calibration, vectors_of
from models.judging import anomalous, make_calibration, p_values
from models.methods.dn2 import GroupBank, make_group_bank

LIVE_SCORER = "dn2"  # follows the bank; any other is fitted


def put_group(
    core: Core, name: str, group: str, uploads: Sequence[Upload], parameters: RegisterParameters
) -> tuple[dict[str, Any], int]:
    """The group as registered, and the status: 201 new, 200 replaced, 207 when some files were refused.

    Files become images of the collection first (with `group` set, so that calibration leaves the set out as a whole).
    Members keep their order.
    """
    if bool(uploads) == bool(parameters.ids):
        raise Invalid("Send the images of the set, or `ids` of stored ones; one of the two.", "no_images")
    refuse_large(parameters.metadata, core.settings.json_limit_bytes)
    refused: list[dict[str, Any]] = []
    wanted = list(parameters.ids or ())
    _check_distinct(uploads, parameters)
    if uploads:
        # A role not given is not said: a known defect that is sent again stays one.
        given = parameters.model_dump(include={"role", "items"}, exclude_unset=True)
        answer, _ = add_images(core, name, uploads, AddParameters(group=group, **given), None)
        for item in answer.body["items"]:
            (refused if item["status"] == "refused" else wanted).append(
                item if item["status"] == "refused" else item["id"]
            )
    state = core.shelf.get(name)
    if not wanted:
        raise Invalid("No image of the set could be read, so nothing is registered.", "no_images", refused=refused)
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        rows = by_ids(session, state.id, wanted)
        missing = [one for one in wanted if one not in rows]
        if missing:
            raise NotFound(
                f"Collection `{name}` has no image `{missing[0]}`; nothing is registered.",
                "image_unknown",
                missing=missing,
            )
        members = [rows[one].id for one in wanted]
        is_new = repository.put(session, state.id, group, members, parameters.metadata, sequence, now)
    core.shelf.follow(state)
    body = {"name": group, "members": wanted, "metadata": parameters.metadata, "refused": refused, "sequence": sequence}
    return body, 207 if refused else 201 if is_new else 200


def _check_distinct(uploads: Sequence[Upload], parameters: RegisterParameters) -> None:
    """Before anything is stored: refuse a set that names an image twice."""
    items = parameters.items or []
    wanted = list(parameters.ids or ())
    for place, upload in enumerate(uploads):
        item = {**(items[place] if place < len(items) else {}), **upload.item}
        wanted.append(str(item.get("id") or hashlib.sha256(upload.data).hexdigest()))
    if len(set(wanted)) != len(wanted):
        raise Invalid("A set must name each image once.", "group_repeats_image")


def list_groups(core: Core, name: str) -> list[dict[str, Any]]:
    """Every registered group, in order of name."""
    state = core.shelf.get(name)
    with state.lock.read():
        return [_shown(state, one) for one in sorted(state.groups)]


def get_group(core: Core, name: str, group: str) -> dict[str, Any]:
    """One registered group. Raises NotFound."""
    state = core.shelf.get(name)
    with state.lock.read():
        if group not in state.groups:
            raise NotFound(f"Collection `{name}` has no group `{group}`.", "group_unknown")
        return _shown(state, group)


def delete_group(core: Core, name: str, group: str) -> int:
    """Forget a group, its images stay: the sequence of the change. Raises NotFound."""
    state = core.shelf.get(name)
    with core.database.write() as session:
        sequence = next_sequence(session, state.id, core.clock())
        row = repository.find(session, state.id, group)
        if row is None:
            raise NotFound(f"Collection `{name}` has no group `{group}`.", "group_unknown")
        repository.remove(session, row, sequence)
    core.shelf.follow(state)
    return sequence


def score_group(
    core: Core, name: str, uploads: Sequence[Upload], parameters: GroupScoreParameters
) -> tuple[dict[str, Any], int]:
    """The score of one set against normal sets, with each member's share; 207 when some files could not be read.

    A file that cannot be read has its problem in its place, and the set of the others is scored.
    """
    state = core.shelf.get(name, parameters.after)
    fit = None if parameters.scorer == LIVE_SCORER else fit_for_sets(core, state, parameters)
    images = vectors_of(core, state, uploads, parameters.ids)
    if not images.places:
        raise Invalid("No image of the set could be read.", "no_images", problems=list(images.problems.values()))
    status = 207 if images.problems else 200
    if fit is not None:
        return score_set_by_fit(core, state, fit, images, parameters), status
    if parameters.pooling == "excess":
        with state.lock.read():
            return score_live_set(state, images, parameters), status
    shown = state.settings.neighbours if parameters.neighbours is None else parameters.neighbours
    with state.lock.read():
        bank = _group_bank(state, len(images.places), parameters)
        found = bank.score(images.vectors, neighbours=shown, **_not_itself(state, images.stored))
        requested = parameters.false_alarm_rate or state.settings.false_alarm_rate
        calibration = make_calibration(bank.calibration, requested)
        scores = np.array([found.score], np.float32)
        verdict = anomalous(scores, calibration)
        members: list[dict[str, Any]] = [{} for _ in range(len(images.places) + len(images.problems))]
        for place, fault in images.problems.items():
            members[place] = {"problem": fault}
        for row, place in enumerate(images.places):
            entry = images.stored[row]
            members[place] = {**({} if entry is None else {"id": entry.image_id}), "share": float(found.shares[row])}
        answer = {
            "scorer": "group",
            "fingerprint": state.fingerprint,
            "weights": state.weights,
            "pooling": parameters.pooling,
            "reference": bank.mode,
            "sequence": state.sequence,
            "calibration": show_calibration(calibration, state.bank_note),
            "score": found.score,
            "p_value": float(p_values(scores, bank.calibration)[0]) if calibration.n else None,
            "anomalous": None if verdict is None else bool(verdict[0]),
            "neighbours": [_neighbour(state, one) for one in found.neighbours],
            "members": members,
        }
    return answer, status


def _group_bank(state: CollectionState, set_size: int, parameters: GroupScoreParameters) -> GroupBank:
    k = parameters.k or state.settings.k

    def make() -> GroupBank:
        members = {one.name: held(state, one) for one in state.groups.values()}
        registered = {name: state.vectors(pks) for name, pks in members.items() if pks.size}
        return make_group_bank(state.dn2, registered, set_size, pooling=parameters.pooling, k=k)

    return kept(state, parameters.pooling, set_size, k, make)


def _not_itself(state: CollectionState, stored: Sequence[ImageEntry | None]) -> dict[str, set[Any]]:
    """What must not vouch for a set of stored images: sets with any of them."""
    pks = {entry.pk for entry in stored if entry is not None}
    names = {one.name for one in state.groups.values() if not pks.isdisjoint(one.members)} if pks else set()
    return {"without_images": pks, "without_names": names}


def _neighbour(state: CollectionState, near: Any) -> dict[str, Any]:
    pks = np.asarray(near.ids, np.int64)
    members = state.entries.image_ids_of(pks[state.entries.known(pks)])
    metadata = state.groups[near.name].metadata if near.name in state.groups else {}
    return {"id": near.name, "distance": near.distance, "metadata": metadata, "members": members}


def _shown(state: CollectionState, group: str) -> dict[str, Any]:
    entry = state.groups[group]
    pks = held(state, entry)
    id_of = {**state.damaged, **dict(zip(pks.tolist(), state.entries.image_ids_of(pks), strict=True))}
    return {
        "name": entry.name,
        "members": [id_of[pk] for pk in entry.members if pk in id_of],
        "metadata": entry.metadata,
    }
