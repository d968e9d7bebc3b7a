"""Create the table of index files, and the counter that renews states in memory."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table and the column."""
    op.add_column("collections", sa.Column("index_version", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "index_files",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("collection_id", BIG_ID, nullable=False),
        sa.Column("embedding_id", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_index_files_collection", "index_files", ["collection_id", "id"])


def downgrade() -> None:
    """Drop both."""
    op.drop_index("ix_index_files_collection", table_name="index_files")
    op.drop_table("index_files")
    op.drop_column("collections", "index_version")
