"""Alembic environment: runs inside the transaction that `Database.migrate` opened."""

from alembic import context

from app.db.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=False,  # the caller's transaction holds all steps
)
context.run_migrations()
