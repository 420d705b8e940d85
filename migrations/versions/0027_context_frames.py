"""Context frames: for each track of a camera that asks for them, the whole frame of its first crop."""

from alembic import op

revision = "0027"
down_revision = "0026"

_UP = """
ALTER TABLE camera_feed ADD COLUMN context_frames boolean NOT NULL DEFAULT false;
CREATE TABLE context_frame (                -- removed by age, see URBAN_REID_CONTEXT_DAYS
    camera text NOT NULL REFERENCES urban_unit (code),
    track text NOT NULL,
    captured_at timestamptz NOT NULL,
    day date NOT NULL GENERATED ALWAYS AS ((captured_at AT TIME ZONE 'UTC')::date) STORED,
    picture bytea NOT NULL CHECK (octet_length(picture) = 32),
    width_px integer NOT NULL CHECK (width_px > 0),
    height_px integer NOT NULL CHECK (height_px > 0),
    batch_id bigint NOT NULL REFERENCES ingest_batch (id),
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (camera, track)
);
CREATE INDEX ON context_frame (batch_id);
CREATE INDEX ON context_frame (stored_at);
CREATE INDEX ON context_frame (day, picture);
GRANT SELECT, INSERT, DELETE ON context_frame TO urban_reid_app;
"""

_DOWN = """
DROP TABLE context_frame;
ALTER TABLE camera_feed DROP COLUMN context_frames;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
