"""What can be asked of one collection: its settings, images, scores, searches, sets and classes."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from oddity_client.answers import (
    AddedImage,
    AddedImages,
    Calibration,
    Classifications,
    Classified,
    ClassRecord,
    CollectionRecord,
    DeletedImages,
    Explanations,
    Found,
    GroupRecord,
    GroupScore,
    ImageRecord,
    ImageScore,
    ItemProblem,
    Problem,
    RegisteredClass,
    Role,
    Scores,
    StoredScores,
)
from oddity_client.calls import (
    Call,
    Out,
    Plan,
    T,
    given,
    listed,
    nothing,
    operation,
    page_of,
    pages,
    reading,
    segment,
    streamed,
)
from oddity_client.errors import TooLarge
from oddity_client.uploads import Image, NewImage, as_image, batches, items_of

BATCH_FILES = 32
BATCH_BYTES = 32 * 2**20
Images = Sequence[Image]


class CollectionOperations:
    """Each method is one path below `/v1/collections/{name}`; see the service's `/docs` for what parameters mean."""

    name: str

    @operation
    def put(self, /, **settings: Any) -> Call[CollectionRecord]:
        """Make the collection, or change the settings given."""
        return Call("PUT", self._path(), reading(CollectionRecord), json=settings)

    @operation
    def get(self, *, after: int | None = None) -> Call[CollectionRecord]:
        """Settings, counts and revision."""
        return Call("GET", self._path(), reading(CollectionRecord), query={"after": after})

    @operation
    def exists(self) -> Call[bool]:
        """Whether there is such a collection."""
        return Call("GET", self._path(), lambda _: True, absent=lambda: False)

    @operation
    def patch(self, /, *, match: str | None = None, **settings: Any) -> Call[CollectionRecord]:
        """Change settings."""
        return Call("PATCH", self._path(), reading(CollectionRecord), json=settings, match=match)

    @operation
    def delete(self) -> Call[None]:
        """Delete the collection with its images."""
        return Call("DELETE", self._path(), nothing)

    # Images

    @operation
    def add(
        self,
        images: Images,
        *,
        role: Role | None = None,
        label: str | None = None,
        group: str | None = None,
        mode: Literal["upsert", "insert_only"] | None = None,
        key: str | None = None,
    ) -> Call[AddedImages]:
        """Add images in one request; they are durable and searchable when this returns."""
        return self._adding(list(map(as_image, images)), given(_facts(role, label, group, mode)), key)

    @streamed
    def add_all(
        self,
        images: Iterable[Image],
        *,
        role: Role | None = None,
        label: str | None = None,
        group: str | None = None,
        mode: Literal["upsert", "insert_only"] | None = None,
        batch: int = BATCH_FILES,
    ) -> Plan[AddedImage]:
        """Add any number of images, in batches; what became of each, in order."""
        form = given(_facts(role, label, group, mode))
        for part in batches(images, batch, BATCH_BYTES):
            yield from self._sent(part, lambda few: self._adding(few, form, None), _refused)

    @streamed
    def images(
        self,
        *,
        role: Role | None = None,
        label: str | None = None,
        group: str | None = None,
        filter: Mapping[str, Any] | None = None,
        after: int | None = None,
        page: int = 100,
    ) -> Plan[ImageRecord]:
        """Images in order of arrival."""
        query = {"role": role, "label": label, "group": group, "limit": page, "after": after}
        if filter is not None:
            query["filter"] = json.dumps(filter)
        return pages(Call("GET", self._path("images"), page_of(ImageRecord, "images"), query=query))

    @operation
    def image(self, image: str) -> Call[ImageRecord]:
        """What is known of one image."""
        return Call("GET", self._path("images", image), reading(ImageRecord))

    @operation
    def content(self, image: str) -> Call[bytes]:
        """The bytes of an image exactly as they were sent."""
        return Call("GET", self._path("images", image, "content"), bytes, is_bytes=True)

    @operation
    def thumbnail(self, image: str) -> Call[bytes]:
        """A small copy of an image."""
        return Call("GET", self._path("images", image, "thumbnail"), bytes, is_bytes=True)

    @operation
    def change_image(self, /, image: str, **changes: Any) -> Call[ImageRecord]:
        """Change role, label, group or metadata: what is given changes, None clears, metadata is merged."""
        return Call("PATCH", self._path("images", image), reading(ImageRecord), json=changes)

    @operation
    def delete_image(self, image: str) -> Call[None]:
        """Delete one image."""
        return Call("DELETE", self._path("images", image), nothing)

    @operation
    def delete_images(
        self,
        ids: Sequence[str] | None = None,
        *,
        filter: Mapping[str, Any] | None = None,
        role: Role | None = None,
        label: str | None = None,
        group: str | None = None,
    ) -> Call[DeletedImages]:
        """Delete by ids, or by filter, role, label or group."""
        chosen = given({"ids": _list(ids), "filter": filter, "role": role, "label": label, "group": group})
        return Call("POST", self._path("images", "delete"), reading(DeletedImages), json=chosen)

    # Scores, searches, sets, classes

    @operation
    def score(
        self,
        /,
        images: Images = (),
        *,
        ids: Sequence[str] | None = None,
        scorer: str | None = None,
        k: int | None = None,
        neighbours: int | None = None,
        false_alarm_rate: float | None = None,
        heatmap: bool | None = None,
        control: Literal["none", "fdr"] | None = None,
        after: int | None = None,
        **more: Any,
    ) -> Call[Scores]:
        """Score images, or stored ones: does this belong?"""
        asked: dict[str, Any] = {
            "ids": _list(ids),
            "scorer": scorer,
            "k": k,
            "neighbours": neighbours,
            "heatmap": heatmap,
        }
        asked |= {"false_alarm_rate": false_alarm_rate, "control": control, "after": after, **more}
        return self._asking("POST", ("anomaly",), Scores, images, asked)

    @streamed
    def score_all(
        self,
        /,
        images: Iterable[Image],
        *,
        scorer: str | None = None,
        k: int | None = None,
        neighbours: int | None = None,
        false_alarm_rate: float | None = None,
        heatmap: bool | None = None,
        batch: int = BATCH_FILES,
        calibrated: Callable[[Calibration], object] | None = None,
        **more: Any,
    ) -> Plan[ImageScore | ItemProblem]:
        """Score any number of images, in batches; the result of each, in order.

        `calibrated` is called with each answer's calibration: what the verdicts that follow promise.
        """

        def answered(scores: Scores) -> None:
            if calibrated is not None:
                calibrated(scores.calibration)

        asked: dict[str, Any] = {"scorer": scorer, "k": k, "neighbours": neighbours, "heatmap": heatmap}
        asked |= {"false_alarm_rate": false_alarm_rate, **more}
        for part in batches(images, batch, BATCH_BYTES):
            yield from self._sent(
                part, lambda few: self._asking("POST", ("anomaly",), Scores, few, asked), _problem, answered
            )

    @operation
    def query(
        self,
        images: Images = (),
        *,
        id: str | None = None,
        ids: Sequence[str] | None = None,
        vector: Sequence[float] | None = None,
        vectors: Sequence[Sequence[float]] | None = None,
        positive: Sequence[str] | None = None,
        negative: Sequence[str] | None = None,
        k: int | None = None,
        filter: Mapping[str, Any] | None = None,
        max_distance: float | None = None,
        exact: bool | None = None,
        after: int | None = None,
    ) -> Call[Found]:
        """The nearest images: what looks like this?"""
        asked: dict[str, Any] = {
            "id": id,
            "ids": _list(ids),
            "positive": _list(positive),
            "negative": _list(negative),
            "k": k,
        }
        asked |= {"vector": _list(vector), "vectors": None if vectors is None else [list(one) for one in vectors]}
        asked |= {"filter": filter, "max_distance": max_distance, "exact": exact, "after": after}
        return self._asking("POST", ("query",), Found, images, asked)

    @operation
    def put_group(
        self,
        group: str,
        images: Images = (),
        *,
        ids: Sequence[str] | None = None,
        role: Role | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Call[GroupRecord]:
        """Register a normal set, in place of any earlier one of this name."""
        asked: dict[str, Any] = {"ids": _list(ids), "role": role, "metadata": metadata}
        return self._asking("PUT", ("groups", group), GroupRecord, images, asked)

    @operation
    def groups(self) -> Call[list[GroupRecord]]:
        """Every registered set."""
        return Call("GET", self._path("groups"), listed(GroupRecord, "groups"))

    @operation
    def group(self, group: str) -> Call[GroupRecord]:
        """One registered set."""
        return Call("GET", self._path("groups", group), reading(GroupRecord))

    @operation
    def delete_group(self, group: str) -> Call[None]:
        """Forget a set; its images stay."""
        return Call("DELETE", self._path("groups", group), nothing)

    @operation
    def score_group(
        self,
        images: Images = (),
        *,
        ids: Sequence[str] | None = None,
        scorer: str | None = None,
        pooling: Literal["mean", "max", "concat", "excess"] | None = None,
        k: int | None = None,
        neighbours: int | None = None,
        false_alarm_rate: float | None = None,
        after: int | None = None,
    ) -> Call[GroupScore]:
        """Score a set of images as one."""
        asked: dict[str, Any] = {"ids": _list(ids), "scorer": scorer, "pooling": pooling, "k": k}
        asked |= {"neighbours": neighbours, "false_alarm_rate": false_alarm_rate, "after": after}
        return self._asking("POST", ("groups", "anomaly"), GroupScore, images, asked)

    @operation
    def put_class(
        self,
        label: str,
        images: Images = (),
        *,
        ids: Sequence[str] | None = None,
        mode: Literal["extend", "replace"] | None = None,
        key: str | None = None,
    ) -> Call[RegisteredClass]:
        """Make a class from a few images, or add to it."""
        asked: dict[str, Any] = {"ids": _list(ids), "mode": mode}
        return self._asking("PUT", ("classes", label), RegisteredClass, images, asked, key=key or new_key())

    @operation
    def classes(self, *, after: int | None = None) -> Call[list[ClassRecord]]:
        """Every class, each with its first examples."""
        return Call("GET", self._path("classes"), listed(ClassRecord, "classes"), query={"after": after})

    @operation
    def get_class(self, label: str, *, after: int | None = None) -> Call[ClassRecord]:
        """One class with all its examples."""
        return Call("GET", self._path("classes", label), reading(ClassRecord), query={"after": after})

    @operation
    def delete_class(
        self,
        label: str,
        *,
        images: Literal["keep", "delete"] | None = None,
        role: Literal["unlabelled", "normal", "anomalous"] | None = None,
    ) -> Call[None]:
        """Forget a class; its images stay, without a label, unless told otherwise."""
        return Call("DELETE", self._path("classes", label), nothing, query={"images": images, "role": role})

    @operation
    def classify(
        self,
        images: Images = (),
        *,
        ids: Sequence[str] | None = None,
        false_alarm_rate: float | None = None,
        top: int | None = None,
        neighbours: int | None = None,
        after: int | None = None,
    ) -> Call[Classifications]:
        """Which of the classes is each image, or none of them?"""
        asked: dict[str, Any] = {"ids": _list(ids), "false_alarm_rate": false_alarm_rate, "top": top}
        asked |= {"neighbours": neighbours, "after": after}
        return self._asking("POST", ("classify",), Classifications, images, asked)

    @streamed
    def classify_all(
        self,
        images: Iterable[Image],
        *,
        false_alarm_rate: float | None = None,
        top: int | None = None,
        neighbours: int | None = None,
        batch: int = BATCH_FILES,
    ) -> Plan[Classified | ItemProblem]:
        """Classify any number of images, in batches; the result of each, in order."""
        asked: dict[str, Any] = {"false_alarm_rate": false_alarm_rate, "top": top, "neighbours": neighbours}
        for part in batches(images, batch, BATCH_BYTES):
            yield from self._sent(
                part, lambda few: self._asking("POST", ("classify",), Classifications, few, asked), _problem
            )

    @operation
    def explain(
        self,
        /,
        images: Images = (),
        *,
        ids: Sequence[str] | None = None,
        scorer: str | None = None,
        method: Literal["examples", "occlusion", "gradient", "lime", "shap"] | None = None,
        label: str | None = None,
        neighbours: int | None = None,
        after: int | None = None,
        **more: Any,
    ) -> Call[Explanations]:
        """Why are images scored or classified so? The nearest examples, and a map of what the answer rests on."""
        asked: dict[str, Any] = {"ids": _list(ids), "scorer": scorer, "method": method, "label": label}
        asked |= {"neighbours": neighbours, "after": after, **more}
        return self._asking("POST", ("explain",), Explanations, images, asked)

    # Stored images at a glance

    @operation
    def scores(
        self,
        *,
        scorer: str | None = None,
        role: Role | None = None,
        false_alarm_rate: float | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> Call[StoredScores]:
        """Stored images with their scores, strangest first, and the scores that calibrate: what a histogram needs.

        Raises Busy (`still_scoring`) when a fitted scorer needs longer than all tries; what it has found it keeps.
        """
        query = {"scorer": scorer, "role": role, "false_alarm_rate": false_alarm_rate, "limit": limit, "after": after}
        return Call("GET", self._path("scores"), reading(StoredScores), query=query)

    @operation
    def map(
        self,
        *,
        layout: Literal["principal", "neighbours"] | None = None,
        scorer: str | None = None,
        limit: int | None = None,
        after: int | None = None,
    ) -> Call[StoredScores]:
        """Stored images with their scores and their places on a plane: what lies near what. Raises as `scores`."""
        query = {"layout": layout, "scorer": scorer, "limit": limit, "after": after}
        return Call("GET", self._path("map"), reading(StoredScores), query=query)

    def _path(self, *parts: str) -> str:
        return "/".join(["/v1/collections", segment(self.name), *map(segment, parts)])

    def _adding(self, images: Sequence[NewImage], form: Mapping[str, str], key: str | None) -> Call[AddedImages]:
        return self._asking("POST", ("images",), AddedImages, images, form, key=key or new_key())

    def _asking(
        self,
        method: str,
        path: Sequence[str],
        kind: type[Any],
        images: Images,
        asked: Mapping[str, Any],
        key: str | None = None,
    ) -> Call[Any]:
        """A request with images as a form, one without any as JSON."""
        asked = given(asked)
        read = reading(kind)
        if not images:
            return Call(method, self._path(*path), read, json=asked, key=key)
        sent = list(map(as_image, images))
        items = items_of(sent)
        form = {name: value if isinstance(value, str) else json.dumps(value) for name, value in asked.items()}
        if items is not None:
            form["items"] = items
        return Call(method, self._path(*path), read, form=form, parts=[image.part() for image in sent], key=key)

    def _sent(
        self, images: Sequence[NewImage], make: Any, refused: Any, answered: Callable[[Any], object] | None = None
    ) -> Plan[Any]:
        """The results of a batch; one that is too large for the service is sent again one by one."""
        try:
            answer = yield make(images)
        except TooLarge as error:
            if len(images) == 1:
                yield Out(refused(images[0], Problem(code=error.code, detail=error.detail, status=error.status)))
                return
        else:
            if answered is not None:
                answered(answer)
            for one in answer.items if isinstance(answer, AddedImages) else answer.results:
                yield Out(one)
            return
        for image in images:
            yield from self._sent([image], make, refused, answered)


def new_key() -> str:
    """An Idempotency-Key that nobody used before."""
    return uuid4().hex


def _facts(role: str | None, label: str | None, group: str | None, mode: str | None) -> dict[str, Any]:
    return {"role": role, "label": label, "group": group, "mode": mode}


def _list(values: Sequence[T] | None) -> list[T] | None:
    return None if values is None else list(values)


def _refused(image: NewImage, problem: Problem) -> AddedImage:
    return AddedImage(id=image.id or image.name or "", status="refused", sha256=None, problem=problem)


def _problem(image: NewImage, problem: Problem) -> ItemProblem:  # noqa: ARG001
    return ItemProblem(problem=problem)
