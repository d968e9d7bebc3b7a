"""What can be asked of one collection that is long work or looks after it: fits, imports, cleaning, snapshots."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from oddity_client.answers import (
    ActiveEmbedding,
    CleanedImage,
    Cleaning,
    Compression,
    Drift,
    DuplicateSet,
    EmbeddingVersion,
    Feedback,
    ImportProblem,
    IndexRecord,
    Job,
    NextPairs,
    Role,
    Scorer,
    Snapshot,
)
from oddity_client.calls import (
    Call,
    Plan,
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
from oddity_client.collection import new_key
from oddity_client.uploads import Content, Image, Part, as_image

Level = Literal["exact_bytes", "exact_pixels", "near", "similar"]


class UpkeepOperations:
    """Paths that answer with a job give it as it was queued: `wait` waits for its end."""

    name: str

    # Fitted scorers

    @operation
    def fit(
        self,
        scorer: str,
        *,
        method: str | None = None,
        params: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> Call[Job]:
        """Fit a method to the collection under the name `scorer` (job)."""
        body = given({"method": method, "params": dict(params or {}), "seed": seed})
        return Call("PUT", self._place("scorers", scorer), reading(Job), json=body)

    @operation
    def scorers(self) -> Call[list[Scorer]]:
        """The live scorers, and those that were fitted, with how stale they are."""
        return Call("GET", self._place("scorers"), listed(Scorer, "scorers"))

    @operation
    def scorer(self, scorer: str) -> Call[Scorer]:
        """One fitted scorer."""
        return Call("GET", self._place("scorers", scorer), reading(Scorer))

    @operation
    def delete_scorer(self, scorer: str) -> Call[None]:
        """Delete a fitted scorer."""
        return Call("DELETE", self._place("scorers", scorer), nothing)

    # Versions of the embedding

    @operation
    def learn_embedding(
        self,
        method: str,
        *,
        params: Mapping[str, Any] | None = None,
        seed: int = 0,
        activate: bool = False,
        key: str | None = None,
    ) -> Call[Job]:
        """Learn a version of the embedding from labelled images, and fill it (job); `activate` it if it is better."""
        body = {"method": method, "params": dict(params or {}), "seed": seed, "activate": activate}
        return Call("POST", self._place("embeddings"), reading(Job), json=body, key=key or new_key())

    @operation
    def embeddings(self) -> Call[list[EmbeddingVersion]]:
        """Every version of the embedding, oldest first."""
        return Call("GET", self._place("embeddings"), listed(EmbeddingVersion, "embeddings"))

    @operation
    def embedding(self, version: int) -> Call[EmbeddingVersion]:
        """One version of the embedding."""
        return Call("GET", self._place("embeddings", str(version)), reading(EmbeddingVersion))

    @operation
    def activate_embedding(self, version: int, *, force: bool = False, key: str | None = None) -> Call[ActiveEmbedding]:
        """Have the collection answer by this version; with `force` also where it is not better."""
        place = self._place("embeddings", str(version), "activate")
        return Call("POST", place, reading(ActiveEmbedding), query={"force": force}, key=key or new_key())

    @operation
    def roll_back_embedding(self, *, key: str | None = None) -> Call[ActiveEmbedding]:
        """Have the collection answer by the version that was active before."""
        return Call("POST", self._place("embeddings", "rollback"), reading(ActiveEmbedding), key=key or new_key())

    @operation
    def delete_embedding(self, version: int) -> Call[None]:
        """Delete a version that is not active."""
        return Call("DELETE", self._place("embeddings", str(version)), nothing)

    # Imports and duplicates

    @operation
    def import_images(
        self,
        archive: Content | None = None,
        *,
        folder: str | None = None,
        mode: Literal["upsert", "insert_only"] | None = None,
        role: Role | None = None,
        label: str | None = None,
        group: str | None = None,
        label_from_folder: bool | None = None,
        group_from_folder: bool | None = None,
        key: str | None = None,
    ) -> Call[Job]:
        """Add the images of a zip or tar, or of a folder of the service's machine (job)."""
        told: dict[str, Any] = {"folder": folder, "mode": mode, "role": role, "label": label, "group": group}
        told |= {"label_from_folder": label_from_folder, "group_from_folder": group_from_folder}
        return self._with_file(("images", "import"), "archive", archive, given(told), key)

    @streamed
    def import_problems(self, job: str, *, page: int = 100) -> Plan[ImportProblem]:
        """The files that an import could not take."""
        return pages(
            Call("GET", self._place("imports", job), page_of(ImportProblem, "problems"), query={"limit": page})
        )

    @operation
    def import_report(self, job: str, path: Path | str) -> Call[Path]:
        """The same as one file at `path`, a JSON object a line; it takes that name when it is complete."""
        return self._to_file(("imports", job, "report"), path)

    @operation
    def find_duplicates(
        self,
        levels: Sequence[Level] | None = None,
        *,
        role: Role | None = None,
        near_distance: float | None = None,
        near_hash_bits: int | None = None,
        similar_distance: float | None = None,
        key: str | None = None,
    ) -> Call[Job]:
        """Find images that are there more than once (job)."""
        body = {"levels": None if levels is None else list(levels), "role": role, "near_distance": near_distance}
        body |= {"near_hash_bits": near_hash_bits, "similar_distance": similar_distance}
        return self._submitting(("duplicates",), given(body), key)

    @streamed
    def duplicates(self, job: str, *, level: Level | None = None, page: int = 100) -> Plan[DuplicateSet]:
        """The sets that such a job found, level by level."""
        query = {"level": level, "limit": page}
        return pages(Call("GET", self._place("duplicates", job), page_of(DuplicateSet, "groups"), query=query))

    # Feedback

    @operation
    def give_feedback(
        self,
        /,
        kind: str,
        image: Image | None = None,
        *,
        id: str | None = None,
        note: str | None = None,
        key: str | None = None,
        **more: Any,
    ) -> Call[Feedback]:
        """Say that an alarm was false (`false_alarm`), a defect `missed`, or an alarm `confirmed`."""
        sent = None if image is None else as_image(image)
        body = given({"kind": kind, "id": id or (sent and sent.id), "note": note, **more})
        key = key or new_key()
        if sent is None:
            return Call("POST", self._place("feedback"), reading(Feedback), json=body, key=key)
        parts = [sent.part()]
        return Call("POST", self._place("feedback"), reading(Feedback), form=body, parts=parts, key=key)

    @streamed
    def feedback(self, *, page: int = 100) -> Plan[Feedback]:
        """Feedback on the collection, newest first, undone ones too."""
        return pages(Call("GET", self._place("feedback"), page_of(Feedback, "feedback"), query={"limit": page}))

    @operation
    def get_feedback(self, feedback: str) -> Call[Feedback]:
        """One feedback and what it changed."""
        return Call("GET", self._place("feedback", feedback), reading(Feedback))

    @operation
    def undo_feedback(self, feedback: str) -> Call[Feedback]:
        """Take a feedback back."""
        return Call("DELETE", self._place("feedback", feedback), reading(Feedback))

    @operation
    def next_pairs(
        self, *, scorer: str | None = None, rater: str | None = None, n: int | None = None
    ) -> Call[NextPairs]:
        """Which images to compare next; `give_feedback("pair", left=…, right=…, answer=…)` answers."""
        query = {"scorer": scorer, "rater": rater, "n": n}
        return Call("GET", self._place("feedback", "next-pair"), reading(NextPairs), query=query)

    @operation
    def drift(
        self,
        *,
        scorer: str | None = None,
        hours: int | None = None,
        level: float | None = None,
        false_alarm_rate: float | None = None,
        against: Literal["calibration", "before"] | None = None,
    ) -> Call[Drift]:
        """Whether the images that are sent to be scored are still like the normal ones."""
        query = {"scorer": scorer, "hours": hours, "level": level, "false_alarm_rate": false_alarm_rate}
        return Call("GET", self._place("drift"), reading(Drift), query=query | {"against": against})

    # Upkeep

    @operation
    def clean(
        self,
        fraction: float | None = None,
        *,
        k: int | None = None,
        scorer: str | None = None,
        key: str | None = None,
    ) -> Call[Job]:
        """Take the strangest share of images out of the bank, or what a fitted scorer chose (job; can be undone)."""
        return self._submitting(("clean",), given({"fraction": fraction, "k": k, "scorer": scorer}), key)

    @operation
    def cleanings(self) -> Call[list[Cleaning]]:
        """Every cleaning, those undone too."""
        return Call("GET", self._place("clean"), listed(Cleaning, "cleanings"))

    @streamed
    def cleaned_images(self, job: str, *, page: int = 100) -> Plan[CleanedImage]:
        """The images that a cleaning took out, strangest first."""
        return pages(Call("GET", self._place("clean", job), page_of(CleanedImage, "images"), query={"limit": page}))

    @operation
    def undo_cleaning(self, job: str) -> Call[Cleaning]:
        """Put back what a cleaning took out."""
        return Call("DELETE", self._place("clean", job), reading(Cleaning))

    @operation
    def compress(
        self, method: Literal["kmeans", "coreset"], size: int, *, seed: int = 0, key: str | None = None
    ) -> Call[Job]:
        """Let a small bank stand for the whole one (job; can be undone)."""
        return self._submitting(("compress",), {"method": method, "size": size, "seed": seed}, key)

    @operation
    def compression(self) -> Call[Compression]:
        """The small bank, and what it cost."""
        return Call("GET", self._place("compress"), reading(Compression))

    @operation
    def drop_compression(self) -> Call[None]:
        """Go back to the whole bank."""
        return Call("DELETE", self._place("compress"), nothing)

    @operation
    def calibrate(self, *, k: int | None = None, key: str | None = None) -> Call[Job]:
        """Compute the calibration afresh and check the kept one against it (job)."""
        return self._submitting(("calibrate",), given({"k": k}), key)

    @operation
    def compact(self, *, key: str | None = None) -> Call[Job]:
        """Drop what is dead and give memory and disk back (job)."""
        return Call("POST", self._place("compact"), reading(Job), key=key or new_key())

    @operation
    def index(self) -> Call[IndexRecord]:
        """What answers the collection's searches, and what it takes."""
        return Call("GET", self._place("index"), reading(IndexRecord))

    # Snapshots

    @operation
    def make_snapshot(self, *, images: bool | None = None, key: str | None = None) -> Call[Job]:
        """Write the collection as it stands into one file (job)."""
        query = {"images": images}
        return Call("POST", self._place("snapshots"), reading(Job), query=query, key=key or new_key())

    @streamed
    def snapshots(self, *, page: int = 100) -> Plan[Snapshot]:
        """Snapshots, newest first."""
        return pages(Call("GET", self._place("snapshots"), page_of(Snapshot, "snapshots"), query={"limit": page}))

    @operation
    def download_snapshot(self, snapshot: str, path: Path | str) -> Call[Path]:
        """The file of a snapshot, written to `path`; it takes that name when it is complete."""
        return self._to_file(("snapshots", snapshot), path)

    @operation
    def delete_snapshot(self, snapshot: str) -> Call[None]:
        """Delete a snapshot and its file."""
        return Call("DELETE", self._place("snapshots", snapshot), nothing)

    @operation
    def restore(self, file: Content | None = None, *, snapshot: str | None = None, key: str | None = None) -> Call[Job]:
        """Make this collection, which must be new, from the file of a snapshot or the id of one (job)."""
        return self._with_file(("restore",), "snapshot", file, given({"snapshot": snapshot}), key)

    def _to_file(self, place: Sequence[str], path: Path | str) -> Call[Path]:
        path = Path(path)
        part = path.with_name(f"{path.name}.part")
        return Call("GET", self._place(*place), lambda whole: whole.replace(path), sink=part)

    def _place(self, *parts: str) -> str:
        return "/".join(["/v1/collections", segment(self.name), *map(segment, parts)])

    def _submitting(self, path: Sequence[str], body: Mapping[str, Any], key: str | None) -> Call[Job]:
        return Call("POST", self._place(*path), reading(Job), json=body, key=key or new_key())

    def _with_file(
        self, path: Sequence[str], field: str, file: Content | None, told: Mapping[str, Any], key: str | None
    ) -> Call[Job]:
        key = key or new_key()
        if file is None:
            return Call("POST", self._place(*path), reading(Job), json=dict(told), key=key)
        form = {name: str(value).lower() if isinstance(value, bool) else value for name, value in told.items()}
        return Call("POST", self._place(*path), reading(Job), form=form, parts=[Part(field, file)], key=key)
