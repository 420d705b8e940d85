"""What the program said of searches and approvals is the database's word, and who is sought is read where one works.

Who uploaded a picture, what an authorization opens, and the audit's rows of a search come from the rows themselves. A
hit is an identity of the unit and the period that were asked for.
"""

from alembic import op

revision = "0035"
down_revision = "0034"

_OPENS = """
-- What an authorization opens now: counts alone, for whoever may read who is sought in it.
CREATE FUNCTION opens_now(of_authorization uuid, OUT crops bigint, OUT cameras bigint, OUT identities bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked public.case_authorization;
BEGIN
    SELECT a.* INTO asked FROM public.case_authorization AS a WHERE a.id = of_authorization
        AND public.may_read_authorization(a.asked_by, a.units);
    IF asked.id IS NULL THEN
        PERFORM public.refuse('there is no authorization of that id where you work');
    END IF;
    SELECT count(*), count(DISTINCT c.camera) INTO crops, cameras FROM public.crop AS c
    WHERE c.withdrawn_at IS NULL AND c.captured_at >= asked.from_time AND c.captured_at < asked.to_time
        AND public.is_within(c.camera, asked.units);
    SELECT count(*) INTO identities FROM public.identity_now AS i
    WHERE i.unit = ANY (asked.units) AND i.first_seen < asked.to_time AND i.last_seen >= asked.from_time;
END $$;

-- An approver sees no less than what it opens. The counts that are kept are the database's.
CREATE FUNCTION opens_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    now_open record := public.opens_now(NEW.id);
BEGIN
    IF NEW.kind <> 'standing' AND (now_open.crops > (NEW.opens ->> 'crops')::bigint
        OR now_open.cameras > (NEW.opens ->> 'cameras')::bigint
        OR now_open.identities > (NEW.opens ->> 'identities')::bigint) IS NOT FALSE THEN
        PERFORM public.refuse('it opens more than the approver was shown: look at it again');
    END IF;
    NEW.opens := to_jsonb(now_open);
    RETURN NEW;
END $$;
CREATE TRIGGER opens_rules BEFORE UPDATE ON case_authorization FOR EACH ROW     -- after deciding_rules, by its name
    WHEN (OLD.approved_at IS NULL AND NEW.approved_at IS NOT NULL) EXECUTE FUNCTION opens_rules();
"""

_SOUGHT = """
-- The units of the session's role, whatever its authorization covers: where it may read who is sought, and why.
CREATE FUNCTION units_read() RETURNS text[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN CASE WHEN (public.granted()).is_open THEN '{""}' WHEN public.reads_cases()
        THEN (SELECT s.units FROM public.session AS s WHERE s.hash = public.session_now()) ELSE '{}' END;
END $$;
CREATE FUNCTION may_read_authorization(asked_by integer, of_units text[]) RETURNS boolean LANGUAGE sql STABLE
RETURN coalesce(public.reads_cases(), false) AND (asked_by = (public.granted()).account
    OR public.units_in_both(of_units, public.units_read()) <> '{}');
-- Cases with an authorization that it may read; whoever works in the whole city reads those too that have none yet.
CREATE FUNCTION cases_read() RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    mine text[] := public.units_read();
BEGIN
    RETURN CASE WHEN '' = ANY (mine) THEN ARRAY(SELECT f.id FROM public.case_file AS f)
        ELSE ARRAY(SELECT DISTINCT a.case_id FROM public.case_authorization AS a
            WHERE public.units_in_both(a.units, mine) <> '{}') END;
END $$;
DROP POLICY seen ON case_file;
CREATE POLICY seen ON case_file FOR SELECT TO urban_reid_app USING ((SELECT reads_cases())
    AND (opened_by = (SELECT (granted()).account) OR id = ANY ((SELECT cases_read())::uuid[])));
DROP POLICY seen ON case_authorization;
CREATE POLICY seen ON case_authorization FOR SELECT TO urban_reid_app USING ((SELECT reads_cases())
    AND (asked_by = (SELECT (granted()).account) OR units_in_both(units, (SELECT units_read())::text[]) <> '{}'));
"""

_SEARCHES = """
CREATE OR REPLACE FUNCTION probe_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.check_may_look('a search');
BEGIN
    NEW.uploaded_by := coalesce(g.name, NEW.uploaded_by);
    IF NEW.uploaded_at NOT BETWEEN now() - interval '1 day' AND now() + interval '1 day' THEN
        PERFORM public.refuse('a picture is uploaded now: by this time it is kept and removed');
    END IF;
    NEW.case_id := public.case_now();
    RETURN NEW;
END $$;

-- A hit is an identity of the unit that was asked for, or below it, that was seen in the period.
CREATE FUNCTION hit_within() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.search_request AS r, public.identity AS i
        WHERE r.id = NEW.request_id AND i.id = NEW.identity_id AND NOT i.retired
            AND public.is_within(i.unit, ARRAY[r.unit]) AND NEW.rank <= r.top
            AND (r.from_time IS NULL OR (i.timed AND i.last_seen >= r.from_time))
            AND (r.to_time IS NULL OR (i.timed AND i.first_seen < r.to_time))) THEN
        PERFORM public.refuse('a hit is an identity of the unit and the period that were asked for, within the ranks '
            'that were asked for');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER result_within BEFORE INSERT ON search_hit FOR EACH ROW EXECUTE FUNCTION hit_within();
CREATE FUNCTION evidence_within() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.calibration AS c
        WHERE c.id = NEW.calibration_id AND c.model_id = NEW.model_id AND c.purpose = 'search') THEN
        PERFORM public.refuse('the evidence of a search follows from a calibration of its model''s searches');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER result_within BEFORE INSERT ON search_evidence FOR EACH ROW EXECUTE FUNCTION evidence_within();
"""

_AUDIT = """
CREATE FUNCTION case_of_authorization(of_authorization uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_strip_nulls(jsonb_build_object('authorization', of_authorization,
        'case', (SELECT a.case_id FROM public.case_authorization AS a WHERE a.id = of_authorization)))
$$;
CREATE FUNCTION probe_noted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.audit (actor, action, details) VALUES (NEW.uploaded_by, 'probe.upload',
        jsonb_build_object('probe', NEW.id, 'picture', encode(NEW.picture, 'hex')));
    RETURN NULL;
END $$;
CREATE TRIGGER probe_noted AFTER INSERT ON probe FOR EACH ROW EXECUTE FUNCTION probe_noted();

CREATE FUNCTION search_asked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    INSERT INTO public.audit (actor, action, unit, reason, details)
    VALUES (NEW.operator, 'search.start', NEW.unit, NEW.reason, public.case_of_authorization(NEW.authorization_id)
        || jsonb_build_object('request', NEW.id, 'probe_id', NEW.probe_id, 'from_time', NEW.from_time,
            'to_time', NEW.to_time, 'top', NEW.top, 'crop_key',
            (SELECT encode(c.key, 'hex') FROM public.crop AS c WHERE c.id = NEW.crop_id)));
    RETURN NULL;
END $$;
CREATE TRIGGER search_asked AFTER INSERT ON search_request FOR EACH ROW EXECUTE FUNCTION search_asked();

-- What was searched, with which models and calibrations, which cameras were blind, and who is shown.
CREATE FUNCTION search_answered() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    INSERT INTO public.audit (actor, action, unit, details)
    VALUES (NEW.operator, 'search.show', NEW.unit, public.case_of_authorization(NEW.authorization_id)
        || jsonb_build_object('request', NEW.id, 'compared', NEW.compared,
            'covered', jsonb_build_object('unit', NEW.unit, 'from_time', NEW.from_time, 'to_time', NEW.to_time,
                'cameras', (SELECT count(*) FROM public.urban_unit AS u
                    WHERE u.level = 'camera' AND public.is_within(u.code, ARRAY[NEW.unit]))),
            'blind', (SELECT coalesce(jsonb_agg(to_jsonb(o) ORDER BY o.down_at DESC, o.camera), '[]') FROM (
                SELECT b.camera, b.down_at, b.up_at, b.reason FROM public.camera_outage AS b
                WHERE public.is_within(b.camera, ARRAY[NEW.unit])
                    AND (NEW.from_time IS NULL OR coalesce(b.up_at, 'infinity') > NEW.from_time)
                    AND (NEW.to_time IS NULL OR b.down_at < NEW.to_time)
                ORDER BY b.down_at DESC, b.camera LIMIT 100) AS o),
            'models', (SELECT coalesce(jsonb_agg(DISTINCT m.id ORDER BY m.id), '[]') FROM (
                SELECT h.model_id AS id FROM public.search_hit AS h WHERE h.request_id = NEW.id
                UNION SELECT e.model_id FROM public.search_evidence AS e WHERE e.request_id = NEW.id) AS m),
            'calibrations', (SELECT coalesce(jsonb_agg(e.calibration_id ORDER BY e.calibration_id), '[]')
                FROM public.search_evidence AS e WHERE e.request_id = NEW.id),
            'shown', (SELECT coalesce(jsonb_agg(i.persistent_id ORDER BY h.rank), '[]') FROM public.search_hit AS h
                JOIN public.identity AS i ON i.id = h.identity_id WHERE h.request_id = NEW.id)));
    RETURN NULL;
END $$;
CREATE TRIGGER search_answered AFTER UPDATE ON search_request FOR EACH ROW
    WHEN (current_user <> 'urban_reid_owner' AND OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION search_answered();
-- A policy of its own for each role: what the triggers above write, they alone write of people who search.
DROP POLICY written ON audit;
CREATE POLICY written ON audit FOR INSERT TO urban_reid_app
    WITH CHECK (action NOT IN ('probe.upload', 'search.start', 'search.show', 'search'));
CREATE POLICY written_at_sign_in ON audit FOR INSERT TO urban_reid_signin WITH CHECK (true);
"""
_SUBJECT = """
CREATE FUNCTION is_of_subject(request uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM public.search_request AS r
        JOIN public.case_authorization AS a ON a.id = r.authorization_id WHERE r.id = request AND a.kind = 'subject')
$$;
CREATE OR REPLACE FUNCTION search_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.check_may_look('a search');
BEGIN
    IF g.is_open THEN
        NEW.account_id := NULL;
        NEW.session_hash := NULL;
        NEW.authorization_id := NULL;
        RETURN NEW;
    ELSIF NOT public.is_within(NEW.unit, g.units) THEN
        PERFORM public.refuse(format('the authorization does not cover %s', NEW.unit));
    ELSIF (NEW.from_time >= g.from_time AND NEW.to_time <= g.to_time) IS NOT TRUE THEN
        PERFORM public.refuse('the period searched is not within that of the authorization');
    ELSIF NEW.crop_id IS NOT NULL AND EXISTS (SELECT FROM public.case_authorization AS a
        WHERE a.id = g.authorization_id AND a.kind = 'subject') THEN
        PERFORM public.refuse('under an authorization of kind subject one searches with the picture that came with the '
            'request: `urban-reid subject --probe`');
    END IF;
    PERFORM public.check_part('requester', (SELECT a.case_id FROM public.case_authorization AS a
        WHERE a.id = g.authorization_id), g);
    NEW.requested_at := now();
    NEW.answer_key := gen_random_uuid();
    NEW.finished_at := NULL;
    NEW.account_id := g.account;
    NEW.operator := g.name;
    NEW.session_hash := public.session_now();
    NEW.authorization_id := g.authorization_id;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION lead_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_result(NEW.request_id);
    IF public.is_of_subject(NEW.request_id) THEN
        PERFORM public.refuse('a search under an authorization of kind subject gives candidates and no lead');
    END IF;
    IF NOT EXISTS (SELECT FROM public.search_hit AS h JOIN public.identity AS i ON i.id = h.identity_id
        JOIN public.identity_member AS m ON m.identity_id = ANY (i.tracklets || i.id)
        WHERE h.request_id = NEW.request_id AND h.rank = NEW.rank AND m.crop_id = NEW.crop_id) THEN
        PERFORM public.refuse('a lead shows a crop of the identity that its hit names');
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION acting_in_a_case(what text, VARIADIC roles account_role_kind[]) RETURNS grant_now
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting(what, VARIADIC roles);
BEGIN
    IF g.is_open THEN
        PERFORM public.refuse('this home holds no people of real cameras, so nothing here needs a case or an '
            'authorization');
    END IF;
    RETURN g;
END $$;
"""

# Uploaded pictures go by age too: with their closed case, or by themselves where no case has them.
_PROBES = """
CREATE FUNCTION due_probes(cutoff timestamptz) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.id FROM public.probe AS p LEFT JOIN public.case_file AS f ON f.id = p.case_id
    WHERE p.uploaded_at < cutoff AND (f.id IS NULL OR (f.closed_at < cutoff AND NOT f.hold)) ORDER BY p.id
$$;
CREATE FUNCTION expire_probes(erasure uuid, probes uuid[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM public.erasure AS e WHERE e.id = erasure AND e.kind = 'retention'
                   AND e.ended_at IS NULL) THEN
        RAISE EXCEPTION 'no run of the retention % is open', erasure;
    END IF;
    PERFORM FROM public.probe AS p WHERE p.id = ANY (probes) ORDER BY p.id FOR UPDATE;
    INSERT INTO public.erasure_name (erasure_id, kind, name, place)
        SELECT DISTINCT erasure, 'picture', encode(p.picture, 'hex'),
            concat_ws('/', 'crops', '_probes', (p.uploaded_at AT TIME ZONE 'UTC')::date)
        FROM public.probe AS p WHERE p.id = ANY (probes)
            AND NOT EXISTS (SELECT FROM public.probe AS o WHERE o.picture = p.picture AND o.id <> ALL (probes)
                AND (o.uploaded_at AT TIME ZONE 'UTC')::date = (p.uploaded_at AT TIME ZONE 'UTC')::date)
        ON CONFLICT DO NOTHING;
    UPDATE public.search_request SET probe_id = NULL, erased_at = now() WHERE probe_id = ANY (probes);
    DELETE FROM public.probe WHERE id = ANY (probes);
END $$;
"""
_GRANTS = """
REVOKE EXECUTE ON FUNCTION opens_now(uuid) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION due_probes(timestamptz), expire_probes(uuid, uuid[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION opens_now(uuid) TO urban_reid_app;
GRANT EXECUTE ON FUNCTION due_probes(timestamptz), expire_probes(uuid, uuid[]) TO urban_reid_worker;
"""

_DOWN = """
DROP POLICY written_at_sign_in ON audit;
DROP POLICY written ON audit;
CREATE POLICY written ON audit FOR INSERT TO urban_reid_app, urban_reid_signin WITH CHECK (true);
DROP POLICY seen ON case_file;
CREATE POLICY seen ON case_file FOR SELECT TO urban_reid_app USING ((SELECT reads_cases()));
DROP POLICY seen ON case_authorization;
CREATE POLICY seen ON case_authorization FOR SELECT TO urban_reid_app USING ((SELECT reads_cases()));
DROP TRIGGER opens_rules ON case_authorization;
DROP TRIGGER probe_noted ON probe;
DROP TRIGGER search_asked ON search_request;
DROP TRIGGER search_answered ON search_request;
DROP TRIGGER result_within ON search_hit;
DROP TRIGGER result_within ON search_evidence;
DROP FUNCTION opens_rules();
DROP FUNCTION opens_now(uuid);
DROP FUNCTION probe_noted();
DROP FUNCTION search_asked();
DROP FUNCTION search_answered();
DROP FUNCTION hit_within();
DROP FUNCTION evidence_within();
DROP FUNCTION case_of_authorization(uuid);
DROP FUNCTION cases_read();
DROP FUNCTION may_read_authorization(integer, text[]);
DROP FUNCTION units_read();
DROP FUNCTION due_probes(timestamptz);
DROP FUNCTION expire_probes(uuid, uuid[]);
CREATE OR REPLACE FUNCTION probe_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_may_look('a search');
    NEW.case_id := public.case_now();
    RETURN NEW;
END $$;
"""
_BEFORE = """
CREATE OR REPLACE FUNCTION search_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.check_may_look('a search');
BEGIN
    IF g.is_open THEN
        NEW.account_id := NULL;
        NEW.session_hash := NULL;
        NEW.authorization_id := NULL;
        RETURN NEW;
    ELSIF NOT public.is_within(NEW.unit, g.units) THEN
        PERFORM public.refuse(format('the authorization does not cover %s', NEW.unit));
    ELSIF (NEW.from_time >= g.from_time AND NEW.to_time <= g.to_time) IS NOT TRUE THEN
        PERFORM public.refuse('the period searched is not within that of the authorization');
    END IF;
    PERFORM public.check_part('requester', (SELECT a.case_id FROM public.case_authorization AS a
        WHERE a.id = g.authorization_id), g);
    NEW.requested_at := now();
    NEW.answer_key := gen_random_uuid();
    NEW.finished_at := NULL;
    NEW.account_id := g.account;
    NEW.operator := g.name;
    NEW.session_hash := public.session_now();
    NEW.authorization_id := g.authorization_id;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION lead_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_result(NEW.request_id);
    IF NOT EXISTS (SELECT FROM public.search_hit AS h JOIN public.identity AS i ON i.id = h.identity_id
        JOIN public.identity_member AS m ON m.identity_id = ANY (i.tracklets || i.id)
        WHERE h.request_id = NEW.request_id AND h.rank = NEW.rank AND m.crop_id = NEW.crop_id) THEN
        PERFORM public.refuse('a lead shows a crop of the identity that its hit names');
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION acting_in_a_case(what text, VARIADIC roles account_role_kind[]) RETURNS grant_now
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting(what, VARIADIC roles);
BEGIN
    IF g.is_open THEN
        PERFORM public.refuse(what || ' needs no case: this home holds no people of real cameras');
    END IF;
    RETURN g;
END $$;
DROP FUNCTION is_of_subject(uuid);
"""


def upgrade() -> None:
    for part in (_SOUGHT, _OPENS, _SEARCHES, _AUDIT, _SUBJECT, _PROBES, _GRANTS):
        op.execute(part)


def downgrade() -> None:
    op.execute(_DOWN)
    op.execute(_BEFORE)
