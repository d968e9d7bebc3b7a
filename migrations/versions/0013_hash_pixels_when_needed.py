"""Allow images without a hash of their pixels: it is made when a search for duplicates needs it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Allow the column to be empty; hashes that are there stay."""
    if op.get_bind().dialect.name != "sqlite":
        op.alter_column("images", "pixel_sha256", existing_type=sa.String(length=64), nullable=True)
        return
    op.add_column("images", sa.Column("pixel_hash", sa.String(length=64), nullable=True))
    _move()


def downgrade() -> None:
    """Give images without one the hash of their bytes: equal bytes have equal pixels, and no others are told so."""
    if op.get_bind().dialect.name != "sqlite":
        op.execute("UPDATE images SET pixel_sha256 = sha256 WHERE pixel_sha256 IS NULL")
        op.alter_column("images", "pixel_sha256", existing_type=sa.String(length=64), nullable=False)
        return
    op.add_column("images", sa.Column("pixel_hash", sa.String(length=64), nullable=False, server_default=""))
    op.execute("UPDATE images SET pixel_sha256 = sha256 WHERE pixel_sha256 IS NULL")
    _move()


def _move() -> None:
    """Put the new column in the place of the old one.

    SQLite changes no column in place, and a new table in the place of the old one would take the vectors with it.
    """
    op.execute("UPDATE images SET pixel_hash = pixel_sha256")
    op.drop_column("images", "pixel_sha256")
    op.execute("ALTER TABLE images RENAME COLUMN pixel_hash TO pixel_sha256")
