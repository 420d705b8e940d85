"""Calibrations learned without labels: of which unit, from which crops, and for which windows they hold."""

from alembic import op

revision = "0021"
down_revision = "0020"

_UP = """
CREATE TABLE learning (                     -- append-only
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id integer NOT NULL REFERENCES model (id),
    unit text NOT NULL REFERENCES urban_unit (code),
    mark_s integer CHECK (mark_s > 0),      -- seconds of event time after learned_from; null: on request
    learned_from timestamptz NOT NULL,      -- from the unit's crops in [learned_from, learned_to)
    learned_to timestamptz NOT NULL,
    holds_from timestamptz,                 -- start of the first window that it holds for; null: for all
    outcome jsonb NOT NULL CHECK (jsonb_typeof(outcome) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (model_id, unit, mark_s),
    CHECK (learned_from < learned_to)
);
GRANT SELECT, INSERT ON learning TO urban_reid_app;
GRANT SELECT ON SEQUENCE learning_id_seq TO urban_reid_app;
ALTER TABLE calibration ADD COLUMN learning_id bigint REFERENCES learning (id);
"""

_DOWN = """
UPDATE run SET calibration_id = NULL
WHERE calibration_id IN (SELECT id FROM calibration WHERE learning_id IS NOT NULL);
DELETE FROM calibration WHERE learning_id IS NOT NULL;
ALTER TABLE calibration DROP COLUMN learning_id;
DROP TABLE learning;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
