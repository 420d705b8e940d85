"""Runs of districts are found by when they ended, and all of a window: how soon people were decided on."""

from alembic import op

revision = "0018"
down_revision = "0017"

_UP = """
CREATE INDEX run_of_district_ended ON run (finished_at) WHERE level = 'district';
CREATE INDEX run_of_district_window ON run (unit, window_start, finished_at) WHERE level = 'district';
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP INDEX run_of_district_ended, run_of_district_window")
