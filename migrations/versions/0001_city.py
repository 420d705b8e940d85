"""The city: units, crops, embeddings, identities, decisions, runs, models, searches, audit.

Everything belongs to urban_reid_owner. urban_reid_app may read and write rows and nothing else, and cannot change what
is append-only.
"""

from alembic import op

revision = "0001"
down_revision = None

_TYPES = """
CREATE TYPE unit_level AS ENUM ('camera', 'building', 'street', 'district');
CREATE TYPE verdict AS ENUM ('join', 'apart', 'review');
CREATE TYPE identity_event_kind AS ENUM ('create', 'attach', 'merge', 'split');
CREATE TYPE prototype_kind AS ENUM ('mean', 'medoid');

-- A unit's level is the depth of its code, and its parent is the path without the last segment.
CREATE FUNCTION level_of(code text) RETURNS unit_level LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (ARRAY['district', 'street', 'building', 'camera']::unit_level[])[cardinality(string_to_array(code, '/'))] $$;
CREATE FUNCTION parent_of(code text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT nullif(regexp_replace(code, '/?[^/]+$', ''), '') $$;
CREATE DOMAIN content_key AS bytea CHECK (octet_length(VALUE) = 32);
"""

_CITY = """
CREATE TABLE city (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    timezone text NOT NULL,
    digest content_key NOT NULL,            -- of the city file's content
    is_demo boolean NOT NULL DEFAULT false,
    loaded_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE urban_unit (
    code text PRIMARY KEY CHECK (code ~ '^[a-z0-9-]{1,32}(/[a-z0-9-]{1,32}){0,3}$'),
    level unit_level NOT NULL GENERATED ALWAYS AS (level_of(code)) STORED,
    parent text GENERATED ALWAYS AS (parent_of(code)) STORED REFERENCES urban_unit (code),
    name text NOT NULL DEFAULT '',
    kind text NOT NULL DEFAULT '',
    source text,
    x_m double precision,
    y_m double precision,
    clock_uncertainty_s double precision NOT NULL DEFAULT 0.5 CHECK (clock_uncertainty_s >= 0),
    CHECK ((x_m IS NULL) = (y_m IS NULL)),
    CHECK (level_of(code) = 'camera' OR (source IS NULL AND x_m IS NULL))
);
CREATE INDEX ON urban_unit (parent);
CREATE TABLE camera_overlap (
    a text NOT NULL REFERENCES urban_unit (code),
    b text NOT NULL REFERENCES urban_unit (code),
    PRIMARY KEY (a, b),
    CHECK (a < b AND parent_of(a) = parent_of(b) AND level_of(a) = 'camera')
);
CREATE TABLE transit (
    a text NOT NULL REFERENCES urban_unit (code),
    b text NOT NULL REFERENCES urban_unit (code),
    shortest_s double precision NOT NULL CHECK (shortest_s >= 0),
    PRIMARY KEY (a, b),
    CHECK (a < b AND parent_of(a) IS NOT DISTINCT FROM parent_of(b))
);
"""

_CROPS = """
CREATE TABLE crop (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key content_key NOT NULL UNIQUE,
    camera text NOT NULL REFERENCES urban_unit (code) CHECK (level_of(camera) = 'camera'),
    captured_at timestamptz NOT NULL,
    timed boolean NOT NULL,
    source text NOT NULL,
    track text,
    box double precision[] CHECK (box IS NULL OR cardinality(box) = 4),   -- x, y, width, height in the frame, pixels
    picture content_key NOT NULL,           -- SHA-256 of the encoded picture; its name in the crop store
    width_px integer NOT NULL CHECK (width_px > 0),
    height_px integer NOT NULL CHECK (height_px > 0),
    quality real NOT NULL CHECK (quality BETWEEN 0 AND 1),
    ingested_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON crop (camera, captured_at);
CREATE TABLE crop_truth (                   -- read by scoring only
    crop_id bigint PRIMARY KEY REFERENCES crop (id) ON DELETE CASCADE,
    truth text NOT NULL
);
CREATE TABLE probe (                        -- a picture that an operator uploaded for a search
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    picture content_key NOT NULL,
    uploaded_by text NOT NULL CHECK (btrim(uploaded_by) <> ''),
    uploaded_at timestamptz NOT NULL DEFAULT now()
);
"""

_MODELS = """
CREATE TABLE model (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    digest content_key NOT NULL UNIQUE,     -- of its files' hashes
    dims integer NOT NULL CHECK (dims BETWEEN 1 AND 16000),
    card jsonb NOT NULL,
    in_use boolean NOT NULL DEFAULT false,
    registered_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX model_in_use ON model (in_use) WHERE in_use;
CREATE TABLE calibration (                  -- the newest of a model and level counts
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_id integer NOT NULL REFERENCES model (id),
    level unit_level NOT NULL CHECK (level <> 'camera'),
    parameters jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON calibration (model_id, level, id DESC);
-- Raw post-BN features, partitioned by model and below that by UTC day. No foreign key points at a partition.
CREATE TABLE crop_embedding (
    model_id integer NOT NULL REFERENCES model (id),
    day date NOT NULL,
    crop_id bigint NOT NULL REFERENCES crop (id),
    v halfvec NOT NULL,
    PRIMARY KEY (model_id, day, crop_id)
) PARTITION BY LIST (model_id);
CREATE INDEX ON crop_embedding (crop_id);
"""

_IDENTITIES = """
CREATE TABLE run (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_key content_key NOT NULL,
    unit text NOT NULL REFERENCES urban_unit (code),
    level unit_level NOT NULL GENERATED ALWAYS AS (level_of(unit)) STORED,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    model_id integer NOT NULL REFERENCES model (id),
    calibration_id bigint REFERENCES calibration (id),
    children integer NOT NULL CHECK (children >= 0),
    context integer NOT NULL CHECK (context >= 0),
    finished_at timestamptz NOT NULL DEFAULT now(),
    superseded_at timestamptz,              -- null: current
    CHECK (window_start < window_end)
);
CREATE UNIQUE INDEX run_current ON run (unit, window_start) WHERE superseded_at IS NULL;
CREATE UNIQUE INDEX run_once ON run (run_key) WHERE superseded_at IS NULL;
-- One row is one version of an identity, written by a window's run. Its newest row of a current run is its state.
CREATE TABLE identity (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES run (id),
    key content_key NOT NULL,
    persistent_id uuid NOT NULL,
    unit text NOT NULL REFERENCES urban_unit (code),
    level unit_level NOT NULL GENERATED ALWAYS AS (level_of(unit)) STORED,
    window_start timestamptz NOT NULL,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    timed boolean NOT NULL,
    crops integer NOT NULL CHECK (crops >= 0),
    tracklets bigint[] NOT NULL,            -- ids of the tracklets below it, so that no reader walks the tree
    retired boolean NOT NULL DEFAULT false, -- merged into another, or left without members
    UNIQUE (run_id, key),
    UNIQUE (run_id, persistent_id),
    CHECK (first_seen <= last_seen)
);
CREATE INDEX ON identity (unit, persistent_id, window_start DESC, id DESC);
CREATE INDEX ON identity (unit, window_start);
CREATE INDEX ON identity (unit, last_seen);
CREATE INDEX ON identity (persistent_id);
CREATE INDEX ON identity (key);
-- The state of every identity that has not ended.
CREATE VIEW identity_now AS
SELECT * FROM (
    SELECT DISTINCT ON (i.unit, i.persistent_id) i.* FROM identity i JOIN run r ON r.id = i.run_id
    WHERE r.superseded_at IS NULL ORDER BY i.unit, i.persistent_id, i.window_start DESC
) AS newest WHERE NOT retired;
CREATE TABLE identity_member (
    identity_id bigint NOT NULL REFERENCES identity (id),
    child_id bigint REFERENCES identity (id),
    crop_id bigint REFERENCES crop (id),
    CHECK (num_nonnulls(child_id, crop_id) = 1)
);
CREATE UNIQUE INDEX ON identity_member (identity_id, child_id, crop_id) NULLS NOT DISTINCT;
CREATE INDEX ON identity_member (child_id) WHERE child_id IS NOT NULL;
CREATE INDEX ON identity_member (crop_id) WHERE crop_id IS NOT NULL;
CREATE TABLE identity_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES run (id),
    kind identity_event_kind NOT NULL,
    persistent_id uuid NOT NULL,            -- the identity that the event is about
    other_id uuid,                          -- merge: the identity that was merged; split: the identity it came from
    CHECK ((other_id IS NULL) = (kind IN ('create', 'attach')))
);
CREATE INDEX ON identity_event (run_id);
CREATE INDEX ON identity_event (persistent_id);
CREATE TABLE prototype (
    model_id integer NOT NULL REFERENCES model (id),
    day date NOT NULL,                      -- UTC day of the identity's last_seen
    identity_id bigint NOT NULL REFERENCES identity (id),
    ordinal smallint NOT NULL CHECK (ordinal >= 0),
    kind prototype_kind NOT NULL,
    weight real NOT NULL CHECK (weight > 0),
    v halfvec NOT NULL,
    PRIMARY KEY (model_id, day, identity_id, ordinal),
    CHECK ((kind = 'mean') = (ordinal = 0))
) PARTITION BY LIST (model_id);
CREATE INDEX ON prototype (identity_id);
CREATE TABLE match_decision (               -- append-only
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id bigint NOT NULL REFERENCES run (id),
    left_key content_key NOT NULL,
    right_key content_key NOT NULL,
    verdict verdict NOT NULL,
    distance double precision NOT NULL CHECK (distance >= 0 AND distance < 'Infinity'),
    appearance_log_odds double precision,   -- null without a calibration
    transit_log_odds double precision NOT NULL,
    probability double precision CHECK (probability BETWEEN 0 AND 1),
    operating_point double precision CHECK (operating_point BETWEEN 0 AND 1),
    gap_s double precision,                 -- between the two, seconds; null where a side is untimed
    left_at text NOT NULL REFERENCES urban_unit (code),     -- the child units between which the gap lies
    right_at text NOT NULL REFERENCES urban_unit (code),
    runner_up_key content_key,
    runner_up_distance double precision,
    UNIQUE (run_id, left_key, right_key),
    CHECK (left_key < right_key),
    CHECK ((probability IS NULL) = (operating_point IS NULL)),
    CHECK (probability IS NOT NULL OR verdict = 'review')
);
CREATE INDEX ON match_decision (left_key);
CREATE INDEX ON match_decision (right_key);
CREATE TABLE watermark (
    unit text PRIMARY KEY REFERENCES urban_unit (code),
    dirty_from timestamptz,                 -- start of the first window to resolve again; null: nothing to do
    version bigint NOT NULL DEFAULT 0       -- number of marks, so that clearing one cannot lose a newer one
);
"""

_SEARCH = """
CREATE TABLE search_request (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    requested_at timestamptz NOT NULL DEFAULT now(),
    operator text NOT NULL CHECK (btrim(operator) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    unit text NOT NULL REFERENCES urban_unit (code),
    from_time timestamptz,
    to_time timestamptz,
    crop_id bigint REFERENCES crop (id),
    probe_id uuid REFERENCES probe (id),
    top integer NOT NULL CHECK (top BETWEEN 1 AND 200),
    model_id integer NOT NULL REFERENCES model (id),
    finished_at timestamptz,
    CHECK (num_nonnulls(crop_id, probe_id) = 1)
);
CREATE TABLE search_hit (
    request_id uuid NOT NULL REFERENCES search_request (id),
    rank integer NOT NULL CHECK (rank >= 1),
    identity_id bigint NOT NULL REFERENCES identity (id),
    distance double precision NOT NULL,
    probability double precision CHECK (probability BETWEEN 0 AND 1),
    PRIMARY KEY (request_id, rank)
);
CREATE TABLE audit (                        -- append-only
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL CHECK (btrim(actor) <> ''),
    action text NOT NULL CHECK (btrim(action) <> ''),
    unit text,
    reason text,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX ON audit (at);
"""

# Runs with its owner's rights, because the program may create no table. It creates the partition of a model (part) and,
# below it, the partition of a day (leaf). A leaf is created on its own and then attached, which waits for no reader.
LEAVES = """
CREATE FUNCTION ensure_leaf(family text, model integer, leaf_day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    part text := format('%s_m%s', family, model);
    leaf text := format('%s_m%s_%s', family, model, to_char(leaf_day, 'YYYYMMDD'));
    width integer;
BEGIN
    IF family NOT IN ('crop_embedding', 'prototype') THEN
        RAISE EXCEPTION 'no family of leaves: %', family;
    END IF;
    IF EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = leaf) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('urban_reid leaf ' || family, model));
    -- Asked of the table of tables, not of to_regclass: that one remembers what was not there before the wait.
    IF EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = leaf) THEN
        RETURN;
    END IF;
    SELECT m.dims INTO width FROM public.model AS m WHERE m.id = ensure_leaf.model;
    IF width IS NULL THEN
        RAISE EXCEPTION 'no model %', model;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = part) THEN
        EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL) PARTITION BY RANGE (day)', part, family);
        EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES IN (%s)', family, part, model);
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON public.%I TO urban_reid_app', part);
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', leaf, part);
    EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT width CHECK (vector_dims(v) = %s), ADD CHECK (model_id = %s), '
                   'ADD CHECK (day >= %L AND day < %L)', leaf, width, model, leaf_day, leaf_day + 1);
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   part, leaf, leaf_day, leaf_day + 1);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON public.%I TO urban_reid_app', leaf);
END $$;
REVOKE EXECUTE ON FUNCTION ensure_leaf(text, integer, date) FROM PUBLIC;
"""

# The program may read everything, insert rows, and update or delete only rows that change after they were written.
_GRANTS = """
GRANT USAGE ON SCHEMA public TO urban_reid_app;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO urban_reid_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO urban_reid_app;
GRANT UPDATE, DELETE ON city, urban_unit, camera_overlap, transit TO urban_reid_app;
GRANT DELETE ON crop_embedding, prototype TO urban_reid_app;
GRANT UPDATE (in_use) ON model TO urban_reid_app;
GRANT UPDATE (superseded_at) ON run TO urban_reid_app;
GRANT UPDATE ON watermark TO urban_reid_app;
GRANT UPDATE (finished_at) ON search_request TO urban_reid_app;
GRANT EXECUTE ON FUNCTION ensure_leaf(text, integer, date) TO urban_reid_app;
REVOKE INSERT ON alembic_version FROM urban_reid_app;
"""

_DOWN = """
DROP FUNCTION ensure_leaf(text, integer, date);
DROP VIEW identity_now;
DROP TABLE audit, search_hit, search_request, watermark, match_decision, prototype, identity_event, identity_member,
    identity, run, crop_embedding, calibration, model, probe, crop_truth, crop, transit, camera_overlap, urban_unit,
    city;
DROP DOMAIN content_key;
DROP FUNCTION parent_of(text);
DROP FUNCTION level_of(text);
DROP TYPE prototype_kind, identity_event_kind, verdict, unit_level;
"""


def upgrade() -> None:
    for part in (_TYPES, _CITY, _CROPS, _MODELS, _IDENTITIES, _SEARCH, LEAVES, _GRANTS):
        op.execute(part)


def downgrade() -> None:
    op.execute(_DOWN)
