"""Every ingest is a batch, which can be undone: its crops are marked as withdrawn, and their rows stay."""

from alembic import op

revision = "0011"
down_revision = "0010"

# Crops that are stored already belong to no batch: nothing tells which of them came in together.
_UP = """
CREATE TABLE ingest_batch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest content_key NOT NULL,            -- of what was taken in and with which options
    content content_key,                    -- SHA-256 of what was taken in; null: a stream
    door text NOT NULL,                     -- as in crop.source
    name text NOT NULL,                     -- of the file, folder or camera
    options json NOT NULL DEFAULT '{}',
    operator text NOT NULL CHECK (btrim(operator) <> ''),
    begun_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,                   -- null: in work, or killed
    read integer NOT NULL DEFAULT 0 CHECK (read >= 0),
    left_out integer NOT NULL DEFAULT 0 CHECK (left_out >= 0),
    written integer NOT NULL DEFAULT 0 CHECK (written >= 0),
    notes jsonb NOT NULL DEFAULT '[]',
    undone_at timestamptz,
    undone_by text CHECK (btrim(undone_by) <> ''),
    undo_reason text CHECK (btrim(undo_reason) <> ''),
    CHECK (num_nonnulls(undone_at, undone_by, undo_reason) IN (0, 3))
);
CREATE UNIQUE INDEX ingest_batch_once ON ingest_batch (digest) WHERE undone_at IS NULL;
CREATE INDEX ON ingest_batch (content) WHERE undone_at IS NULL;
ALTER TABLE crop
    ADD COLUMN batch_id bigint REFERENCES ingest_batch (id),    -- the batch that it counts to; null: older than batches
    ADD COLUMN withdrawn_at timestamptz;                        -- when its batch was undone; null: it takes part
CREATE INDEX ON crop (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX crop_withdrawn ON crop (camera) WHERE withdrawn_at IS NOT NULL;
CREATE INDEX crop_gone ON crop (camera) WHERE picture_gone_at IS NOT NULL;
-- A crop that a later batch brought too, as that batch describes it: the crop stays when its own batch is undone.
CREATE TABLE crop_claim (
    batch_id bigint NOT NULL REFERENCES ingest_batch (id),
    crop_id bigint NOT NULL REFERENCES crop (id),
    track text,
    box double precision[],
    truth text,
    PRIMARY KEY (crop_id, batch_id)
);
CREATE INDEX ON crop_claim (batch_id);
GRANT SELECT, INSERT ON ingest_batch, crop_claim TO urban_reid_app;
GRANT SELECT ON SEQUENCE ingest_batch_id_seq TO urban_reid_app;
GRANT UPDATE (ended_at, read, left_out, written, notes, undone_at, undone_by, undo_reason) ON ingest_batch
    TO urban_reid_app;
GRANT UPDATE (batch_id, withdrawn_at, track, box) ON crop TO urban_reid_app;
GRANT DELETE ON crop_claim, crop_truth TO urban_reid_app;
"""

_DOWN = """
REVOKE DELETE ON crop_truth FROM urban_reid_app;
REVOKE UPDATE (track, box) ON crop FROM urban_reid_app;
DROP TABLE crop_claim;
ALTER TABLE crop DROP COLUMN batch_id, DROP COLUMN withdrawn_at;
DROP INDEX crop_gone;
DROP TABLE ingest_batch;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
