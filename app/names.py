"""What callers may call things: ids of images, names of collections, groups and classes."""

import re
import unicodedata
from typing import Annotated

from fastapi import Path
from pydantic import AfterValidator, Field

NAME = re.compile(r"[\w.\-]{1,128}")  # \w is Unicode letters, digits and the underscore


def valid_name(name: str) -> str:
    """The name of a collection, group or class, unchanged. Raises ValueError with a sentence."""
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise ValueError("must be 1 to 128 Unicode letters, digits or `. _ -`, and not `.` or `..`")
    return name


def valid_id(image_id: str) -> str:
    """The id of an image, unchanged. Raises ValueError with a sentence."""
    if not 1 <= len(image_id) <= 256:
        raise ValueError("must be 1 to 256 characters long")
    if image_id in (".", "..") or "/" in image_id:
        raise ValueError("must not contain `/` nor be `.` or `..`")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in image_id):
        raise ValueError("must not contain control characters")
    return image_id


def valid_text(text: str) -> str:
    """Free text, unchanged. Raises ValueError with a sentence for what no database keeps."""
    if "\0" in text or any(unicodedata.category(character) == "Cs" for character in text):
        raise ValueError("must not contain the character 0 nor half a surrogate pair")
    return text


SEQUENCE_HEADER = "Oddity-Sequence"  # of answers without a body
SEQUENCE_MAX = 2**63 - 1  # what a column of the record holds

Name = Annotated[str, AfterValidator(valid_name)]
Text = Annotated[str, AfterValidator(valid_text)]
ImageId = Annotated[str, AfterValidator(valid_id)]
After = Annotated[
    int | None,
    Field(
        ge=0,
        le=SEQUENCE_MAX,
        description="A `sequence` that a write answered: wait for a moment, if need be, until this process knows it.",
    ),
]
CollectionName = Annotated[str, AfterValidator(valid_name), Path(alias="c", description="Name of the collection.")]
