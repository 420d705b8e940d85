"""Crops have their UTC day, so that a day is deleted fast, and an embedding belongs to the day of its crop."""

from alembic import op

revision = "0012"
down_revision = "0011"

# A foreign key with the day looks at one partition when a crop is deleted. Without it, it looks at those of every day.
_UP = """
ALTER TABLE crop ADD COLUMN day date NOT NULL GENERATED ALWAYS AS ((captured_at AT TIME ZONE 'UTC')::date) STORED,
    ADD UNIQUE (day, id);
ALTER TABLE crop_embedding DROP CONSTRAINT crop_embedding_crop_id_fkey,
    ADD FOREIGN KEY (day, crop_id) REFERENCES crop (day, id);
CREATE INDEX ON search_request (crop_id) WHERE crop_id IS NOT NULL;
"""
_DOWN = """
DROP INDEX search_request_crop_id_idx;
ALTER TABLE crop_embedding DROP CONSTRAINT crop_embedding_day_crop_id_fkey,
    ADD FOREIGN KEY (crop_id) REFERENCES crop (id);
ALTER TABLE crop DROP COLUMN day;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
