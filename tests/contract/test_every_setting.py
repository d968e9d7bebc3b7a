"""Each setting says what it is, holds its range, and is set by its variable alone."""

from pathlib import Path
from typing import Any

import annotated_types
import pytest
from pydantic import BaseModel, ValidationError

from app.collections.settings import CollectionSettings
from app.settings import Settings

BOUNDS = (annotated_types.Ge, annotated_types.Gt, annotated_types.Le, annotated_types.Lt)
# A number's name ends in its unit. These count things that are named instead.
AS_THE_MACHINE_HAS = {"memory_budget_bytes"}  # no upper end
COUNTED = {
    "image_size",
    "threads",
    "files_limit",
    "connections_limit",
    "processes",
    "inference_slots",
    "import_limit_ratio",
    "decode_workers",
    "job_workers",
    "job_threads",
    "job_niceness",
    "inference_niceness",
    "metrics_collections",
}
UNITS = (
    "_bytes",
    "_pixels",
    "_frames",
    "_images",
    "_requests",
    "_s",
    "_hours",
    "_files",
    "_entries",
    "_share",
    "_level",
    "_values",
)


def fields(model: type[BaseModel]) -> list[Any]:
    return [pytest.param(name, field, id=f"{model.__name__}.{name}") for name, field in model.model_fields.items()]


def bounds(field: Any) -> list[Any]:
    """The bounds of a number, also of one that may be left out."""
    found = list(field.metadata)
    for part in getattr(field.annotation, "__args__", ()):
        found += getattr(part, "__metadata__", ())
    return [one for one in found if isinstance(one, BOUNDS)]


def is_number(field: Any) -> bool:
    kinds = {field.annotation, *getattr(field.annotation, "__args__", ())}
    return bool(kinds & {int, float}) and bool not in kinds and tuple not in kinds


@pytest.mark.parametrize(("name", "field"), [*fields(Settings), *fields(CollectionSettings)])
def test_it_says_what_it_is(name: str, field: Any) -> None:
    assert field.description and field.description.endswith("."), name


@pytest.mark.parametrize(("name", "field"), [*fields(Settings), *fields(CollectionSettings)])
def test_a_number_has_both_ends(name: str, field: Any) -> None:
    if is_number(field):
        lower = [one for one in bounds(field) if isinstance(one, annotated_types.Ge | annotated_types.Gt)]
        upper = [one for one in bounds(field) if isinstance(one, annotated_types.Le | annotated_types.Lt)]
        assert len(lower) == 1 and len(upper) == (name not in AS_THE_MACHINE_HAS), name


@pytest.mark.parametrize(("name", "field"), fields(Settings))
def test_a_number_is_named_with_its_unit(name: str, field: Any) -> None:
    if is_number(field):
        assert name in COUNTED or name.endswith(UNITS), name


NUMBERS = [one for one in fields(Settings) if is_number(one.values[1])]


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_outside_its_range_the_service_does_not_start(name: str, field: Any, monkeypatch) -> None:
    for bound in bounds(field):
        limit = next(iter(vars(bound).values())) if hasattr(bound, "__dict__") else None
        limit = getattr(bound, {"Ge": "ge", "Gt": "gt", "Le": "le", "Lt": "lt"}[type(bound).__name__], limit)
        beyond = {"Ge": limit - 1, "Gt": limit, "Le": limit + 1, "Lt": limit}[type(bound).__name__]
        monkeypatch.setenv(f"ODDITY_{name.upper()}", str(beyond))
        with pytest.raises(ValidationError, match=name):
            Settings()


@pytest.mark.parametrize(("name", "field"), NUMBERS)
def test_its_variable_sets_it(name: str, field: Any, monkeypatch) -> None:
    value = next(
        one.le if isinstance(one, annotated_types.Le) else one.ge
        for one in reversed(bounds(field))
        if isinstance(one, annotated_types.Le | annotated_types.Ge)
    )
    monkeypatch.setenv(f"ODDITY_{name.upper()}", str(value))
    assert getattr(Settings(), name) == value


def test_the_data_folder_and_texts_come_from_variables_too(monkeypatch) -> None:
    for name, text in (
        ("DATA", "/srv/oddity"),
        ("WEIGHTS", "file:/w"),
        ("BACKBONE", "resnet50"),
        ("LOG_LEVEL", "debug"),
    ):
        monkeypatch.setenv(f"ODDITY_{name}", text)
    settings = Settings()
    assert (settings.data, settings.weights) == (Path("/srv/oddity"), "file:/w")
    assert (settings.backbone, settings.log_level) == ("resnet50", "debug")
    assert settings.database == "sqlite:////srv/oddity/oddity.db"
    monkeypatch.setenv("ODDITY_LOG_LEVEL", "loud")
    with pytest.raises(ValidationError):
        Settings()


def test_settings_are_frozen_closed_and_keep_their_secret() -> None:
    settings = Settings(database_url="postgresql://me:secret@host/db")
    assert settings.database == "postgresql://me:secret@host/db"
    assert "secret" not in repr(settings) and "secret" not in settings.model_dump_json()
    with pytest.raises(ValidationError):
        settings.threads = 3
    with pytest.raises(ValidationError):
        Settings(treads=3)


def test_building_settings_touches_no_file(tmp_path: Path) -> None:
    Settings(data=tmp_path / "not made")
    assert list(tmp_path.iterdir()) == []
