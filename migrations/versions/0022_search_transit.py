"""A search keeps what the probe's time and place say beside its look."""

from alembic import op

revision = "0022"
down_revision = "0021"

_UP = """
ALTER TABLE search_hit ADD COLUMN log_look double precision;  -- the part of the look in log_ratio
ALTER TABLE search_evidence ADD COLUMN log_looks double precision[];  -- of the same, of the look alone; null: the same
"""

_DOWN = """
ALTER TABLE search_evidence DROP COLUMN log_looks;
ALTER TABLE search_hit DROP COLUMN log_look;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
