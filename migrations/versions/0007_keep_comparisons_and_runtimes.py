"""Keep comparisons and ratings, the role before an image became an example, and the runtime of fits."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

FEEDBACK = (
    ("other_image_id", sa.String(length=256)),
    ("other_sha256", sa.String(length=64)),
    ("answer", sa.String(length=16)),
    ("value", sa.Double()),
    ("rater", sa.String(length=128)),
)


def upgrade() -> None:
    """Add the columns; all may be empty, as they are for what was there before."""
    for name, kind in FEEDBACK:
        op.add_column("feedback", sa.Column(name, kind, nullable=True))
    op.add_column("images", sa.Column("role_before", sa.String(length=16), nullable=True))
    op.add_column("fits", sa.Column("answers", sa.Integer(), nullable=True))
    op.add_column("fits", sa.Column("runtime", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop the columns."""
    op.drop_column("fits", "runtime")
    op.drop_column("fits", "answers")
    op.drop_column("images", "role_before")
    for name, _ in reversed(FEEDBACK):
        op.drop_column("feedback", name)
