"""Create the table of counted p-values."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ORDERED_NAME = sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "p_values",
        sa.Column("collection_id", BIG_ID, nullable=False),
        sa.Column("scorer", ORDERED_NAME, nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("expected", sa.JSON(), nullable=False),
        sa.Column("calibration_n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("collection_id", "scorer", "at"),
    )
    op.create_index("ix_p_values_at", "p_values", ["at"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_p_values_at", table_name="p_values")
    op.drop_table("p_values")
