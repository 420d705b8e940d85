"""A window's run can be marked to be decided again, although the model that made it is no longer in use."""

from alembic import op

revision = "0014"
down_revision = "0013"

_UP = """
ALTER TABLE run ADD COLUMN decide_again boolean NOT NULL DEFAULT false;
GRANT UPDATE (decide_again) ON run TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("ALTER TABLE run DROP COLUMN decide_again")
