"""The items file of an import: one JSON object a line, that says what a file is."""

import json
from typing import Any

from pydantic import ConfigDict, ValidationError

from app.bodies import plain_json
from app.errors import Invalid
from app.images.schemas import Item
from app.importing.entries import ITEMS_NAME, plain_name


class Line(Item):
    """What one line may say: which file, and what a caller may say about a file anywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file_name: str


def read_facts(data: bytes) -> dict[str, dict[str, Any]]:
    """What is said about each file, by name.

    One wrong line refuses the whole: a defect whose line cannot be read would otherwise become a normal image.
    Raises Invalid that names the line.
    """
    facts: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            given = Line.model_validate(plain_json(json.loads(line)))
            name = plain_name(given.file_name)
        except ValidationError as error:
            first = error.errors()[0]
            raise _malformed(number, f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}") from error
        except Invalid as error:
            raise _malformed(number, error.detail) from error
        except (ValueError, RecursionError) as error:
            raise _malformed(number, str(error)) from error
        if name in facts:
            raise _malformed(number, f"`{name}` stands in an earlier line too")
        facts[name] = {field: getattr(given, field) for field in given.model_fields_set if field != "file_name"}
    return facts


def _malformed(number: int, what: str) -> Invalid:
    return Invalid(f"Line {number} of {ITEMS_NAME} cannot be used: {what.rstrip('.')}.", "items_malformed")
