"""Accounts, sessions, cases and authorizations, and `granted()`: what whoever is signed in may see now.

A home is open while it holds rendered or simulated people or a published data set: who may run the program sees
everything. It becomes live, for good, with the first batch of anything else.
"""

from alembic import op

revision = "0028"
down_revision = "0027"

_HOMES = """
ALTER TABLE city ADD COLUMN kind text NOT NULL DEFAULT 'empty'
    CHECK (kind IN ('empty', 'synthetic', 'data-set', 'live'));
ALTER TABLE ingest_batch ADD COLUMN synthetic boolean NOT NULL DEFAULT false;
UPDATE city SET kind = CASE
    WHEN is_demo THEN 'synthetic'
    WHEN NOT EXISTS (SELECT FROM crop) THEN 'empty'
    WHEN NOT EXISTS (SELECT FROM crop WHERE NOT starts_with(source, 'dataset:')) THEN 'data-set'
    ELSE 'live' END;
UPDATE ingest_batch SET synthetic = true WHERE (SELECT is_demo FROM city);
REVOKE INSERT, UPDATE, DELETE ON city FROM urban_reid_app;
GRANT INSERT (only_one, timezone, digest, is_demo), UPDATE (timezone, digest, is_demo, loaded_at) ON city
    TO urban_reid_app;

CREATE FUNCTION city_kind() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.is_demo AND NEW.kind = 'empty' THEN
        NEW.kind := 'synthetic';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER city_kind BEFORE INSERT OR UPDATE ON city FOR EACH ROW EXECUTE FUNCTION city_kind();

CREATE FUNCTION city_kind_of_batch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted text := CASE WHEN NEW.synthetic THEN 'synthetic'
        WHEN starts_with(NEW.door, 'dataset:') THEN 'data-set' ELSE 'live' END;
BEGIN
    UPDATE public.city SET kind = wanted WHERE kind <> 'live' AND kind <> wanted;
    RETURN NULL;
END $$;
CREATE TRIGGER city_kind_of_batch AFTER INSERT ON ingest_batch FOR EACH ROW EXECUTE FUNCTION city_kind_of_batch();
"""

_ACCOUNTS = """
CREATE TYPE account_role_kind AS ENUM ('operator', 'supervisor', 'auditor', 'engineer', 'administrator');
CREATE TABLE account (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE CHECK (name ~ '^[a-z][a-z0-9._-]{0,63}$'),
    password text NOT NULL,                 -- argon2id, in its own format
    made_at timestamptz NOT NULL DEFAULT now(),
    failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- wrong passwords since the last sign-in
    locked_until timestamptz,
    disabled_at timestamptz
);
CREATE TABLE account_role (                 -- a role, at a unit and below it, for a time
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id integer NOT NULL REFERENCES account (id),
    role account_role_kind NOT NULL,
    unit text NOT NULL DEFAULT '',          -- '': the whole city
    from_time timestamptz NOT NULL DEFAULT now(),
    to_time timestamptz NOT NULL DEFAULT 'infinity',
    granted_by text NOT NULL CHECK (btrim(granted_by) <> ''),
    revoked_at timestamptz,
    CHECK (from_time < to_time)
);
CREATE INDEX ON account_role (account_id);
"""

# AUTHORIZATION and CASE are words of SQL.
_CASES = """
CREATE TYPE authorization_kind AS ENUM ('search', 'urgent', 'standing', 'subject');
CREATE TABLE case_file (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL UNIQUE CHECK (btrim(name) <> ''),
    opened_by integer NOT NULL REFERENCES account (id),
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    hold boolean NOT NULL DEFAULT false     -- what it names is kept beyond its retention
);
CREATE TABLE case_authorization (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    case_id uuid NOT NULL REFERENCES case_file (id),
    kind authorization_kind NOT NULL DEFAULT 'search',
    purpose text NOT NULL CHECK (btrim(purpose) <> ''),
    legal_basis text NOT NULL CHECK (btrim(legal_basis) <> ''),
    sought text NOT NULL CHECK (btrim(sought) <> ''),           -- who is looked for
    units text[] NOT NULL CHECK (cardinality(units) > 0 AND array_position(units, '') IS NULL),
    from_time timestamptz NOT NULL,         -- of what may be seen
    to_time timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    asked_by integer NOT NULL REFERENCES account (id),
    asked_at timestamptz NOT NULL DEFAULT now(),
    approved_by integer REFERENCES account (id) CHECK (approved_by <> asked_by),
    approved_at timestamptz,
    refused_by integer REFERENCES account (id),
    refused_at timestamptz,
    revoked_by integer REFERENCES account (id),
    revoked_at timestamptz,
    locked_at timestamptz,                  -- urgent, and not approved in time
    CHECK (from_time < to_time AND asked_at < expires_at),
    CHECK (isfinite(from_time) AND isfinite(to_time) AND isfinite(expires_at)),
    CHECK ((approved_by IS NULL) = (approved_at IS NULL) AND (refused_by IS NULL) = (refused_at IS NULL)
        AND (revoked_by IS NULL) = (revoked_at IS NULL)),
    CHECK (num_nonnulls(approved_at, refused_at) <= 1)
);
CREATE INDEX ON case_authorization (case_id);
CREATE TABLE session (
    hash content_key PRIMARY KEY,           -- SHA-256 of the token, which is stored nowhere
    account_id integer NOT NULL REFERENCES account (id),
    role account_role_kind NOT NULL,
    units text[] NOT NULL CHECK (cardinality(units) > 0),       -- '': the whole city
    authorization_id uuid REFERENCES case_authorization (id),
    made_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL CHECK (isfinite(expires_at)),
    ended_at timestamptz
);
CREATE INDEX ON session (account_id);
ALTER TABLE search_request
    ADD COLUMN session_hash content_key REFERENCES session (hash),
    ADD COLUMN authorization_id uuid REFERENCES case_authorization (id),
    ADD COLUMN answer_key uuid NOT NULL DEFAULT gen_random_uuid();      -- for the process that answers it
"""

_GRANTED = """
CREATE TYPE grant_now AS (account integer, name text, role account_role_kind, units text[], from_time timestamptz,
    to_time timestamptz, authorization_id uuid, is_open boolean);

-- The units that are in both: of each pair of which one lies below the other, the lower one.
CREATE FUNCTION units_in_both(a text[], b text[]) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT coalesce(array_agg(DISTINCT CASE WHEN length(x) >= length(y) THEN x ELSE y END), '{}')
    FROM unnest(a) AS x, unnest(b) AS y
    WHERE x = '' OR y = '' OR starts_with(x || '/', y || '/') OR starts_with(y || '/', x || '/')
);

-- What holds now for the token of urban_reid.session or, in the process that answers a search, for the unanswered one
-- whose key is urban_reid.request. Anybody may set these variables: only who knows a token or a key has a grant by it.
CREATE FUNCTION granted() RETURNS grant_now
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    token text := nullif(current_setting('urban_reid.session', true), '');
    request text := nullif(current_setting('urban_reid.request', true), '');
    hashed bytea;
    found public.grant_now;
BEGIN
    IF (SELECT c.kind <> 'live' FROM public.city AS c) IS NOT FALSE THEN
        found.units := '{""}';
        found.is_open := true;
        RETURN found;
    END IF;
    IF token ~ '^[0-9a-f]{64}$' THEN
        hashed := sha256(decode(token, 'hex'));
    ELSIF request ~ '^[0-9a-f-]{36}$' THEN
        SELECT r.session_hash INTO hashed FROM public.search_request AS r
        WHERE r.answer_key = request::uuid AND r.finished_at IS NULL;
    END IF;
    -- By the clock: a transaction may have begun long ago.
    SELECT a.id, a.name, s.role, CASE WHEN t.id IS NULL THEN s.units ELSE public.units_in_both(s.units, t.units) END,
        t.from_time, t.to_time, t.id, false
    INTO found
    FROM public.session AS s JOIN public.account AS a ON a.id = s.account_id
    LEFT JOIN public.case_authorization AS t ON t.id = s.authorization_id
    WHERE s.hash = hashed AND s.ended_at IS NULL AND s.expires_at > clock_timestamp() AND a.disabled_at IS NULL
        AND (t.id IS NULL OR (t.refused_at IS NULL AND t.revoked_at IS NULL AND t.locked_at IS NULL
            AND t.expires_at > clock_timestamp()
            AND (t.approved_at IS NOT NULL
                OR (t.kind = 'urgent' AND t.asked_at > clock_timestamp() - interval '48 hours'))));
    RETURN CASE WHEN found.account IS NOT NULL THEN found END;
END $$;
REVOKE EXECUTE ON FUNCTION granted() FROM PUBLIC;

GRANT EXECUTE ON FUNCTION granted() TO urban_reid_app;
GRANT SELECT, INSERT ON account, account_role, case_file, case_authorization, session TO urban_reid_app;
GRANT UPDATE (password, failures, locked_until, disabled_at) ON account TO urban_reid_app;
GRANT UPDATE (revoked_at) ON account_role TO urban_reid_app;
GRANT UPDATE (closed_at, hold) ON case_file TO urban_reid_app;
GRANT UPDATE (approved_by, approved_at, refused_by, refused_at, revoked_by, revoked_at, locked_at)
    ON case_authorization TO urban_reid_app;
GRANT UPDATE (ended_at) ON session TO urban_reid_app;
GRANT USAGE ON SEQUENCE account_id_seq, account_role_id_seq TO urban_reid_app;
"""

_DOWN = """
ALTER TABLE search_request DROP COLUMN session_hash, DROP COLUMN authorization_id, DROP COLUMN answer_key;
DROP FUNCTION granted();
DROP FUNCTION units_in_both(text[], text[]);
DROP TYPE grant_now;
DROP TABLE session, case_authorization, case_file, account_role, account;
DROP TYPE authorization_kind, account_role_kind;
DROP TRIGGER city_kind_of_batch ON ingest_batch;
DROP TRIGGER city_kind ON city;
DROP FUNCTION city_kind_of_batch();
DROP FUNCTION city_kind();
ALTER TABLE ingest_batch DROP COLUMN synthetic;
ALTER TABLE city DROP COLUMN kind;
REVOKE INSERT (only_one, timezone, digest, is_demo), UPDATE (timezone, digest, is_demo, loaded_at) ON city
    FROM urban_reid_app;
GRANT INSERT, UPDATE, DELETE ON city TO urban_reid_app;
"""


def upgrade() -> None:
    for part in (_HOMES, _ACCOUNTS, _CASES, _GRANTED):
        op.execute(part)


def downgrade() -> None:
    op.execute(_DOWN)
