"""Note when a deletion was made, and up to which change a collection's deletions were pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; deletions of earlier versions have no date and count as old."""
    op.add_column("collections", sa.Column("pruned_sequence", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("deletions", sa.Column("created_at", sa.DateTime(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("deletions", "created_at")
    op.drop_column("collections", "pruned_sequence")
