"""Images on their way to the service: found, read, sent in batches, answered one by one."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from oddity_client import ItemProblem, NewImage, Problem

from app.cli.console import messages
from app.cli.failures import CommandFailed
from app.importing.ignored import is_ignored

R = TypeVar("R")

BATCH_FILES = 32
BATCH_BYTES = 32 * 2**20
LEFT_OUT_SHOWN = 3

# Also of formats that the service refuses: what is sent is answered by name, what is not sent is missed in silence.
SUFFIXES = frozenset(
    (
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jpx",
        ".jxl",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    )
)


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that can be read when its turn comes."""

    name: str  # as shown and as sent
    read: Callable[[], bytes]
    facts: dict[str, Any] = field(default_factory=dict)  # id, role, label, group to send with it


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image that was read, or the reason why it could not be."""

    picture: Picture
    data: bytes
    fault: str | None = None


def image_files(folder: Path) -> list[Path]:
    """Image files (by suffix) of a folder and all below it, in a stable order; without hidden ones."""
    return [path for path in _files(folder) if _is_image(path)]


def folder_pictures(folder: Path) -> list[Picture]:
    """The images of a folder, named by their path below it; says which other files were left out.

    Raises:
        CommandFailed: there is no image.
    """
    files = list(_files(folder))
    images = [path for path in files if _is_image(path)]
    if not images:
        raise CommandFailed(f"There is no image file below {folder}; known suffixes are {' '.join(sorted(SUFFIXES))}.")
    if others := [path.relative_to(folder).as_posix() for path in files if not _is_image(path)]:
        shown = ", ".join([*others[:LEFT_OUT_SHOWN], *(["…"] if len(others) > LEFT_OUT_SHOWN else [])])
        messages().print(
            f"{len(others)} {'file' if len(others) == 1 else 'files'} left out, not an image by name: {shown}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return [Picture(path.relative_to(folder).as_posix(), path.read_bytes) for path in images]


def _files(folder: Path) -> Iterator[Path]:
    """Files of a folder and all below it, in a stable order; without hidden ones and what operating systems leave."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        yield from (Path(place, name) for name in sorted(files) if not is_ignored(name))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def loaded(pictures: Iterable[Picture]) -> Iterator[Loaded]:
    """Each picture with its bytes, in order."""
    for picture in pictures:
        try:
            yield Loaded(picture, picture.read())
        except OSError as error:
            yield Loaded(picture, b"", f"The file cannot be read: {error.strerror or error}.")


def batches(images: Iterable[Loaded]) -> Iterator[list[Loaded]]:
    """Images in order, at most 32 at a time and 32 MiB unless a single one is larger."""
    batch: list[Loaded] = []
    size = 0
    for image in images:
        if batch and (len(batch) == BATCH_FILES or size + len(image.data) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += len(image.data)
    if batch:
        yield batch


def answers(send: Callable[[Sequence[NewImage]], Iterable[R]], batch: Sequence[Loaded]) -> list[R | ItemProblem]:
    """One result for each image of a batch, in order; a problem for one that could not be read here.

    `send` gives the results of the images really sent, in order.
    """
    readable = [
        NewImage(image.data, image.picture.name, **image.picture.facts) for image in batch if image.fault is None
    ]
    told = iter(send(readable) if readable else ())
    return [
        next(told) if image.fault is None else ItemProblem(problem=Problem(code="file_unreadable", detail=image.fault))
        for image in batch
    ]
