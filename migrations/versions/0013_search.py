"""Searches state the posterior of an identity and of "not here", and keep what these follow from."""

from alembic import op

revision = "0013"
down_revision = "0012"

_UP = """
ALTER TABLE calibration ADD COLUMN purpose text NOT NULL DEFAULT 'pair' CHECK (purpose IN ('pair', 'search'));
ALTER TABLE search_hit ADD COLUMN log_ratio double precision;  -- the person against a stranger, from the distance
ALTER TABLE search_request
    ADD COLUMN compared integer CHECK (compared >= 0),
    ADD COLUMN not_here double precision CHECK (not_here BETWEEN 0 AND 1);
GRANT UPDATE (compared, not_here) ON search_request TO urban_reid_app;
CREATE TABLE search_evidence (              -- of the identities compared by one model; append-only
    request_id uuid NOT NULL REFERENCES search_request (id),
    model_id integer NOT NULL REFERENCES model (id),
    calibration_id bigint NOT NULL REFERENCES calibration (id),
    compared integer NOT NULL CHECK (compared >= 0),
    center double precision NOT NULL,       -- of the probe's distances to strangers
    spread double precision NOT NULL CHECK (spread > 0),
    log_ratios double precision[] NOT NULL, -- the largest ones, descending
    log_sum double precision NOT NULL,      -- of all likelihood ratios
    log_rest double precision NOT NULL,     -- of those that are not in log_ratios
    PRIMARY KEY (request_id, model_id)
);
GRANT SELECT, INSERT ON search_evidence TO urban_reid_app;
"""

_DOWN = """
DROP TABLE search_evidence;
REVOKE UPDATE (compared, not_here) ON search_request FROM urban_reid_app;
ALTER TABLE search_request DROP COLUMN compared, DROP COLUMN not_here;
ALTER TABLE search_hit DROP COLUMN log_ratio;
DELETE FROM calibration WHERE purpose = 'search';
ALTER TABLE calibration DROP COLUMN purpose;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
