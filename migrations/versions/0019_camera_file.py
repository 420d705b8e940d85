"""Which recorded files of a camera are taken in, so that a restart neither repeats nor loses one."""

from alembic import op

revision = "0019"
down_revision = "0018"

_UP = """
CREATE TABLE camera_file (
    camera text NOT NULL REFERENCES urban_unit (code) ON DELETE CASCADE,
    path text NOT NULL,
    bytes bigint NOT NULL,
    modified_ns bigint NOT NULL,            -- a file that was written again is another one
    state text NOT NULL CHECK (state IN ('begun', 'taken', 'refused')),
    attempts integer NOT NULL DEFAULT 1,
    start timestamptz,                      -- of its first frame
    start_from text,                        -- where that is known from
    batch_id bigint REFERENCES ingest_batch (id),
    note text NOT NULL DEFAULT '',
    at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (camera, path, bytes, modified_ns)
);
GRANT SELECT, INSERT, UPDATE, DELETE ON camera_file TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE camera_file")
