"""Retention and erasure: how long what is kept, what was erased, and the functions that remove rows of people.

Decisions and groups keep their row hashes, so that the decision digest says the same after it; the audit keeps its
commitments. Of what was erased a salted hash is kept, so that it is known again when it comes back.
"""

from alembic import op

revision = "0031"
down_revision = "0030"

_TABLES = """
CREATE TABLE retention (                    -- append-only; the newest of a unit and level counts
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    unit text NOT NULL,                     -- '': the whole city
    level unit_level NOT NULL,
    hours integer CHECK (hours > 0),        -- null: without an end
    set_by text NOT NULL CHECK (btrim(set_by) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    set_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON retention (unit, level, id DESC);
CREATE TABLE erasure (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    kind text NOT NULL CHECK (kind IN ('identity', 'crop', 'probe', 'case', 'later', 'retention')),
    actor text NOT NULL CHECK (btrim(actor) <> ''),
    asked_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,                   -- null: files and what names its rows are still to be removed
    counts jsonb NOT NULL DEFAULT '{}'
);
-- What is to be removed outside of the database, by the names that it has there; only until an erasure has ended.
CREATE TABLE erasure_name (
    erasure_id uuid NOT NULL REFERENCES erasure (id),
    kind text NOT NULL,                     -- crop, identity: a key; picture: its SHA-256; person, probe, request, lead
                                            -- an id; state: a camera's file between recordings, with pictures
    name text NOT NULL,
    place text NOT NULL DEFAULT '',         -- of a picture: the store, owner and day
    PRIMARY KEY (erasure_id, kind, name, place)
);
CREATE TABLE erased (                       -- append-only: a salted hash of each such name, but of requests
    hash content_key PRIMARY KEY,
    erasure_id uuid NOT NULL REFERENCES erasure (id)
);
CREATE INDEX ON erased (erasure_id);
CREATE TABLE erasure_salt (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    salt bytea NOT NULL CHECK (length(salt) = 32)
);
INSERT INTO erasure_salt (salt) VALUES (audit_salt());
CREATE TABLE erased_group (                 -- append-only: the row hashes of current groups that were erased
    run_id bigint NOT NULL REFERENCES run (id),
    row_hash content_key NOT NULL
);
CREATE INDEX ON erased_group (run_id);
CREATE TABLE written_file (                 -- append-only: what left the city, and where it was written
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (btrim(kind) <> ''),
    path text NOT NULL CHECK (path <> ''),
    unit text,
    of_row text,                            -- the id of the request or match that it was written for
    written_at timestamptz NOT NULL DEFAULT now()
);
ALTER TABLE run ADD COLUMN erased_at timestamptz;       -- when rows of it were erased; null: it has all of them
ALTER TABLE match_decision
    ALTER COLUMN left_key DROP NOT NULL,    -- null: erased
    ALTER COLUMN right_key DROP NOT NULL;
ALTER TABLE search_request
    ADD COLUMN erased_at timestamptz,
    DROP CONSTRAINT search_request_check,
    ADD CONSTRAINT search_request_check
        CHECK (num_nonnulls(crop_id, probe_id) = CASE WHEN erased_at IS NULL THEN 1 ELSE 0 END);
CREATE INDEX ON search_hit (identity_id);
CREATE INDEX ON search_request (probe_id) WHERE probe_id IS NOT NULL;
CREATE INDEX ON match_decision (runner_up_key) WHERE runner_up_key IS NOT NULL;
"""

# One name, salted. Not by HMAC: the salt is not secret from whoever reads this database, and a name has 122 bits or
# more that cannot be guessed without the picture.
_FUNCTIONS = r"""
CREATE FUNCTION erased_hash(kind text, name text) RETURNS bytea LANGUAGE sql STABLE
RETURN sha256((SELECT s.salt FROM public.erasure_salt s) || convert_to(kind || ' ' || name, 'UTF8'));

-- The versions of identities that were made of these crops alone, and those that hold others too, at every level.
CREATE FUNCTION versions_of_crops(crops bigint[], OUT gone bigint[], OUT mixed bigint[])
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    touched bigint[];
    whole bigint[];
BEGIN
    SELECT array_agg(DISTINCT m.identity_id) INTO touched
    FROM public.identity_member m WHERE m.crop_id = ANY(crops);
    SELECT array_agg(t) INTO whole FROM unnest(touched) t
    WHERE NOT EXISTS (SELECT FROM public.identity_member m WHERE m.identity_id = t AND m.crop_id <> ALL(crops));
    gone := '{}';
    mixed := '{}';
    WHILE touched IS NOT NULL LOOP
        gone := gone || coalesce(whole, '{}');
        mixed := mixed || array(SELECT unnest(touched) EXCEPT SELECT unnest(whole));
        SELECT array_agg(DISTINCT m.identity_id) INTO touched
        FROM public.identity_member m WHERE m.child_id = ANY(touched);
        SELECT array_agg(t) INTO whole FROM unnest(touched) t
        WHERE NOT EXISTS (SELECT FROM public.identity_member m
                          WHERE m.identity_id = t AND m.child_id <> ALL(gone));
    END LOOP;
END $$;

-- Removes versions of identities with all that refers to them. Groups that are current keep their row hash.
CREATE FUNCTION remove_versions(versions bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    keys bytea[];
    runs bigint[];
BEGIN
    PERFORM FROM public.identity i WHERE i.id = ANY(versions) ORDER BY i.id FOR UPDATE;
    INSERT INTO public.erased_group (run_id, row_hash)
        SELECT i.run_id, i.row_hash FROM public.identity_now i WHERE i.id = ANY(versions);
    SELECT array_agg(DISTINCT i.key::bytea), array_agg(DISTINCT i.run_id) INTO keys, runs
    FROM public.identity i WHERE i.id = ANY(versions);
    UPDATE public.run SET erased_at = now() WHERE id = ANY(runs) AND erased_at IS NULL;
    UPDATE public.match_decision SET
        left_key = CASE WHEN left_key = ANY(keys) THEN NULL ELSE left_key END,
        right_key = CASE WHEN right_key = ANY(keys) THEN NULL ELSE right_key END,
        runner_up_key = CASE WHEN runner_up_key = ANY(keys) THEN NULL ELSE runner_up_key END,
        gap_s = NULL, way_s = NULL
    WHERE left_key = ANY(keys) OR right_key = ANY(keys) OR runner_up_key = ANY(keys);
    DELETE FROM public.search_hit WHERE identity_id = ANY(versions);
    DELETE FROM public.confirmation WHERE identity_id = ANY(versions);
    DELETE FROM public.prototype WHERE identity_id = ANY(versions);
    DELETE FROM public.identity_member WHERE identity_id = ANY(versions);
    DELETE FROM public.identity_member WHERE child_id = ANY(versions);
    DELETE FROM public.identity WHERE id = ANY(versions);
    -- A run also compared groups that it made and joined at once, which no version has the key of.
    UPDATE public.match_decision d SET
        left_key = CASE WHEN EXISTS (SELECT FROM public.identity i WHERE i.key = d.left_key) THEN left_key END,
        right_key = CASE WHEN EXISTS (SELECT FROM public.identity i WHERE i.key = d.right_key) THEN right_key END,
        runner_up_key = CASE WHEN EXISTS (SELECT FROM public.identity i WHERE i.key = d.runner_up_key)
            THEN runner_up_key END
    WHERE d.run_id = ANY(runs) AND (
        NOT EXISTS (SELECT FROM public.identity i WHERE i.key = d.left_key)
        OR NOT EXISTS (SELECT FROM public.identity i WHERE i.key = d.right_key)
        OR d.runner_up_key IS NOT NULL AND NOT EXISTS (SELECT FROM public.identity i WHERE i.key = d.runner_up_key));
END $$;

-- Versions that lost tracklets state only what is left of them.
CREATE FUNCTION thin_versions(versions bigint[]) RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    UPDATE public.identity i SET crops = l.crops, first_seen = l.first_seen, last_seen = l.last_seen
    FROM (SELECT m.identity_id AS id, count(*) AS crops, min(c.captured_at) AS first_seen,
                 max(c.captured_at) AS last_seen
          FROM public.identity_member m JOIN public.crop c ON c.id = m.crop_id
          WHERE m.identity_id = ANY(versions) GROUP BY 1) AS l
    WHERE l.id = i.id AND i.level = 'camera';
    UPDATE public.identity i SET tracklets = l.tracklets, crops = l.crops, first_seen = l.first_seen,
                                 last_seen = l.last_seen
    FROM (SELECT v.id, coalesce(array_agg(t.id ORDER BY t.id) FILTER (WHERE t.id IS NOT NULL), '{}') AS tracklets,
                 coalesce(sum(t.crops), 0) AS crops, coalesce(min(t.first_seen), v.first_seen) AS first_seen,
                 coalesce(max(t.last_seen), v.last_seen) AS last_seen
          FROM public.identity v CROSS JOIN unnest(v.tracklets) AS below (id)
          LEFT JOIN public.identity t ON t.id = below.id
          WHERE v.id = ANY(versions) AND v.level <> 'camera' GROUP BY v.id) AS l
    WHERE l.id = i.id;
$$;

-- Removes the rows of these crops, probes and answered requests, and of every version of an identity that was made of
-- them alone. Notes the names that they have elsewhere, and marks the windows of identities that hold others too.
CREATE FUNCTION erase_rows(erasure uuid, crops bigint[], probes uuid[], requests uuid[]) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    own record;
    gone bigint[];
    mixed bigint[];
    people uuid[];
    keys bytea[];
    asked uuid[];
    marked integer;
BEGIN
    IF NOT EXISTS (SELECT FROM public.erasure e WHERE e.id = erasure AND e.ended_at IS NULL) THEN
        RAISE EXCEPTION 'no erasure % is open', erasure;
    END IF;
    -- Whoever embeds or compares some of them at this moment ends first.
    PERFORM FROM public.crop c WHERE c.id = ANY(crops) ORDER BY c.id FOR UPDATE;
    SELECT * INTO own FROM public.versions_of_crops(crops);
    gone := own.gone;
    mixed := own.mixed;
    SELECT array_agg(DISTINCT i.persistent_id) INTO people FROM public.identity i WHERE i.id = ANY(gone)
        AND NOT EXISTS (SELECT FROM public.identity o WHERE o.persistent_id = i.persistent_id AND NOT o.retired
                        AND o.id <> ALL(gone));
    gone := gone || array(SELECT i.id FROM public.identity i WHERE i.persistent_id = ANY(people) AND i.retired);
    SELECT array_agg(DISTINCT i.key::bytea) INTO keys FROM public.identity i WHERE i.id = ANY(gone);
    SELECT array_agg(r.id) INTO asked FROM public.search_request r
    WHERE r.id = ANY(requests) OR r.crop_id = ANY(crops) OR r.probe_id = ANY(probes);

    INSERT INTO public.erasure_name (erasure_id, kind, name, place)
        SELECT erasure, 'crop', encode(c.key, 'hex'), '' FROM public.crop c WHERE c.id = ANY(crops)
        UNION SELECT erasure, 'picture', encode(c.picture, 'hex'), concat_ws('/', 'crops',
            split_part(c.camera, '/', 1), c.day) FROM public.crop c WHERE c.id = ANY(crops)
            AND NOT EXISTS (SELECT FROM public.crop o WHERE o.picture = c.picture AND o.day = c.day
                AND split_part(o.camera, '/', 1) = split_part(c.camera, '/', 1) AND o.withdrawn_at IS NULL
                AND o.id <> ALL(crops))
        UNION SELECT erasure, 'identity', encode(k, 'hex'), '' FROM unnest(keys) k
        UNION SELECT erasure, 'person', p::text, '' FROM unnest(people) p
        UNION SELECT erasure, 'probe', p.id::text, '' FROM public.probe p WHERE p.id = ANY(probes)
        UNION SELECT erasure, 'picture', encode(p.picture, 'hex'), concat_ws('/', 'crops', '_probes',
            (p.uploaded_at AT TIME ZONE 'UTC')::date) FROM public.probe p WHERE p.id = ANY(probes)
            AND NOT EXISTS (SELECT FROM public.probe o WHERE o.picture = p.picture AND o.id <> ALL(probes)
                AND (o.uploaded_at AT TIME ZONE 'UTC')::date = (p.uploaded_at AT TIME ZONE 'UTC')::date)
        UNION SELECT erasure, 'request', r::text, '' FROM unnest(asked) r
        UNION SELECT erasure, 'lead', l.id::text, '' FROM public.lead l
            JOIN public.search_hit h ON h.request_id = l.request_id AND h.rank = l.rank
            WHERE l.crop_id = ANY(crops) OR l.request_id = ANY(asked) OR h.identity_id = ANY(gone)
        UNION SELECT erasure, 'state', f.leaves, f.camera FROM public.camera_file f
            WHERE f.leaves IS NOT NULL AND (f.camera, f.batch_id) IN
                (SELECT c.camera, c.batch_id FROM public.crop c WHERE c.id = ANY(crops))
        ON CONFLICT DO NOTHING;

    -- The whole frames of their tracks, and of that camera in the same moments.
    WITH frame AS (
        DELETE FROM public.context_frame f USING public.crop c
        WHERE c.id = ANY(crops) AND f.camera = c.camera AND (f.track = c.track
            OR f.captured_at BETWEEN c.captured_at - interval '2 s' AND c.captured_at + interval '2 s')
        RETURNING f.picture, f.camera, f.day
    ) INSERT INTO public.erasure_name (erasure_id, kind, name, place)
        SELECT DISTINCT erasure, 'picture', encode(picture, 'hex'),
            concat_ws('/', 'context', split_part(camera, '/', 1), day) FROM frame ON CONFLICT DO NOTHING;

    -- Identities of now that also hold others are made again by the next resolve, and those of a camera too.
    INSERT INTO public.watermark (unit, dirty_from, version)
        SELECT i.unit, min(i.window_start), 1 FROM public.identity_now i
        WHERE i.id = ANY(mixed) GROUP BY 1 ORDER BY 1
    ON CONFLICT (unit) DO UPDATE SET dirty_from = least(watermark.dirty_from, excluded.dirty_from),
        version = watermark.version + 1;
    GET DIAGNOSTICS marked = ROW_COUNT;

    DELETE FROM public.identity_event WHERE persistent_id = ANY(people) OR other_id = ANY(people);
    PERFORM public.remove_versions(gone);
    -- An identity that was merged keeps a row that ends it, whose key is that of a group of the erased.
    UPDATE public.identity SET key = public.erased_hash('identity', encode(key, 'hex')) WHERE key = ANY(keys);
    DELETE FROM public.prototype WHERE identity_id = ANY(mixed);
    DELETE FROM public.identity_member WHERE crop_id = ANY(crops);
    PERFORM public.thin_versions(mixed);

    DELETE FROM public.search_hit WHERE request_id = ANY(asked);
    DELETE FROM public.search_evidence WHERE request_id = ANY(asked);
    UPDATE public.search_request SET crop_id = NULL, probe_id = NULL, reason = '(erased)', erased_at = now()
    WHERE id = ANY(asked);
    DELETE FROM public.probe WHERE id = ANY(probes);
    DELETE FROM public.crop_claim WHERE crop_id = ANY(crops);
    DELETE FROM public.crop_truth WHERE crop_id = ANY(crops);
    DELETE FROM public.crop_embedding e USING public.crop c
    WHERE c.id = ANY(crops) AND e.day = c.day AND e.crop_id = c.id;
    DELETE FROM public.crop WHERE id = ANY(crops);

    INSERT INTO public.erased (hash, erasure_id)
        SELECT DISTINCT public.erased_hash(n.kind, n.name), erasure FROM public.erasure_name n
        WHERE n.erasure_id = erasure AND n.kind NOT IN ('request', 'lead', 'state') ON CONFLICT DO NOTHING;
    RETURN jsonb_build_object(
        'crops', cardinality(crops), 'versions', cardinality(gone), 'shared_versions', cardinality(mixed),
        'people', coalesce(cardinality(people), 0), 'probes', cardinality(probes),
        'searches', coalesce(cardinality(asked), 0), 'units_to_resolve', marked);
END $$;

-- The same for crops that have been kept as long as they may be: what was decided of them stays until its own time.
CREATE FUNCTION expire_crops(erasure uuid, crops bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.erasure e WHERE e.id = erasure AND e.kind = 'retention'
                   AND e.ended_at IS NULL) THEN
        RAISE EXCEPTION 'no run of the retention % is open', erasure;
    END IF;
    PERFORM FROM public.crop c WHERE c.id = ANY(crops) ORDER BY c.id FOR UPDATE;
    INSERT INTO public.erasure_name (erasure_id, kind, name, place)
        SELECT DISTINCT erasure, 'picture', encode(c.picture, 'hex'),
            concat_ws('/', 'crops', split_part(c.camera, '/', 1), c.day)
        FROM public.crop c WHERE c.id = ANY(crops)
            AND NOT EXISTS (SELECT FROM public.crop o WHERE o.picture = c.picture AND o.day = c.day
                AND split_part(o.camera, '/', 1) = split_part(c.camera, '/', 1) AND o.withdrawn_at IS NULL
                AND o.id <> ALL(crops))
        ON CONFLICT DO NOTHING;
    UPDATE public.run SET erased_at = now() WHERE erased_at IS NULL AND id IN
        (SELECT i.run_id FROM public.identity_member m JOIN public.identity i ON i.id = m.identity_id
         WHERE m.crop_id = ANY(expire_crops.crops));
    UPDATE public.search_request SET crop_id = NULL, erased_at = now() WHERE crop_id = ANY(crops);
    DELETE FROM public.identity_member WHERE crop_id = ANY(crops);
    DELETE FROM public.crop_claim WHERE crop_id = ANY(crops);
    DELETE FROM public.crop_truth WHERE crop_id = ANY(crops);
    DELETE FROM public.crop_embedding e USING public.crop c
    WHERE c.id = ANY(crops) AND e.day = c.day AND e.crop_id = c.id;
    DELETE FROM public.crop WHERE id = ANY(crops);
END $$;

-- The same for versions of identities. Those above them that stay state only what is left.
CREATE FUNCTION expire_versions(erasure uuid, versions bigint[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    above bigint[];
    people uuid[];
BEGIN
    IF NOT EXISTS (SELECT FROM public.erasure e WHERE e.id = erasure AND e.kind = 'retention'
                   AND e.ended_at IS NULL) THEN
        RAISE EXCEPTION 'no run of the retention % is open', erasure;
    END IF;
    WITH RECURSIVE holder (id) AS (
        SELECT m.identity_id FROM public.identity_member m WHERE m.child_id = ANY(versions)
        UNION SELECT m.identity_id FROM holder h JOIN public.identity_member m ON m.child_id = h.id
    ) SELECT array_agg(h.id) INTO above FROM holder h WHERE h.id <> ALL(versions);
    SELECT array_agg(DISTINCT i.persistent_id) INTO people FROM public.identity i WHERE i.id = ANY(versions);
    PERFORM public.remove_versions(versions);
    PERFORM public.thin_versions(above);
    DELETE FROM public.identity_event e WHERE e.persistent_id = ANY(people)
        AND NOT EXISTS (SELECT FROM public.identity o WHERE o.persistent_id = e.persistent_id);
    DELETE FROM public.identity_event e WHERE e.other_id = ANY(people)
        AND NOT EXISTS (SELECT FROM public.identity o WHERE o.persistent_id = e.other_id);
END $$;

-- Drops the partitions of a day, of every model. Gives up where others would have to wait; the next run tries anew.
CREATE FUNCTION drop_partitions(family text, of_day date) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    one text;
    dropped integer := 0;
BEGIN
    IF family NOT IN ('crop_embedding', 'prototype') THEN
        RAISE EXCEPTION 'no partitioned table: %', family;
    END IF;
    FOR one IN SELECT t.tablename FROM pg_tables t WHERE t.schemaname = 'public'
        AND t.tablename ~ format('^%s_m[0-9]+_%s$', family, to_char(of_day, 'YYYYMMDD')) ORDER BY 1
    LOOP
        EXECUTE format('DROP TABLE public.%I', one);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;
END $$;

-- The reasons and details of the audit's rows that name what is erased go; their commitments stay. Returns the rows.
CREATE FUNCTION erase_audit(erasure uuid) RETURNS bigint[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    entries bigint[];
BEGIN
    IF NOT EXISTS (SELECT FROM public.erasure e WHERE e.id = erasure AND e.ended_at IS NULL) THEN
        RAISE EXCEPTION 'no erasure % is open', erasure;
    END IF;
    SELECT array_agg(DISTINCT a.id ORDER BY a.id) INTO entries FROM public.audit a
    CROSS JOIN regexp_matches(concat_ws(' ', a.reason, a.details::text),
        '[0-9a-f]{64}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'g') AS said
    JOIN public.erasure_name n ON n.erasure_id = erasure AND n.name = said[1]
    WHERE a.salt IS NOT NULL AND a.action <> 'audit.erase';
    UPDATE public.audit SET salt = NULL, reason = NULL, details = '{}' WHERE id = ANY(entries);
    RETURN coalesce(entries, '{}');
END $$;

-- The searches of a case, by its name or id, and the pictures that were uploaded for them; null: there is no such case.
CREATE FUNCTION rows_of_case(named text, OUT held boolean, OUT requests uuid[], OUT probes uuid[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.hold, coalesce(array_agg(DISTINCT r.id) FILTER (WHERE r.id IS NOT NULL), '{}'),
        coalesce(array_agg(DISTINCT r.probe_id) FILTER (WHERE r.probe_id IS NOT NULL), '{}')
    FROM public.case_file f LEFT JOIN public.case_authorization a ON a.case_id = f.id
    LEFT JOIN public.search_request r ON r.authorization_id = a.id
    WHERE f.name = named OR f.id::text = named GROUP BY f.id
$$;

-- The crops that an open case holds: those that were searched for in it, and of those who were found.
CREATE FUNCTION held_crops() RETURNS bigint[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH asked AS (
        SELECT r.id, r.crop_id FROM public.search_request r
        JOIN public.case_authorization a ON a.id = r.authorization_id
        JOIN public.case_file f ON f.id = a.case_id WHERE f.hold
    )
    SELECT coalesce(array_agg(DISTINCT held.id), '{}') FROM (
        SELECT crop_id AS id FROM asked WHERE crop_id IS NOT NULL
        UNION ALL SELECT m.crop_id FROM asked JOIN public.search_hit h ON h.request_id = asked.id
        JOIN public.identity i ON i.id = h.identity_id CROSS JOIN unnest(i.tracklets) AS t (id)
        JOIN public.identity_member m ON m.identity_id = t.id WHERE m.crop_id IS NOT NULL
    ) AS held
$$;

-- The names that were noted for it go with the end of an erasure.
CREATE FUNCTION end_erasure(erasure uuid, counts jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
    DELETE FROM public.erasure_name WHERE erasure_id = erasure;
    UPDATE public.erasure AS e SET ended_at = now(), counts = e.counts || end_erasure.counts
    WHERE e.id = erasure AND e.ended_at IS NULL;
$$;

-- A list of erasures that outlived its database brings its salt with it, where nothing was erased here yet.
CREATE FUNCTION adopt_salt(other bytea) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.erased) THEN
        UPDATE public.erasure_salt SET salt = other;
    END IF;
    RETURN (SELECT s.salt = other FROM public.erasure_salt s);
END $$;

-- Where backups were written, and when last: all that the program needs of the audit's details.
CREATE FUNCTION backup_folders(OUT folder text, OUT at timestamptz) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.details ->> 'folder', max(a.at) FROM public.audit a
    WHERE a.action = 'backup.write' AND a.details ->> 'folder' IS NOT NULL GROUP BY 1 ORDER BY 2 DESC
$$;

-- The searches of every case that found these identities, for the person who asks what is stored: not who searched, nor
-- for whom, nor why. In a live home of identities that the authorization covers, which is of kind subject.
CREATE FUNCTION searches_of_subject(people uuid[], OUT requested_at timestamptz, OUT unit text, OUT rank integer,
    OUT probability double precision) RETURNS SETOF record
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.check_may_look('answering a request of access');
BEGIN
    IF NOT g.is_open AND (SELECT a.kind FROM public.case_authorization a WHERE a.id = g.authorization_id)
        IS DISTINCT FROM 'subject' THEN
        PERFORM public.refuse('answering a request of access needs an authorization of kind subject');
    END IF;
    RETURN QUERY SELECT r.requested_at, r.unit::text, h.rank::integer, h.probability::double precision
    FROM public.identity i JOIN public.search_hit h ON h.identity_id = i.id
    JOIN public.search_request r ON r.id = h.request_id
    WHERE i.persistent_id = ANY(people) AND (g.is_open OR (i.timed AND public.is_within(i.unit, g.units)
        AND tstzrange(i.first_seen, i.last_seen, '[]') && tstzrange(g.from_time, g.to_time)))
    ORDER BY 1, 3;
END $$;
"""

_PRIVATE = (
    "remove_versions(bigint[])",
    "thin_versions(bigint[])",
)
_PUBLIC = (
    "versions_of_crops(bigint[])",
    "erase_rows(uuid, bigint[], uuid[], uuid[])",
    "erase_audit(uuid)",
    "held_crops()",
    "rows_of_case(text)",
    "expire_crops(uuid, bigint[])",
    "expire_versions(uuid, bigint[])",
    "drop_partitions(text, date)",
    "end_erasure(uuid, jsonb)",
    "adopt_salt(bytea)",
    "backup_folders()",
    "searches_of_subject(uuid[])",
)
_GRANTS = """
GRANT SELECT, INSERT ON retention, erasure, erased, written_file TO urban_reid_app;
GRANT SELECT ON erasure_name, erasure_salt, erased_group TO urban_reid_app;
GRANT SELECT ON SEQUENCE retention_id_seq, written_file_id_seq TO urban_reid_app;
GRANT UPDATE (counts) ON erasure TO urban_reid_app;
"""

_DOWN = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM match_decision WHERE left_key IS NULL OR right_key IS NULL)
        OR EXISTS (SELECT FROM search_request WHERE erased_at IS NOT NULL) THEN
        RAISE EXCEPTION 'people were erased here, which earlier versions cannot read; restore a backup of before';
    END IF;
END $$;
DROP INDEX search_hit_identity_id_idx, search_request_probe_id_idx, match_decision_runner_up_key_idx;
ALTER TABLE search_request DROP CONSTRAINT search_request_check, DROP COLUMN erased_at,
    ADD CONSTRAINT search_request_check CHECK (num_nonnulls(crop_id, probe_id) = 1);
ALTER TABLE match_decision ALTER COLUMN left_key SET NOT NULL, ALTER COLUMN right_key SET NOT NULL;
ALTER TABLE run DROP COLUMN erased_at;
DROP FUNCTION erased_hash(text, text);
DROP TABLE written_file, erased_group, erasure_salt, erased, erasure_name, erasure, retention;
"""


def upgrade() -> None:
    op.execute(_TABLES)
    op.execute(_FUNCTIONS)
    for function in (*_PRIVATE, *_PUBLIC):
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    for function in _PUBLIC:
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO urban_reid_app")
    op.execute(_GRANTS)


def downgrade() -> None:
    for function in (*reversed(_PUBLIC), *_PRIVATE):
        op.execute(f"DROP FUNCTION {function}")
    op.execute(_DOWN)
