"""Files on their way to the service. Those named by a path, or open, are read while they are sent, never as a whole."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from oddity_client.answers import Role

Content: TypeAlias = bytes | str | os.PathLike[str] | BinaryIO
"""Bytes, the path of a file, or an open file that can seek (a request may have to be repeated)."""


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image to send, with what is to be said of it; `name` is the file name that the service keeps."""

    content: Content
    name: str | None = None
    id: str | None = None
    role: Role | None = None
    label: str | None = None
    group: str | None = None
    metadata: Mapping[str, Any] | None = None

    def facts(self) -> dict[str, Any]:
        """What was said, for `items`."""
        said = {"id": self.id, "role": self.role, "label": self.label, "group": self.group, "metadata": self.metadata}
        return {name: value for name, value in said.items() if value is not None}

    def part(self) -> "Part":
        """The file of a form that it becomes."""
        return Part("files", self.content, self.name)


Image: TypeAlias = Content | NewImage


def as_image(image: Image) -> NewImage:
    """The image with what is said of it, which is nothing for bytes, paths and files."""
    return image if isinstance(image, NewImage) else NewImage(image)


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a form."""

    field: str
    content: Content
    name: str | None = None

    def opened(self, stack: ExitStack) -> tuple[str, tuple[str, BinaryIO, str]]:
        """The part as httpx takes it, from its first byte, closed with the stack if it was opened here."""
        name = self.name or self._own_name()
        file: BinaryIO
        if isinstance(self.content, bytes):
            file = BytesIO(self.content)
        elif isinstance(self.content, str | os.PathLike):
            file = stack.enter_context(Path(self.content).open("rb"))  # noqa: SIM115 - the stack closes it
        else:
            file = self.content
            file.seek(0)
        return self.field, (name, file, "application/octet-stream")

    def size(self) -> int:
        """Bytes of it."""
        if isinstance(self.content, bytes):
            return len(self.content)
        if isinstance(self.content, str | os.PathLike):
            return Path(self.content).stat().st_size
        return self.content.seek(0, os.SEEK_END)

    def _own_name(self) -> str:
        if isinstance(self.content, str | os.PathLike):
            return Path(self.content).name
        return "image"


def items_of(images: Sequence[NewImage]) -> str | None:
    """What is said of the images, as the JSON text `items`; None when nothing is said of any."""
    facts = [image.facts() for image in images]
    return json.dumps(facts) if any(facts) else None


def batches(images: Iterable[Image], files: int, size: int) -> Iterable[list[NewImage]]:
    """The images in order, at most so many at a time and so many bytes unless a single one is larger."""
    batch: list[NewImage] = []
    held = 0
    for image in map(as_image, images):
        weight = image.part().size()
        if batch and (len(batch) == files or held + weight > size):
            yield batch
            batch, held = [], 0
        batch.append(image)
        held += weight
    if batch:
        yield batch
