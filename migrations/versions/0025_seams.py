"""Recorded files that follow each other: where each ends, and which state of the tracker it leaves and begins with."""

from alembic import op

revision = "0025"
down_revision = "0024"

_UP = """
ALTER TABLE camera_file
    ADD COLUMN ends timestamptz,            -- when a frame after its last one would have been taken
    ADD COLUMN leaves text,                 -- the name of the state that it left; null: none
    ADD COLUMN follows text;                -- the name of the state that it began with; null: none
"""

_DOWN = "ALTER TABLE camera_file DROP COLUMN ends, DROP COLUMN leaves, DROP COLUMN follows"


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
