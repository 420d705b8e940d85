"""Comparisons and switches of models, confirmations by people, and the model that found each search hit."""

from alembic import op

revision = "0002"
down_revision = "0001"

_UP = """
ALTER TABLE crop ADD COLUMN picture_gone_at timestamptz;   -- when its missing picture was accepted; null: it is there
GRANT UPDATE (picture_gone_at) ON crop TO urban_reid_app;

CREATE TYPE model_switch_kind AS ENUM ('use', 'promote', 'rollback');
CREATE TABLE model_switch (                 -- append-only: which model came into use when, by whom and why
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    kind model_switch_kind NOT NULL,
    model_id integer NOT NULL REFERENCES model (id),
    operator text NOT NULL CHECK (btrim(operator) <> ''),
    reason text CHECK (btrim(reason) <> ''),
    forced boolean NOT NULL DEFAULT false,
    CHECK (kind = 'use' OR reason IS NOT NULL)
);
CREATE TABLE model_comparison (             -- append-only: two models on the same pictures; the newest of a pair counts
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    model_id integer NOT NULL REFERENCES model (id),
    against_id integer NOT NULL REFERENCES model (id),
    held_out text NOT NULL CHECK (btrim(held_out) <> ''),
    held_out_digest content_key NOT NULL,   -- of pictures and labels
    metrics jsonb NOT NULL,                 -- percent, by name
    against_metrics jsonb NOT NULL,
    CHECK (model_id <> against_id)
);
CREATE INDEX ON model_comparison (model_id, against_id, id DESC);
CREATE TABLE confirmation (                 -- append-only: a person's word on an identity; the newest counts
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    identity_id bigint NOT NULL REFERENCES identity (id),   -- the version that was looked at
    is_one_person boolean NOT NULL,         -- false: it is not, or an earlier confirmation is withdrawn
    operator text NOT NULL CHECK (btrim(operator) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> '')
);
CREATE INDEX ON confirmation (identity_id, id DESC);
GRANT SELECT, INSERT ON model_switch, model_comparison, confirmation TO urban_reid_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO urban_reid_app;

-- The model in use gets a switch; nobody knows who made it.
INSERT INTO model_switch (at, kind, model_id, operator)
    SELECT registered_at, 'use', id, 'unknown' FROM model WHERE in_use;
ALTER TABLE search_hit ADD COLUMN model_id integer REFERENCES model (id);
UPDATE search_hit SET model_id = r.model_id FROM search_request r WHERE r.id = request_id;
ALTER TABLE search_hit ALTER COLUMN model_id SET NOT NULL;
"""

_DOWN = """
ALTER TABLE search_hit DROP COLUMN model_id;
DROP TABLE confirmation, model_comparison, model_switch;
DROP TYPE model_switch_kind;
ALTER TABLE crop DROP COLUMN picture_gone_at;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
