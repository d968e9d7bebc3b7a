"""Create the tables of fitted scorers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ORDERED_NAME = sa.String(length=128).with_variant(sa.String(length=128, collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "scorers",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("collection_id", BIG_ID, nullable=False),
        sa.Column("name", ORDERED_NAME, nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(length=36), nullable=False),
        sa.Column("fit_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("updated_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["collection_id"], ["collections.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("collection_id", "name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "fits",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("scorer_id", BIG_ID, nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("embedding_id", sa.BigInteger(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("state_sha256", sa.String(length=64), nullable=False),
        sa.Column("state_bytes", sa.BigInteger(), nullable=False),
        sa.Column("fitted_images", sa.Integer(), nullable=False),
        sa.Column("calibration", sa.LargeBinary(), nullable=False),
        sa.Column("member_pks", sa.LargeBinary(), nullable=False),
        sa.Column("member_marks", sa.LargeBinary(), nullable=False),
        sa.Column("heat_low", sa.Double(), nullable=True),
        sa.Column("heat_border", sa.Double(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["scorer_id"], ["scorers.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_fits_scorer_id", "fits", ["scorer_id"])
    op.create_table(
        "fit_parts",
        sa.Column("fit_id", BIG_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["fit_id"], ["fits.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("fit_id", "position"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("fit_parts")
    op.drop_index("ix_fits_scorer_id", table_name="fits")
    op.drop_table("fits")
    op.drop_table("scorers")
