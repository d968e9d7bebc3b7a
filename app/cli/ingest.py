"""`oddity ingest`: the images of a folder into a collection."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

import typer
from oddity_client import AddedImage, Client, Collection, CollectionRecord

from app.cli.client import open_client
from app.cli.console import images_progress, messages, print_json
from app.cli.failures import CommandFailed
from app.cli.options import CollectionOption, DataOption, FolderArgument, JsonOption, ServerOption, examples
from app.cli.sending import Loaded, Picture, answers, batches, folder_pictures, loaded

PAGE_LIMIT = 1000
REFUSED_SHOWN = 20
Role = Literal["normal", "anomalous", "unlabelled", "example"]
Advance = Callable[[int], None]

cli = typer.Typer()


@dataclass(slots=True)
class IngestReport:
    """What became of the images: how many, and why some were refused."""

    created: int = 0
    updated: int = 0
    duplicate: int = 0  # sent, and known to the service
    skipped: int = 0  # not sent: stored already, or the same bytes as another file
    refused: list[dict[str, str]] = field(default_factory=list)

    def sentence(self) -> str:
        """The counts in words."""
        parts = [
            f"{self.created} created",
            f"{self.updated} updated",
            f"{self.skipped + self.duplicate} already there",
        ]
        return ", ".join([*parts, f"{len(self.refused)} refused"])

    def shown(self) -> dict[str, Any]:
        """The report for programs."""
        return {name: getattr(self, name) for name in ("created", "updated", "duplicate", "skipped", "refused")}


@cli.command(
    epilog=examples(
        "oddity ingest good-parts/ -c parts",
        "oddity ingest days/ -c parts --group-from-folder",
        "oddity ingest kinds/ -c parts --role example --label-from-folder",
    )
)
def ingest(
    folder: FolderArgument,
    collection: CollectionOption,
    server: ServerOption = None,
    data: DataOption = None,
    role: Annotated[Role | None, typer.Option(help="Role of the images; new ones are normal unless told.")] = None,
    label_from_folder: Annotated[
        bool,
        typer.Option("--label-from-folder", help="Label each image with the name of the folder it lies in."),
    ] = False,
    group_from_folder: Annotated[
        bool,
        typer.Option(
            "--group-from-folder",
            help="Group images by folder (one part, camera or day): calibration leaves out all.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Add the images of a folder to a collection, which is made when it is not there.

    Ids are the sha256 of the bytes, so running it again sends only what is missing. Exit code 1 when any
    was refused.
    """
    pictures = folder_pictures(folder)
    if label_from_folder or group_from_folder:
        pictures = [_told_by_folder(one, label_from_folder, group_from_folder) for one in pictures]
        _check_names(pictures)
    if role is not None:
        pictures = [replace(one, facts={**one.facts, "role": role}) for one in pictures]
    with open_client(server, data) as client, images_progress() as progress:
        bar = progress.add_task("Ingesting", total=len(pictures))
        report = ingest_pictures(client, collection, pictures, lambda count: progress.advance(bar, count))
    if as_json:
        print_json({"collection": collection, **report.shown()})
    else:
        messages().print(f"{collection}: {report.sentence()}.", highlight=False)
        for entry in report.refused[:REFUSED_SHOWN]:
            messages().print(f"  {entry['path']}: {entry['detail']}", highlight=False, markup=False, soft_wrap=True)
        if len(report.refused) > REFUSED_SHOWN:
            messages().print(
                f"  and {len(report.refused) - REFUSED_SHOWN} more; --json lists them all.", highlight=False
            )
    if report.refused:
        raise typer.Exit(1)


def ingest_pictures(
    client: Client, collection: str, pictures: Sequence[Picture], advance: Advance | None = None
) -> IngestReport:
    """What became of the pictures, stored under the sha256 of their bytes; makes the collection."""
    place = client.collection(collection)
    known = _known(place) if made_if_missing(place).images else {}
    report = IngestReport()
    for batch in batches(_missing(loaded(pictures), known, report, advance)):
        told = answers(place.add_all, batch)
        for image, entry in zip(batch, told, strict=True):
            if isinstance(entry, AddedImage) and entry.problem is None:
                setattr(report, entry.status, getattr(report, entry.status) + 1)
            elif problem := entry.problem:
                report.refused.append({"path": image.picture.name, "code": problem.code, "detail": problem.detail})
        if advance is not None:
            advance(len(batch))
    return report


def _missing(
    images: Iterator[Loaded], known: dict[str, dict[str, Any]], report: IngestReport, advance: Advance | None
) -> Iterator[Loaded]:
    """Images that the collection lacks, or has with other facts; `known` learns what goes by."""
    for image in images:
        if image.fault is None:
            image_id = hashlib.sha256(image.data).hexdigest()
            facts = known.get(image_id)
            if facts is not None and all(facts.get(name) == value for name, value in image.picture.facts.items()):
                report.skipped += 1
                if advance is not None:
                    advance(1)
                continue
            known[image_id] = {**(facts or {}), **image.picture.facts}
        yield image


def made_if_missing(place: Collection) -> CollectionRecord:
    """The collection, made with what it is set to by default when it is not there."""
    return place.get() if place.exists() else place.put()


def _known(place: Collection) -> dict[str, dict[str, Any]]:
    """What is stored, by id, asked for page by page."""
    return {one.id: {"role": one.role, "label": one.label, "group": one.group} for one in place.images(page=PAGE_LIMIT)}


def _told_by_folder(picture: Picture, label: bool, group: bool) -> Picture:
    """The picture with the name of its folder as label, and the path of its folder as group."""
    folder = PurePosixPath(picture.name).parent
    if folder == PurePosixPath("."):
        return picture
    facts = dict(picture.facts)
    if label:
        facts["label"] = _as_name(folder.name)
    if group:
        facts["group"] = _as_name(folder.as_posix())
    return replace(picture, facts=facts)


def _as_name(text: str) -> str:
    """The text with what a label or group may not hold replaced by a hyphen."""
    return re.sub(r"[^\w.\-]+", "-", text)[:128]


def _check_names(pictures: Sequence[Picture]) -> None:
    """Refuse two folders that would become one name."""
    whence: dict[tuple[str, str], str] = {}
    for picture in pictures:
        folder = PurePosixPath(picture.name).parent
        for fact in ("label", "group"):
            if fact in picture.facts:
                text = folder.name if fact == "label" else folder.as_posix()
                first = whence.setdefault((fact, picture.facts[fact]), text)
                if first != text:
                    raise CommandFailed(
                        f"The folders `{first}` and `{text}` would both get the {fact} "
                        f"`{picture.facts[fact]}`; rename one.",
                        2,
                    )
