"""Add the index by which pages of a collection's images follow one another.

Without it each page of a large collection sorts all that follow: a snapshot of a million images took hours.
"""

from alembic import op

revision = "0011"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_images_arrival", "images", ["collection_id", "id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_index("ix_images_arrival", table_name="images")
