"""An identity's history is whole: it ends when its children are gone, and parts move between those that stay."""

from alembic import op

revision = "0004"
down_revision = "0003"

# `other_id`: merge: who was taken in; split, move: whose part came.
# A value that is added to a type cannot be used in the same transaction; a new type can.
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
