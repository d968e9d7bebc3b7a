"""What a collection holds for methods to learn from, and the refusal that names what is missing."""

from sqlalchemy.orm import Session

from app.errors import Conflict
from app.scorers import repository
from app.scorers.annotations import NAMES
from app.scorers.material import Material
from models.contract import MethodCard, Need

HOW = {
    Need.VECTORS: "normal images",
    Need.MAPS: "normal images",
    Need.PIXELS: "normal images",
    Need.LABELS: "classes with examples (PUT /classes/{label})",
    Need.UNLABELLED: "images with the role unlabelled",
    Need.GROUPS: "registered sets (PUT /groups/{g}) or normal images with a `group`",
    Need.SEQUENCE: "normal images with `stream` and `position` in their metadata",
    Need.BOXES: "images with `boxes` in their metadata",
    Need.RATINGS: "images with `ratings` in their metadata, or ratings of them (POST /feedback)",
    Need.PAIRS: "answers to which of two images is more anomalous (POST /feedback)",
}
_OF_BANK = frozenset((Need.VECTORS, Need.MAPS, Need.PIXELS))


def held(session: Session, collection_id: int, card: MethodCard) -> frozenset[Need]:
    """What the collection holds of what this method may ask for; told without reading the images."""
    found: set[Need] = set()
    for (role, has_label, has_group), count in repository.role_counts(session, collection_id).items():
        if role == "normal" and count:
            found |= _OF_BANK
            if has_group:
                found.add(Need.GROUPS)
        if role == "example" and has_label and count:
            found.add(Need.LABELS)
        if role == "unlabelled" and count:
            found.add(Need.UNLABELLED)
    if repository.sets(session, collection_id):
        found.add(Need.GROUPS)
    needs = card.needs
    if {Need.SEQUENCE, Need.BOXES, Need.RATINGS}.intersection((*needs.required, *needs.either)):
        given: set[str] = set()
        for details in repository.metadata(session, collection_id):
            given |= NAMES.intersection(details)
        found |= {
            need
            for need, name in ((Need.SEQUENCE, "stream"), (Need.BOXES, "boxes"), (Need.RATINGS, "ratings"))
            if name in given
        }
    kinds = repository.answer_kinds(session, collection_id)
    found |= {need for need, kind in ((Need.PAIRS, "pair"), (Need.RATINGS, "rating")) if kinds.get(kind)}
    return frozenset(found)


def held_by(material: Material) -> frozenset[Need]:
    """What one state of a collection holds."""
    normal = material.rows_of("normal")
    notes = material.annotations
    there = {
        Need.LABELS: any(material.images[row].label is not None for row in material.rows_of("example")),
        Need.UNLABELLED: material.rows_of("unlabelled").size > 0,
        Need.GROUPS: bool(material.sets) or any(group is not None for group in material.groups(normal)),
        Need.SEQUENCE: any(notes[row].stream is not None for row in normal),
        Need.BOXES: any(one.boxes is not None for one in notes),
        Need.RATINGS: any(one.ratings for one in notes),
        Need.PAIRS: bool(material.pairs),
        **dict.fromkeys(_OF_BANK, normal.size > 0),
    }
    return frozenset(need for need, is_there in there.items() if is_there)


def check_needs(card: MethodCard, found: frozenset[Need]) -> None:
    """Raise Conflict that names what is missing, and how a collection comes by it."""
    missing = card.needs.missing(found)
    if missing:
        told = "; ".join(f"`{need}`: {HOW[need]}" for need in missing)
        joined = " one of" if not set(missing).intersection(card.needs.required) else ""
        raise Conflict(
            f"Method `{card.name}` needs{joined} what the collection lacks: {told}.",
            "scorer_needs",
            missing=[str(need) for need in missing],
        )
