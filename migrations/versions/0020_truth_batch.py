"""A truth counts to the batch that stated it first, and goes when that batch is undone."""

from alembic import op

revision = "0020"
down_revision = "0019"

# Of a truth that is there already nothing says whether the crop's own batch stated it: it counts to that one, and stays
# when another is undone.
_UP = """
ALTER TABLE crop_truth ADD COLUMN batch_id bigint REFERENCES ingest_batch (id);
UPDATE crop_truth t SET batch_id = c.batch_id FROM crop c WHERE c.id = t.crop_id AND c.batch_id IS NOT NULL;
CREATE INDEX ON crop_truth (batch_id) WHERE batch_id IS NOT NULL;
GRANT UPDATE (batch_id) ON crop_truth TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("ALTER TABLE crop_truth DROP COLUMN batch_id")
