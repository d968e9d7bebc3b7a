"""`oddity keys`: make, list, rotate and revoke API keys, on the record itself; no server is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from app.access.audit import Audit
from app.cli.client import folder_settings
from app.cli.console import messages, print_json, results
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, JsonOption, examples
from app.clock import shown, utc_now
from app.db.engine import Database
from app.errors import ServiceError, faults_of
from app.keys import service
from app.keys.schemas import KEEP_MAX_S, KeyParameters

cli = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the key.")]


@cli.command(epilog=examples("oddity keys create line-3 --scope write --collection 'line-3-*'"))
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What people call it.")],
    scope: Annotated[list[str], typer.Option(help="read, write or admin; give it again for more.")],
    collection: Annotated[
        list[str], typer.Option(help="A collection it is for, or the beginning of names as `line-*`; all by default.")
    ] = ["*"],  # noqa: B006 - never changed
    expires_days: Annotated[float | None, typer.Option(min=0, help="Days until it ends; never by default.")] = None,
    requests_per_s: Annotated[float | None, typer.Option(help="Requests a second, in each server process.")] = None,
    requests_per_day: Annotated[int | None, typer.Option(help="Requests a day in UTC, in all processes.")] = None,
    data: DataOption = None,
) -> None:
    """Make a key and print it, once: only a hash of it is kept."""
    now = utc_now()
    ends = None if expires_days is None else shown(now + timedelta(days=expires_days))
    given = {
        "name": name,
        "scopes": scope,
        "collections": collection,
        "expires_at": ends,
        "requests_per_s": requests_per_s,
        "requests_per_day": requests_per_day,
    }
    try:
        parameters = KeyParameters.model_validate(given)
    except ValidationError as error:
        fault = faults_of(error.errors())[0]
        raise CommandFailed(f"`{fault['where'] or 'key'}`: {fault['what']}.", 2) from error
    with _record(data) as (database, audit):
        key, token = service.create_key(database, parameters, now)
        _note(audit, "key_created", key["id"], name)
    messages().print(f"Key `{name}` was made. This is the only time it is shown:")
    print(token)


@cli.command("list", epilog=examples("oddity keys list"))
def list_keys(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List all keys, revoked ones too."""
    with _record(data) as (database, _):
        keys = service.list_keys(database, utc_now())
    if as_json:
        print_json(keys)
        return
    table = Table("name", "id", "state", "scopes", "collections", "expires", "last used")
    for one in keys:
        words = [", ".join(one["scopes"]), " ".join(one["collections"]), one["expires_at"], one["last_used_at"]]
        table.add_row(one["name"], one["id"], one["state"], *(word or "-" for word in words))
    results().print(table)


@cli.command(epilog=examples("oddity keys rotate line-3 --keep-hours 24"))
def rotate(
    name: NameArgument,
    keep_hours: Annotated[
        float, typer.Option(min=0, max=KEEP_MAX_S / 3600, help="Hours for which the token before is still good.")
    ] = 0.0,
    data: DataOption = None,
) -> None:
    """Give a key another token and print that, once."""
    with _record(data) as (database, audit):
        key, token = service.rotate_key(database, name, keep_hours * 3600, utc_now())
        _note(audit, "key_rotated", key["id"], key["name"])
    messages().print(f"Key `{key['name']}` has another token. This is the only time it is shown:")
    print(token)


@cli.command(epilog=examples("oddity keys revoke line-3"))
def revoke(name: NameArgument, data: DataOption = None) -> None:
    """End a key; running servers know within a second."""
    with _record(data) as (database, audit):
        key = service.revoke_key(database, name, utc_now())
        _note(audit, "key_revoked", key["id"], key["name"])
    messages().print(f"Key `{key['name']}` is revoked.")


@contextmanager
def _record(data: Path | None) -> Iterator[tuple[Database, Audit]]:
    settings = folder_settings(data)
    database = Database(settings.database, settings.database_busy_s)
    try:
        database.migrate()
        yield database, Audit(settings.data / "audit", settings.audit_limit_bytes, settings.audit_limit_files)
    except ServiceError as error:
        raise CommandFailed(error.detail) from error
    except SQLAlchemyError as error:
        raise CommandFailed(f"The record cannot be used: {error}") from error
    finally:
        database.close()


def _note(audit: Audit, event: str, key_id: str, name: str) -> None:
    audit.append([{"time": shown(utc_now()), "event": event, "key": key_id, "name": name, "by": "command line"}])
