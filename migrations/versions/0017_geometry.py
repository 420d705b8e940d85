"""A run's key holds the geometry of its own unit, by the digest of the city with which that changed last."""

from alembic import op

revision = "0017"
down_revision = "0016"

# Up to now it was the whole city's digest; so the runs that are there keep their keys.
_UP = """
ALTER TABLE urban_unit ADD COLUMN geometry content_key NOT NULL DEFAULT decode(repeat('00', 32), 'hex');
UPDATE urban_unit SET geometry = digest FROM city;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("ALTER TABLE urban_unit DROP COLUMN geometry")
