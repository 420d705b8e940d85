"""The database says which programs may use it: those that know at least this revision.

A migration that only adds (expands) leaves it. One that takes away what earlier programs use (contracts) raises it, by
CREATE OR REPLACE: docs/decisions/expand-and-contract.md.
"""

from alembic import op

revision = "0047"
down_revision = "0046"


def upgrade() -> None:
    op.execute("CREATE FUNCTION oldest_program() RETURNS text LANGUAGE sql IMMUTABLE RETURN '0047'")


def downgrade() -> None:
    op.execute("DROP FUNCTION oldest_program()")
