"""Events for identities that lose all children (retire), and for parts that move between identities (move)."""

from alembic import op

revision = "0004"
down_revision = "0003"

# `other_id`: merge: the identity that was merged; split, move: the identity that the part came from.
# A value that is added to an enum cannot be used in the same transaction, but a new enum can.
_RETYPE = """
ALTER TABLE identity_event DROP CONSTRAINT identity_event_check;
ALTER TYPE identity_event_kind RENAME TO identity_event_kind_before;
CREATE TYPE identity_event_kind AS ENUM ({kinds});
ALTER TABLE identity_event ALTER COLUMN kind TYPE identity_event_kind USING kind::text::identity_event_kind;
DROP TYPE identity_event_kind_before;
ALTER TABLE identity_event ADD CHECK ((other_id IS NULL) = (kind IN ({alone})));
"""


def upgrade() -> None:
    kinds = "'create', 'attach', 'merge', 'split', 'move', 'retire'"
    op.execute(_RETYPE.format(kinds=kinds, alone="'create', 'attach', 'retire'"))


def downgrade() -> None:
    op.execute("DELETE FROM identity_event WHERE kind IN ('move', 'retire')")
    op.execute(_RETYPE.format(kinds="'create', 'attach', 'merge', 'split'", alone="'create', 'attach'"))
