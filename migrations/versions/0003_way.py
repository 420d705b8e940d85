"""Decisions store the expected time between the two sightings, which transit times are learned from."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("ALTER TABLE match_decision ADD COLUMN way_s double precision CHECK (way_s >= 0)")


def downgrade() -> None:
    op.execute("ALTER TABLE match_decision DROP COLUMN way_s")
