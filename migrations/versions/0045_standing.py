"""Standing searches: a person is looked for as windows close, for as long as an authorization of that kind holds.

Each look is a search of its own, asked for by the database and answered as others are; what it raises are hits and
leads as those of any search. What it has raised it does not raise again.
"""

from alembic import op

revision = "0045"
down_revision = "0044"

_TABLES = """
ALTER TABLE authorization_limits
    ADD COLUMN standing_searches integer NOT NULL DEFAULT 3 CHECK (standing_searches BETWEEN 1 AND 100),
    ADD COLUMN standing_hits_h integer NOT NULL DEFAULT 20 CHECK (standing_hits_h BETWEEN 1 AND 1000);
GRANT UPDATE (standing_searches, standing_hits_h) ON authorization_limits TO urban_reid_app;
CREATE TABLE standing_search (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    authorization_id uuid REFERENCES case_authorization (id),   -- null: the home was open
    asked_by integer REFERENCES account (id),
    role account_role_kind,
    operator text NOT NULL CHECK (btrim(operator) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    units text[] NOT NULL CHECK (cardinality(units) BETWEEN 1 AND 20),
    bar double precision NOT NULL CHECK (bar BETWEEN 0.01 AND 1),   -- probability from which on a hit is raised
    from_time timestamptz NOT NULL CHECK (isfinite(from_time)),     -- of what cameras see
    to_time timestamptz NOT NULL CHECK (isfinite(to_time)),
    asked_at timestamptz NOT NULL DEFAULT now(),
    approved_by integer REFERENCES account (id) CHECK (approved_by <> asked_by),
    approved_at timestamptz,                -- null: nothing is looked for yet
    approval text,                          -- the reason
    ended_by integer REFERENCES account (id),
    ended_at timestamptz,
    ending text,                            -- the reason
    CHECK (from_time < to_time)
);
CREATE INDEX ON standing_search (authorization_id);
CREATE TABLE standing_picture (             -- append-only: of the person who is looked for; the search ends with one
    standing_id uuid NOT NULL REFERENCES standing_search (id),
    crop_id bigint REFERENCES crop (id) ON DELETE CASCADE,
    probe_id uuid REFERENCES probe (id) ON DELETE CASCADE,
    CHECK (num_nonnulls(crop_id, probe_id) = 1),
    UNIQUE (standing_id, crop_id),
    UNIQUE (standing_id, probe_id)
);
CREATE INDEX ON standing_picture (crop_id) WHERE crop_id IS NOT NULL;
CREATE INDEX ON standing_picture (probe_id) WHERE probe_id IS NOT NULL;
ALTER TABLE search_request
    ADD COLUMN standing_id uuid REFERENCES standing_search (id),    -- a look of a standing search
    ADD COLUMN standing_run bigint,                                 -- the unit's newest run when it was asked for
    ADD CHECK ((standing_id IS NULL) = (standing_run IS NULL));
CREATE INDEX ON search_request (standing_id, unit, standing_run) WHERE standing_id IS NOT NULL;
GRANT SELECT (standing_id) ON search_request TO urban_reid_app;
CREATE TABLE standing_passage (             -- append-only: a passage of somebody who reached the bar, once each
    standing_id uuid NOT NULL REFERENCES standing_search (id),
    tracklet uuid NOT NULL,                 -- its persistent id
    request_id uuid NOT NULL REFERENCES search_request (id),
    rank integer,                           -- of the hit; null: the hour had as many hits as it may have
    last_frame_at timestamptz NOT NULL,
    raised_at timestamptz NOT NULL,
    PRIMARY KEY (standing_id, tracklet),
    FOREIGN KEY (request_id, rank) REFERENCES search_hit (request_id, rank) ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX ON standing_passage (request_id, rank);
CREATE INDEX ON standing_passage (tracklet);
CREATE TABLE standing_message (             -- a hit of which the webhook tells; goes with it
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    request_id uuid NOT NULL,
    rank integer NOT NULL,
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    told_at timestamptz,
    UNIQUE (request_id, rank),
    FOREIGN KEY (request_id, rank) REFERENCES search_hit (request_id, rank) ON DELETE CASCADE
);
CREATE INDEX ON standing_message (made_at) WHERE told_at IS NULL;
CREATE INDEX standing_shown ON audit ((details ->> 'standing')) WHERE action = 'standing.show';
"""

_HOLDS = """
-- What holds now for a standing search of a live home: of the account that asked for it, as long as that may ask.
CREATE FUNCTION standing_grant(standing uuid) RETURNS grant_now
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found public.grant_now;
BEGIN
    SELECT a.id, a.name, s.role, t.units, t.from_time, t.to_time, t.id, false INTO found
    FROM public.standing_search AS s JOIN public.account AS a ON a.id = s.asked_by
    JOIN public.case_authorization AS t ON t.id = s.authorization_id
    JOIN public.case_file AS f ON f.id = t.case_id
    WHERE s.id = standing AND s.ended_at IS NULL AND s.approved_at IS NOT NULL AND a.disabled_at IS NULL
        AND t.kind = 'standing' AND t.approved_at IS NOT NULL
        AND num_nonnulls(t.refused_at, t.revoked_at, t.locked_at, f.closed_at) = 0
        AND t.expires_at > clock_timestamp() AND (SELECT l.standing FROM public.authorization_limits AS l)
        AND NOT EXISTS (SELECT FROM unnest(s.units) AS one WHERE NOT EXISTS (
            SELECT FROM public.account_role AS r WHERE r.account_id = a.id AND r.role = s.role
            AND r.revoked_at IS NULL AND clock_timestamp() >= r.from_time AND clock_timestamp() < r.to_time
            AND public.is_within(one, ARRAY[r.unit])));
    RETURN CASE WHEN found.account IS NOT NULL THEN found END;
END $$;
CREATE FUNCTION standing_holds(standing uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM public.standing_search AS s WHERE s.id = standing AND s.ended_at IS NULL
            AND s.approved_at IS NOT NULL)
        AND ((SELECT c.kind <> 'live' FROM public.city AS c) IS NOT FALSE
            OR (public.standing_grant(standing)).account IS NOT NULL)
$$;
"""

_ASKING = """
CREATE FUNCTION standing_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.check_may_look('a standing search');
    most integer := (SELECT l.standing_searches FROM public.authorization_limits AS l);
    one text;
BEGIN
    NEW.asked_at := now();
    NEW.authorization_id := g.authorization_id;
    NEW.asked_by := g.account;
    NEW.role := g.role;
    NEW.operator := coalesce(g.name, NEW.operator);
    NEW.ended_by := NULL;
    NEW.ended_at := NULL;
    NEW.ending := NULL;
    NEW.approved_by := NULL;
    NEW.approval := NULL;
    NEW.approved_at := CASE WHEN g.is_open THEN now() END;
    FOREACH one IN ARRAY NEW.units LOOP
        IF NOT EXISTS (SELECT FROM public.urban_unit AS u WHERE u.code = one AND u.level <> 'camera') THEN
            PERFORM public.refuse(format('%s is no building, street or district of the city: a standing search looks '
                'at people there', one));
        ELSIF NOT g.is_open AND NOT public.is_within(one, g.units) THEN
            PERFORM public.refuse(format('the authorization does not cover %s', one));
        END IF;
    END LOOP;
    IF NOT g.is_open THEN
        IF (SELECT t.kind FROM public.case_authorization AS t WHERE t.id = g.authorization_id) <> 'standing' THEN
            PERFORM public.refuse('a standing search needs an authorization of kind standing: ask for one with '
                '`urban-reid cases ask --kind standing`');
        ELSIF NOT (SELECT l.standing FROM public.authorization_limits AS l) THEN
            PERFORM public.refuse('standing searches are off: an administrator allows them with `urban-reid purposes '
                'limits`');
        ELSIF (NEW.from_time >= g.from_time AND NEW.to_time <= g.to_time) IS NOT TRUE THEN
            PERFORM public.refuse('the period is not within that of the authorization');
        END IF;
        PERFORM public.check_part('requester', (SELECT t.case_id FROM public.case_authorization AS t
            WHERE t.id = g.authorization_id), g);
    ELSE
        PERFORM pg_advisory_xact_lock(hashtextextended('urban_reid standing searches', 0));
    END IF;
    IF (SELECT count(*) FROM public.standing_search AS s WHERE s.ended_at IS NULL
            AND s.authorization_id IS NOT DISTINCT FROM g.authorization_id) >= most THEN
        PERFORM public.refuse(format('there are %s standing searches under this authorization, the most that there may '
            'be: end one first', most));
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER standing_rules BEFORE INSERT ON standing_search FOR EACH ROW EXECUTE FUNCTION standing_rules();

-- Its pictures are those that it was asked for with: whoever approves has seen all of them.
CREATE FUNCTION standing_picture_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.standing_search AS s WHERE s.id = NEW.standing_id AND s.asked_at = now()
            AND s.asked_by IS NOT DISTINCT FROM (public.granted()).account) THEN
        PERFORM public.refuse('a standing search has the pictures that it was asked for with');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER standing_picture_rules BEFORE INSERT ON standing_picture
    FOR EACH ROW EXECUTE FUNCTION standing_picture_rules();

CREATE FUNCTION standing_asked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.standing_picture AS p WHERE p.standing_id = NEW.id) THEN
        PERFORM public.refuse('a standing search needs a picture of the person');
    END IF;
    INSERT INTO public.audit (actor, action, unit, reason, details)
    VALUES (NEW.operator, 'standing.start', NEW.units[1], NEW.reason,
        public.case_of_authorization(NEW.authorization_id) || jsonb_build_object('standing', NEW.id,
            'units', NEW.units, 'bar', NEW.bar, 'from_time', NEW.from_time, 'to_time', NEW.to_time,
            'crops', (SELECT coalesce(jsonb_agg(encode(c.key, 'hex')), '[]') FROM public.standing_picture AS p
                JOIN public.crop AS c ON c.id = p.crop_id WHERE p.standing_id = NEW.id),
            'probes', (SELECT coalesce(jsonb_agg(p.probe_id), '[]') FROM public.standing_picture AS p
                WHERE p.standing_id = NEW.id AND p.probe_id IS NOT NULL)));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER standing_asked AFTER INSERT ON standing_search DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION standing_asked();

-- Whether whoever is signed in has looked at its pictures.
CREATE FUNCTION standing_seen(standing uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((public.granted()).is_open, false) OR EXISTS (SELECT FROM public.audit AS a
        WHERE a.action = 'standing.show' AND a.actor = (public.granted()).name
            AND a.details ->> 'standing' = standing::text)
$$;
-- Another person sees whom it is for, and approves; a supervisor there, or whoever asked, ends it.
CREATE FUNCTION standing_deciding_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting('deciding on a standing search', 'operator', 'supervisor');
    of_case uuid := (SELECT t.case_id FROM public.case_authorization AS t WHERE t.id = OLD.authorization_id);
    supervises boolean := g.is_open OR (g.role = 'supervisor' AND NOT EXISTS (
        SELECT FROM unnest(OLD.units) AS one WHERE NOT EXISTS (SELECT FROM public.account_role AS r
            WHERE r.account_id = g.account AND r.role = g.role AND r.revoked_at IS NULL AND now() >= r.from_time
            AND now() < r.to_time AND public.is_within(one, ARRAY[r.unit]))));
BEGIN
    IF OLD.ended_at IS NOT NULL THEN
        PERFORM public.refuse('the standing search has ended');
    ELSIF NEW.ended_at IS NOT NULL THEN
        IF NOT supervises AND g.account IS DISTINCT FROM OLD.asked_by THEN
            PERFORM public.refuse('a standing search is ended by whoever asked for it, or by a supervisor of its '
                'units');
        END IF;
        OLD.ending := NEW.ending;
        OLD.ended_by := g.account;
        OLD.ended_at := now();
        RETURN OLD;     -- and nothing else is changed by it
    ELSIF NEW.approved_at IS NULL OR OLD.approved_at IS NOT NULL THEN
        PERFORM public.refuse('a standing search is approved once, and then ended');
    ELSIF g.is_open OR g.role <> 'supervisor' OR NOT supervises THEN
        PERFORM public.refuse('a standing search is approved by a supervisor of its units');
    ELSIF of_case IS DISTINCT FROM public.case_now() THEN
        PERFORM public.refuse('whoever approves a standing search looks at its pictures first: sign in under its '
            'authorization');
    ELSIF NOT public.standing_seen(OLD.id) THEN
        PERFORM public.refuse(format('%s has not looked at its pictures yet', g.name));
    END IF;
    PERFORM public.check_part('approver', of_case, g);
    OLD.approval := NEW.approval;
    OLD.approved_by := g.account;
    OLD.approved_at := now();
    RETURN OLD;
END $$;
CREATE TRIGGER standing_deciding_rules BEFORE UPDATE ON standing_search FOR EACH ROW
    WHEN (current_user <> 'urban_reid_owner') EXECUTE FUNCTION standing_deciding_rules();
CREATE FUNCTION standing_decided() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ends boolean := NEW.ended_at IS NOT NULL;
BEGIN
    INSERT INTO public.audit (actor, action, unit, reason, details)
    VALUES (CASE WHEN ends AND NEW.ended_by IS NULL AND NEW.asked_by IS NOT NULL THEN 'urban-reid'
            ELSE coalesce(public.account_name(CASE WHEN ends THEN NEW.ended_by ELSE NEW.approved_by END),
                NEW.operator) END,
        CASE WHEN ends THEN 'standing.end' ELSE 'standing.approve' END, NEW.units[1],
        CASE WHEN ends THEN NEW.ending ELSE NEW.approval END,
        public.case_of_authorization(NEW.authorization_id) || jsonb_build_object('standing', NEW.id));
    RETURN NULL;
END $$;
CREATE TRIGGER standing_decided AFTER UPDATE ON standing_search FOR EACH ROW
    WHEN (NEW.ended_at IS DISTINCT FROM OLD.ended_at OR NEW.approved_at IS DISTINCT FROM OLD.approved_at)
    EXECUTE FUNCTION standing_decided();
ALTER POLICY written ON audit WITH CHECK (action NOT IN ('probe.upload', 'search.start', 'search.show', 'search',
    'standing.start', 'standing.approve', 'standing.end'));

-- With a picture that is erased, or was kept as long as it may be, the search ends, and its reason goes.
CREATE FUNCTION standing_picture_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.standing_search AS s SET ended_at = coalesce(s.ended_at, now()), reason = '(erased)',
        approval = NULL, ending = 'a picture of whom it looked for is gone'
    WHERE s.id IN (SELECT g.standing_id FROM gone AS g);
    RETURN NULL;
END $$;
CREATE TRIGGER standing_picture_gone AFTER DELETE ON standing_picture REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION standing_picture_gone();
-- The same where its case is erased, which erases what it was answered.
CREATE FUNCTION standing_erased() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.standing_picture WHERE standing_id = NEW.standing_id;
    RETURN NULL;
END $$;
CREATE TRIGGER standing_erased AFTER UPDATE ON search_request FOR EACH ROW
    WHEN (NEW.standing_id IS NOT NULL AND OLD.erased_at IS NULL AND NEW.erased_at IS NOT NULL)
    EXECUTE FUNCTION standing_erased();
-- And where it has not been answered yet; how many pictures went.
CREATE FUNCTION erase_standing_of_case(named text) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH gone AS (
        DELETE FROM public.standing_picture AS p USING public.standing_search AS s, public.case_authorization AS a,
            public.case_file AS f
        WHERE p.standing_id = s.id AND s.authorization_id = a.id AND a.case_id = f.id
            AND (f.name = named OR f.id::text = named) RETURNING 1
    )
    SELECT count(*)::integer FROM gone
$$;
-- Of a passage that is erased no row says that it was raised.
CREATE FUNCTION standing_passage_gone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.standing_passage AS p USING gone AS g WHERE p.tracklet = g.persistent_id
        AND NOT EXISTS (SELECT FROM public.identity AS i WHERE i.persistent_id = p.tracklet);
    RETURN NULL;
END $$;
CREATE TRIGGER standing_passage_gone AFTER DELETE ON identity REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION standing_passage_gone();
"""

_LOOKING = """
-- Standing searches that hold, with each of their units that has windows which were decided since the last look.
CREATE FUNCTION due_standing() RETURNS TABLE (standing uuid, unit text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.id, u.code FROM public.standing_search AS s CROSS JOIN unnest(s.units) AS u (code)
    WHERE s.ended_at IS NULL AND s.approved_at IS NOT NULL
        AND (SELECT max(r.id) FROM public.run AS r WHERE r.unit = u.code AND r.window_end > s.from_time)
            > coalesce((SELECT max(q.standing_run) FROM public.search_request AS q WHERE q.standing_id = s.id
                AND q.unit = u.code AND q.finished_at IS NOT NULL), 0)
        AND public.standing_holds(s.id)
    ORDER BY s.asked_at, s.id, u.code
$$;
-- Asks for a look of a standing search at one of its units; null where it does not hold any more. A look that was not
-- answered is asked for again.
CREATE FUNCTION ask_standing(standing uuid, of_unit text) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    s public.standing_search;
    newest bigint := (SELECT max(r.id) FROM public.run AS r WHERE r.unit = of_unit);
    used integer := (SELECT m.id FROM public.model AS m WHERE m.in_use);
    found uuid;
    first record;
BEGIN
    SELECT t.* INTO s FROM public.standing_search AS t WHERE t.id = standing FOR NO KEY UPDATE SKIP LOCKED;
    IF s.id IS NULL OR of_unit <> ALL (s.units) OR newest IS NULL OR used IS NULL
            OR NOT public.standing_holds(standing) THEN
        RETURN NULL;
    END IF;
    UPDATE public.search_request AS r SET standing_run = newest, model_id = used, requested_at = now()
    WHERE r.standing_id = standing AND r.unit = of_unit AND r.finished_at IS NULL AND r.erased_at IS NULL
    RETURNING r.id INTO found;
    IF found IS NULL THEN
        SELECT p.crop_id, p.probe_id INTO first FROM public.standing_picture AS p WHERE p.standing_id = standing
        ORDER BY p.probe_id, p.crop_id LIMIT 1;
        INSERT INTO public.search_request (operator, reason, unit, from_time, to_time, crop_id, probe_id, top, model_id,
            account_id, authorization_id, standing_id, standing_run)
        VALUES (s.operator, s.reason, of_unit, s.from_time, s.to_time, first.crop_id, first.probe_id, 50, used,
            s.asked_by, s.authorization_id, standing, newest) RETURNING id INTO found;
        INSERT INTO public.search_example (request_id, crop_id, probe_id, is_person)
        SELECT found, p.crop_id, p.probe_id, true FROM public.standing_picture AS p WHERE p.standing_id = standing
            AND (p.crop_id, p.probe_id) IS DISTINCT FROM (first.crop_id, first.probe_id);
    END IF;
    RETURN found;
END $$;
-- Hits that the standing searches of its authorization may still raise within the hour.
CREATE FUNCTION standing_left(standing uuid) RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest(0, (SELECT l.standing_hits_h FROM public.authorization_limits AS l) - count(*)::integer)
    FROM public.standing_search AS s JOIN public.standing_search AS o
        ON o.authorization_id IS NOT DISTINCT FROM s.authorization_id
    JOIN public.search_request AS r ON r.standing_id = o.id JOIN public.search_hit AS h ON h.request_id = r.id
    WHERE s.id = standing AND (r.finished_at IS NULL OR r.finished_at > now() - interval '1 hour')
$$;
-- What an unanswered look is bound to; no row for other searches.
CREATE FUNCTION standing_bounds(request uuid) RETURNS TABLE (standing uuid, bar double precision, hits_left integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.id, s.bar, public.standing_left(s.id) FROM public.search_request AS r
    JOIN public.standing_search AS s ON s.id = r.standing_id WHERE r.id = request AND r.finished_at IS NULL
$$;
CREATE FUNCTION standing_hit_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    bound record;
BEGIN
    SELECT b.* INTO bound FROM public.standing_bounds(NEW.request_id) AS b;
    IF bound.standing IS NOT NULL AND (NEW.probability >= bound.bar) IS NOT TRUE THEN
        PERFORM public.refuse('a standing search raises whoever reaches its bar, and nobody else');
    ELSIF bound.hits_left = 0 THEN
        PERFORM public.refuse('the standing searches of this authorization have raised as many hits in this hour as '
            'they may');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER standing_hit_rules BEFORE INSERT ON search_hit FOR EACH ROW EXECUTE FUNCTION standing_hit_rules();
CREATE FUNCTION standing_passage_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_result(NEW.request_id);
    NEW.standing_id := (SELECT r.standing_id FROM public.search_request AS r WHERE r.id = NEW.request_id);
    NEW.last_frame_at := (SELECT max(i.last_seen) FROM public.identity_now AS i
        WHERE i.persistent_id = NEW.tracklet AND i.level = 'camera');
    NEW.raised_at := clock_timestamp();
    IF NEW.standing_id IS NULL OR NEW.last_frame_at IS NULL THEN
        PERFORM public.refuse('a passage is raised by a look of a standing search');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER standing_passage_rules BEFORE INSERT ON standing_passage
    FOR EACH ROW EXECUTE FUNCTION standing_passage_rules();
CREATE FUNCTION standing_answered() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.standing_message (request_id, rank)
    SELECT h.request_id, h.rank FROM public.search_hit AS h WHERE h.request_id = NEW.id ORDER BY random();
    RETURN NULL;
END $$;
CREATE TRIGGER standing_answered AFTER UPDATE ON search_request FOR EACH ROW
    WHEN (NEW.standing_id IS NOT NULL AND OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION standing_answered();
-- What the webhook has still to tell: ids alone.
CREATE FUNCTION untold_standing(since timestamptz) RETURNS TABLE (id uuid, standing uuid, lead uuid,
    made_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT m.id, r.standing_id, l.id, m.made_at FROM public.standing_message AS m
    JOIN public.search_request AS r ON r.id = m.request_id
    LEFT JOIN public.lead AS l ON l.request_id = m.request_id AND l.rank = m.rank
    WHERE m.told_at IS NULL AND m.made_at > since ORDER BY m.made_at, m.id
$$;
CREATE FUNCTION tell_standing(message uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE public.standing_message SET told_at = now() WHERE id = message AND told_at IS NULL
$$;
-- What is looked for and where, for whoever may read who is sought there: counts and times, no person.
CREATE FUNCTION standing_searches() RETURNS TABLE (id uuid, case_id uuid, case_name text, authorization_id uuid,
    sought text, units text[], bar double precision, from_time timestamptz, to_time timestamptz,
    expires_at timestamptz, asked_by text, reason text, asked_at timestamptz, approved_by text,
    approved_at timestamptz, ended_by text, ended_at timestamptz, ending text, state text, looks bigint,
    looked_at timestamptz, hits bigint, left_out bigint, latency_s double precision)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT s.id, t.case_id, f.name, s.authorization_id, t.sought, s.units, s.bar, s.from_time, s.to_time,
        t.expires_at, s.operator, s.reason, s.asked_at, public.account_name(s.approved_by), s.approved_at,
        public.account_name(s.ended_by), s.ended_at, s.ending,
        CASE WHEN s.ended_at IS NOT NULL THEN 'ended' WHEN public.standing_holds(s.id) THEN 'looks'
            WHEN s.approved_at IS NULL AND t.expires_at > now()
                AND num_nonnulls(t.refused_at, t.revoked_at, t.locked_at, f.closed_at) = 0 THEN 'asked'
            ELSE 'over' END,
        l.looks, l.looked_at, p.hits, p.left_out, p.latency_s
    FROM public.standing_search AS s LEFT JOIN public.case_authorization AS t ON t.id = s.authorization_id
    LEFT JOIN public.case_file AS f ON f.id = t.case_id
    CROSS JOIN LATERAL (SELECT count(*) AS looks, max(r.finished_at) AS looked_at FROM public.search_request AS r
        WHERE r.standing_id = s.id AND r.finished_at IS NOT NULL) AS l
    CROSS JOIN LATERAL (SELECT count(DISTINCT (q.request_id, q.rank)) FILTER (WHERE q.rank IS NOT NULL) AS hits,
        count(*) FILTER (WHERE q.rank IS NULL) AS left_out,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM q.raised_at - q.last_frame_at)::float8)
            FILTER (WHERE q.rank IS NOT NULL) AS latency_s
        FROM public.standing_passage AS q WHERE q.standing_id = s.id) AS p
    WHERE (public.granted()).is_open OR public.may_read_authorization(t.asked_by, t.units)
    ORDER BY s.asked_at DESC, s.id;
END $$;
-- What one raised, for whoever works in its case; person and probability for whoever asked. An open home has no leads.
CREATE FUNCTION standing_hits(of_standing uuid, most integer) RETURNS TABLE (lead uuid, person uuid,
    probability double precision, unit text, raised_at timestamptz, last_frame_at timestamptz, passages bigint,
    verdict text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
BEGIN
    IF (g.is_open OR (g.role IN ('operator', 'supervisor') AND public.case_now() = (
            SELECT t.case_id FROM public.standing_search AS s JOIN public.case_authorization AS t
            ON t.id = s.authorization_id WHERE s.id = of_standing))) IS NOT TRUE THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT l.id, CASE WHEN g.is_open OR r.account_id = g.account THEN i.persistent_id END,
        CASE WHEN g.is_open OR r.account_id = g.account THEN h.probability END, r.unit, p.raised_at, p.last_frame_at,
        p.passages, CASE WHEN l.id IS NOT NULL THEN public.lead_verdict(l.id) END
    FROM (SELECT q.request_id, q.rank, max(q.raised_at) AS raised_at, max(q.last_frame_at) AS last_frame_at,
            count(*) AS passages FROM public.standing_passage AS q
        WHERE q.standing_id = of_standing AND q.rank IS NOT NULL GROUP BY 1, 2) AS p
    JOIN public.search_request AS r ON r.id = p.request_id
    JOIN public.search_hit AS h ON h.request_id = p.request_id AND h.rank = p.rank
    JOIN public.identity AS i ON i.id = h.identity_id
    LEFT JOIN public.lead AS l ON l.request_id = p.request_id AND l.rank = p.rank
    ORDER BY p.last_frame_at DESC, l.id LIMIT most;
END $$;
"""

_POLICIES = """
ALTER TABLE standing_search ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON standing_search FOR SELECT TO urban_reid_app USING ((SELECT (granted()).is_open)
    OR EXISTS (SELECT FROM case_authorization AS t WHERE t.id = authorization_id));
CREATE POLICY written ON standing_search FOR INSERT TO urban_reid_app WITH CHECK (true);    -- standing_rules decides
CREATE POLICY changed ON standing_search FOR UPDATE TO urban_reid_app USING (true);
ALTER TABLE standing_picture ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON standing_picture FOR SELECT TO urban_reid_app
    USING (EXISTS (SELECT FROM standing_search AS s WHERE s.id = standing_id));
CREATE POLICY written ON standing_picture FOR INSERT TO urban_reid_app WITH CHECK (
    (crop_id IS NULL OR EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id))
    AND (probe_id IS NULL OR EXISTS (SELECT FROM probe AS p WHERE p.id = probe_id)));
ALTER TABLE standing_passage ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON standing_passage FOR SELECT TO urban_reid_app
    USING (EXISTS (SELECT FROM search_request AS r WHERE r.id = request_id));
CREATE POLICY written ON standing_passage FOR INSERT TO urban_reid_app
    WITH CHECK (EXISTS (SELECT FROM identity AS i WHERE i.persistent_id = tracklet));
ALTER TABLE standing_message ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
GRANT SELECT, INSERT (operator, reason, units, bar, from_time, to_time), UPDATE (approved_at, approval, ended_at,
    ending) ON standing_search TO urban_reid_app;
GRANT SELECT, INSERT ON standing_picture TO urban_reid_app;
GRANT SELECT, INSERT (tracklet, request_id, rank) ON standing_passage TO urban_reid_app;
REVOKE EXECUTE ON FUNCTION standing_seen(uuid), standing_grant(uuid), standing_holds(uuid), due_standing(),
    ask_standing(uuid, text), standing_left(uuid), standing_bounds(uuid), untold_standing(timestamptz),
    tell_standing(uuid), standing_searches(), erase_standing_of_case(text),
    standing_hits(uuid, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION due_standing(), ask_standing(uuid, text), untold_standing(timestamptz), tell_standing(uuid),
    erase_standing_of_case(text) TO urban_reid_worker;
GRANT EXECUTE ON FUNCTION standing_seen(uuid), standing_bounds(uuid), standing_searches(), standing_hits(uuid, integer)
    TO urban_reid_app;
"""

# What the database itself asks for is bound by `ask_standing`, and the rules of who asks do not look at it.
_TRIGGERS = """
DROP TRIGGER search_rules ON search_request;
CREATE TRIGGER search_rules BEFORE INSERT ON search_request FOR EACH ROW {by_app} EXECUTE FUNCTION search_rules();
DROP TRIGGER search_asked ON search_request;
CREATE TRIGGER search_asked AFTER INSERT ON search_request FOR EACH ROW {no_look} EXECUTE FUNCTION search_asked();
DROP TRIGGER example_rules ON search_example;
CREATE TRIGGER example_rules BEFORE INSERT ON search_example FOR EACH ROW {by_app} EXECUTE FUNCTION example_rules();
DROP TRIGGER examples_noted ON search_example;
CREATE TRIGGER examples_noted AFTER INSERT ON search_example REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT {by_app} EXECUTE FUNCTION examples_noted();
"""
_CHANGED = """
DO $do$ DECLARE
    said text := pg_get_functiondef('{function}'::regprocedure);
BEGIN
    IF position($one${before}$one$ IN said) = 0 THEN
        RAISE EXCEPTION '{function} has changed';
    END IF;
    EXECUTE replace(said, $one${before}$one$, $one${after}$one$);
END $do$;
"""
#: Function, a part of it, and what stands there from now on.
_PARTS = (
    ("granted()", "found public.grant_now;", "found public.grant_now;\n    standing uuid;"),
    ("granted()", "SELECT r.session_hash INTO hashed", "SELECT r.session_hash, r.standing_id INTO hashed, standing"),
    (
        "granted()",
        "    -- By the clock:",
        "    IF standing IS NOT NULL THEN\n        RETURN public.standing_grant(standing);\n    END IF;\n"
        "    -- By the clock:",
    ),
    (
        "check_result(uuid)",
        "OR asked.finished_at IS NOT NULL THEN",
        "OR asked.finished_at IS NOT NULL\n        OR (asked.standing_id IS NOT NULL AND (asked.answer_key::text "
        "IS DISTINCT FROM\n            current_setting('urban_reid.request', true) "
        "OR NOT public.standing_holds(asked.standing_id))) THEN",
    ),
    (
        "search_rules()",
        "    IF g.is_open THEN",
        "    NEW.standing_id := NULL;\n    NEW.standing_run := NULL;\n"
        "    IF NOT g.is_open AND public.session_now() IS NULL THEN\n"
        "        PERFORM public.refuse('a look of a standing search asks for no other search');\n    END IF;\n"
        "    IF g.is_open THEN",
    ),
    (
        "search_answered()",
        "|| jsonb_build_object('request', NEW.id, 'compared'",
        "|| jsonb_strip_nulls(jsonb_build_object('standing', NEW.standing_id))\n"
        "        || jsonb_build_object('request', NEW.id, 'compared'",
    ),
)
_BY_APP, _NO_LOOK = "WHEN (current_user <> 'urban_reid_owner')", "WHEN (NEW.standing_id IS NULL)"

_DOWN = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM search_request WHERE standing_id IS NOT NULL) THEN
        RAISE EXCEPTION 'standing searches looked here, which earlier versions cannot read; restore a backup of before';
    END IF;
END $$;
ALTER POLICY written ON audit
    WITH CHECK (action NOT IN ('probe.upload', 'search.start', 'search.show', 'search'));
DROP INDEX standing_shown;
DROP TRIGGER standing_passage_gone ON identity;
DROP TRIGGER standing_erased ON search_request;
DROP TRIGGER standing_answered ON search_request;
DROP TRIGGER standing_hit_rules ON search_hit;
DROP TABLE standing_message, standing_passage, standing_picture;
ALTER TABLE search_request DROP COLUMN standing_id, DROP COLUMN standing_run;
DROP TABLE standing_search;
ALTER TABLE authorization_limits DROP COLUMN standing_searches, DROP COLUMN standing_hits_h;
"""
_FUNCTIONS = (
    "standing_passage_gone()",
    "erase_standing_of_case(text)",
    "standing_erased()",
    "standing_picture_gone()",
    "standing_answered()",
    "standing_passage_rules()",
    "standing_hit_rules()",
    "standing_decided()",
    "standing_deciding_rules()",
    "standing_asked()",
    "standing_seen(uuid)",
    "standing_picture_rules()",
    "standing_rules()",
    "standing_hits(uuid, integer)",
    "standing_searches()",
    "tell_standing(uuid)",
    "untold_standing(timestamptz)",
    "standing_bounds(uuid)",
    "standing_left(uuid)",
    "ask_standing(uuid, text)",
    "due_standing()",
    "standing_holds(uuid)",
    "standing_grant(uuid)",
)


def upgrade() -> None:
    for part in (_TABLES, _HOLDS, _ASKING, _LOOKING, _POLICIES):
        op.execute(part)
    op.execute(_TRIGGERS.format(by_app=_BY_APP, no_look=_NO_LOOK))
    for function, before, after in _PARTS:
        op.execute(_CHANGED.format(function=function, before=before, after=after))


def downgrade() -> None:
    for function, before, after in reversed(_PARTS):
        op.execute(_CHANGED.format(function=function, before=after, after=before))
    op.execute(_TRIGGERS.format(by_app="", no_look=""))
    op.execute(_DOWN)
    for function in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {function}")
