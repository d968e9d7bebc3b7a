"""`oddity migrate`: the tables of the record."""

import typer
from sqlalchemy.exc import SQLAlchemyError

from app.cli.client import folder_settings
from app.cli.console import messages
from app.cli.failures import CommandFailed
from app.cli.options import DataOption, examples
from app.db.engine import Database

cli = typer.Typer()


@cli.command(epilog=examples("oddity migrate --data /srv/oddity"))
def migrate(data: DataOption = None) -> None:
    """Bring the tables of the record to this version; `oddity serve` does it by itself."""
    settings = folder_settings(data)
    database = Database(settings.database, settings.database_busy_s)
    try:
        database.migrate()
    except SQLAlchemyError as error:
        raise CommandFailed(f"The record cannot be migrated: {error}") from error
    finally:
        database.close()
    messages().print("The record is up to date.")
