"""Let a collection have several versions of its embedding, projections of one network's vectors."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0008"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
COLLECTION_COLUMNS = ("previous_embedding_id", "embedding_sequence")
EMBEDDING_COLUMNS = (
    "base_id",
    "is_complete",
    "job_id",
    "method",
    "parameters",
    "seed",
    "sequence",
    "report",
    "state_sha256",
    "activated_at",
)


def upgrade() -> None:
    """Add the columns and the table."""
    for column in (
        sa.Column("previous_embedding_id", sa.BigInteger(), nullable=True),
        sa.Column("embedding_sequence", sa.BigInteger(), server_default="0", nullable=False),
    ):
        op.add_column("collections", column)
    for column in (
        sa.Column("base_id", sa.BigInteger(), nullable=True),
        sa.Column("is_complete", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=True),
        sa.Column("method", sa.String(length=64), nullable=True),
        sa.Column("parameters", sa.JSON(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("report", sa.JSON(), nullable=True),
        sa.Column("state_sha256", sa.String(length=64), nullable=True),
        sa.Column("activated_at", sa.DateTime(), nullable=True),
    ):
        op.add_column("embeddings", column)
    op.create_table(
        "embedding_parts",
        sa.Column("embedding_id", BIG_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["embedding_id"], ["embeddings.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("embedding_id", "position"),
    )


def downgrade() -> None:
    """Drop both; versions that are projections go with their vectors, and collections go back to the network's own."""
    op.drop_table("embedding_parts")
    base = "(SELECT base_id FROM embeddings WHERE embeddings.id = collections.embedding_id)"
    op.execute(f"UPDATE collections SET embedding_id = {base} WHERE {base} IS NOT NULL")  # noqa: S608
    op.execute("DELETE FROM embeddings WHERE base_id IS NOT NULL")
    for column in EMBEDDING_COLUMNS:
        op.drop_column("embeddings", column)
    for column in COLLECTION_COLUMNS:
        op.drop_column("collections", column)
