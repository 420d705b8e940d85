"""Rules of cases: who may ask, approve, search, verify and see a score; urgent use that nobody approved is erased.

Each rule is a trigger, a constraint or a policy, so that SQL of the program's role meets it as a command does.
A refusal has SQLSTATE UR001.
"""

from alembic import op

revision = "0030"
down_revision = "0029"

_FRAME = """
CREATE TABLE purpose (                      -- for which an authorization may be asked; the administrator's list
    name text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9-]{0,63}$'),
    description text NOT NULL CHECK (btrim(description) <> ''),
    added_by integer REFERENCES account (id),       -- null: before the home held people of real cameras
    added_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz
);
CREATE TABLE impact_assessment (            -- append-only; the newest counts
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reference text NOT NULL CHECK (btrim(reference) <> ''),
    added_by integer REFERENCES account (id),
    added_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE authorization_limits (         -- of what may be asked for
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    longest_period_h integer NOT NULL DEFAULT 168 CHECK (longest_period_h BETWEEN 1 AND 8784),
    longest_open_h integer NOT NULL DEFAULT 720 CHECK (longest_open_h BETWEEN 1 AND 8784),
    urgent boolean NOT NULL DEFAULT false,  -- whether a search may begin before its approval
    standing boolean NOT NULL DEFAULT false
);
INSERT INTO authorization_limits DEFAULT VALUES;
ALTER TABLE case_authorization ADD COLUMN opens jsonb;      -- counts that the approver was shown
ALTER TABLE search_request ADD COLUMN account_id integer REFERENCES account (id);   -- null: the home was open
CREATE INDEX ON search_request (authorization_id) WHERE authorization_id IS NOT NULL;

CREATE TABLE lead (                         -- a hit: somebody who may be the person sought, until two people confirm it
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    request_id uuid NOT NULL,
    rank integer NOT NULL,
    unit text NOT NULL REFERENCES urban_unit (code),
    crop_id bigint NOT NULL REFERENCES crop (id) ON DELETE CASCADE,     -- the picture that is compared with the probe
    made_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (request_id, rank),
    FOREIGN KEY (request_id, rank) REFERENCES search_hit (request_id, rank) ON DELETE CASCADE
);
CREATE INDEX ON lead (crop_id);
CREATE TABLE lead_answer (                  -- somebody was shown a lead's pictures and, later on, said what they show
    lead_id uuid NOT NULL REFERENCES lead (id) ON DELETE CASCADE,
    account_id integer NOT NULL REFERENCES account (id),
    shown_at timestamptz NOT NULL DEFAULT now(),
    is_same boolean,
    answered_at timestamptz,
    answered_in xid8,                       -- the transaction that answered
    PRIMARY KEY (lead_id, account_id),
    CHECK ((is_same IS NULL) = (answered_at IS NULL))
);
"""

_ACTING = """
CREATE FUNCTION refuse(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'UR001', MESSAGE = what;
END $$;

-- Whoever acts now, with one of these roles. In an open home nobody is asked.
CREATE FUNCTION acting(what text, VARIADIC roles account_role_kind[]) RETURNS grant_now
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
BEGIN
    IF g.is_open IS NULL THEN
        PERFORM public.refuse(what || ' needs an account');
    ELSIF NOT g.is_open AND g.role <> ALL (roles) THEN
        PERFORM public.refuse(format('%s needs the role %s, and %s is signed in as %s', what,
            array_to_string(roles, ' or '), g.name, g.role));
    END IF;
    RETURN g;
END $$;

-- Where nobody is signed in, nobody can be told from another.
CREATE FUNCTION acting_in_a_case(what text, VARIADIC roles account_role_kind[]) RETURNS grant_now
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting(what, VARIADIC roles);
BEGIN
    IF g.is_open THEN
        PERFORM public.refuse(what || ' needs no case: this home holds no people of real cameras');
    END IF;
    RETURN g;
END $$;

CREATE FUNCTION is_within(unit text, units text[]) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN EXISTS (SELECT FROM unnest(units) AS u WHERE u = '' OR starts_with(unit || '/', u || '/'));

-- The session of now: that of the token or, in the process that answers a search, that of the request.
CREATE FUNCTION session_now() RETURNS bytea LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    token text := nullif(current_setting('urban_reid.session', true), '');
    request text := nullif(current_setting('urban_reid.request', true), '');
BEGIN
    IF token ~ '^[0-9a-f]{64}$' THEN
        RETURN sha256(decode(token, 'hex'));
    ELSIF request ~ '^[0-9a-f-]{36}$' THEN
        RETURN (SELECT r.session_hash FROM public.search_request AS r WHERE r.answer_key = request::uuid);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION account_name(of_account integer) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.name FROM public.account AS a WHERE a.id = of_account
$$;

-- What somebody has been in a case: {requester, approver, verifier}. Nobody may be two of them.
CREATE FUNCTION parts_in_case(of_case uuid, of_account integer) RETURNS text[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(DISTINCT part), '{}') FROM (
        SELECT 'requester' AS part FROM public.case_authorization AS a
        WHERE a.case_id = of_case AND a.asked_by = of_account
        UNION ALL SELECT 'requester' FROM public.search_request AS r
        JOIN public.case_authorization AS a ON a.id = r.authorization_id
        WHERE a.case_id = of_case AND r.account_id = of_account
        UNION ALL SELECT 'approver' FROM public.case_authorization AS a
        WHERE a.case_id = of_case AND a.approved_by = of_account
        UNION ALL SELECT 'verifier' FROM public.lead_answer AS w JOIN public.lead AS l ON l.id = w.lead_id
        JOIN public.search_request AS r ON r.id = l.request_id
        JOIN public.case_authorization AS a ON a.id = r.authorization_id
        WHERE a.case_id = of_case AND w.account_id = of_account AND w.is_same IS NOT NULL) AS parts
$$;
CREATE FUNCTION check_part(part text, of_case uuid, g grant_now) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    other text;
BEGIN
    -- Of two transactions that would make somebody two of them, the second one waits, and sees what the first wrote.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        PERFORM public.refuse('a case is worked on in transactions that are read committed');
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('urban_reid case ' || of_case::text, 0));
    other := (SELECT p FROM unnest(public.parts_in_case(of_case, g.account)) AS p WHERE p <> part LIMIT 1);
    IF other IS NOT NULL THEN
        PERFORM public.refuse(format('%s is %s in this case and cannot be its %s too: another person has to',
            g.name, other, part));
    END IF;
END $$;
"""

_CASES = """
CREATE FUNCTION frame_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting('changing the purposes, the assessment or the limits', 'administrator');
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.added_by := g.account;
        NEW.added_at := now();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER frame_rules BEFORE INSERT OR UPDATE ON purpose FOR EACH ROW EXECUTE FUNCTION frame_rules();
CREATE TRIGGER frame_rules BEFORE INSERT ON impact_assessment FOR EACH ROW EXECUTE FUNCTION frame_rules();
CREATE TRIGGER frame_rules BEFORE UPDATE ON authorization_limits FOR EACH ROW EXECUTE FUNCTION frame_rules();

CREATE FUNCTION case_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting_in_a_case('a case', 'operator', 'supervisor');
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.opened_by := g.account;
        NEW.opened_at := now();
        NEW.closed_at := NULL;
    ELSIF NEW.hold IS DISTINCT FROM OLD.hold AND g.role <> 'supervisor' AND g.account <> OLD.opened_by
        AND 'requester' <> ALL (public.parts_in_case(OLD.id, g.account)) THEN
        PERFORM public.refuse('what a case holds is said by a supervisor, or by whoever opened it or asked in it');
    ELSIF OLD.closed_at IS NOT NULL THEN
        IF NEW.hold OR NEW.hold IS NOT DISTINCT FROM OLD.hold THEN      -- a hold ends also after that
            PERFORM public.refuse(format('case %s is closed', OLD.name));
        END IF;
        NEW.closed_at := OLD.closed_at;
    ELSIF NEW.closed_at IS NOT NULL THEN
        NEW.closed_at := now();
        UPDATE public.case_authorization AS a SET revoked_by = g.account, revoked_at = now()
        WHERE a.case_id = OLD.id AND a.revoked_at IS NULL AND a.refused_at IS NULL AND a.locked_at IS NULL
            AND a.expires_at > now()
            AND (a.kind <> 'urgent' OR a.approved_at IS NOT NULL OR a.asked_at > now() - interval '48 hours');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER case_rules BEFORE INSERT OR UPDATE ON case_file FOR EACH ROW EXECUTE FUNCTION case_rules();

CREATE FUNCTION asking_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting_in_a_case('asking for an authorization', 'operator', 'supervisor');
    limits public.authorization_limits := (SELECT l FROM public.authorization_limits AS l);
    one text;
BEGIN
    NEW.asked_by := g.account;
    NEW.asked_at := now();
    IF num_nonnulls(NEW.approved_at, NEW.refused_at, NEW.revoked_at, NEW.locked_at, NEW.opens) > 0 THEN
        PERFORM public.refuse('an authorization is asked for first and decided on later');
    END IF;
    PERFORM public.check_part('requester', NEW.case_id, g);
    IF (SELECT c.closed_at FROM public.case_file AS c WHERE c.id = NEW.case_id) IS NOT NULL THEN
        PERFORM public.refuse('the case is closed');
    ELSIF NOT EXISTS (SELECT FROM public.impact_assessment) THEN
        PERFORM public.refuse('the city has no reference to an impact assessment: an administrator states it with '
            '`urban-reid purposes assessment`');
    ELSIF NOT EXISTS (SELECT FROM public.purpose AS p WHERE p.name = NEW.purpose AND p.retired_at IS NULL) THEN
        PERFORM public.refuse(format('%s is no purpose of the list; see `urban-reid purposes list`', NEW.purpose));
    ELSIF NEW.kind = 'urgent' AND NOT limits.urgent THEN
        PERFORM public.refuse('urgent use is off: an administrator allows it with `urban-reid purposes limits`');
    ELSIF NEW.kind = 'standing' AND NOT limits.standing THEN
        PERFORM public.refuse('standing searches are off: an administrator allows them with `urban-reid purposes '
            'limits`');
    ELSIF NEW.to_time - NEW.from_time > make_interval(hours => limits.longest_period_h) THEN
        PERFORM public.refuse(format('the period is longer than %s hours, the most that may be asked for',
            limits.longest_period_h));
    ELSIF NEW.expires_at > NEW.asked_at + make_interval(hours => limits.longest_open_h) THEN
        PERFORM public.refuse(format('it expires later than %s hours from now, the most that may be asked for',
            limits.longest_open_h));
    ELSIF NEW.kind <> 'standing' AND NEW.to_time > NEW.asked_at THEN
        PERFORM public.refuse('the period is not over yet: what cameras are going to see needs the kind standing');
    END IF;
    FOREACH one IN ARRAY NEW.units LOOP
        IF NOT EXISTS (SELECT FROM public.urban_unit AS u WHERE u.code = one) THEN
            PERFORM public.refuse(format('there is no unit %s', one));
        ELSIF NOT EXISTS (SELECT FROM public.account_role AS r WHERE r.account_id = g.account AND r.role = g.role
            AND r.revoked_at IS NULL AND now() >= r.from_time AND now() < r.to_time
            AND public.is_within(one, ARRAY[r.unit])) THEN
            PERFORM public.refuse(format('%s is %s of other units than %s', g.name, g.role, one));
        END IF;
    END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER asking_rules BEFORE INSERT ON case_authorization FOR EACH ROW EXECUTE FUNCTION asking_rules();

CREATE FUNCTION deciding_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now;
    is_over boolean := OLD.kind = 'urgent' AND OLD.approved_at IS NULL AND OLD.asked_at <= now() - interval '48 hours';
BEGIN
    IF NEW.locked_at IS DISTINCT FROM OLD.locked_at THEN    -- by lock_overdue alone; nobody else has the right
        RETURN NEW;
    ELSIF num_nonnulls(OLD.refused_at, OLD.revoked_at, OLD.locked_at) > 0 OR OLD.expires_at <= now() OR is_over THEN
        PERFORM public.refuse('the authorization has ended: it was refused, revoked or locked, or has expired');
    ELSIF NEW.revoked_at IS NOT NULL THEN
        g := public.acting_in_a_case('revoking an authorization', 'operator', 'supervisor');
        IF g.role <> 'supervisor' AND g.account <> OLD.asked_by AND NOT EXISTS (SELECT FROM public.case_file AS c
            WHERE c.id = OLD.case_id AND c.opened_by = g.account) THEN
            PERFORM public.refuse('an authorization is revoked by a supervisor or by whoever asked for it');
        END IF;
        OLD.revoked_by := g.account;
        OLD.revoked_at := now();
        RETURN OLD;     -- and nothing else is changed by it
    ELSE
        g := public.acting_in_a_case('deciding on an authorization', 'supervisor');
        IF OLD.approved_at IS NOT NULL THEN
            PERFORM public.refuse('the authorization was approved; it can be revoked');
        ELSIF EXISTS (SELECT FROM unnest(OLD.units) AS one WHERE NOT EXISTS (
            SELECT FROM public.account_role AS r WHERE r.account_id = g.account AND r.role = g.role
            AND r.revoked_at IS NULL AND now() >= r.from_time AND now() < r.to_time
            AND public.is_within(one, ARRAY[r.unit]))) THEN
            PERFORM public.refuse(format('%s is supervisor of other units', g.name));
        ELSIF NEW.approved_at IS NOT NULL THEN
            IF NEW.opens IS NULL THEN
                PERFORM public.refuse('an approval states what the approver was shown');
            END IF;
            PERFORM public.check_part('approver', OLD.case_id, g);
            UPDATE public.session AS s SET ended_at = now()     -- who approves urgent use looks no longer under it
            WHERE s.account_id = g.account AND s.authorization_id = OLD.id AND s.ended_at IS NULL;
            NEW.approved_by := g.account;
            NEW.approved_at := now();
        ELSIF NEW.refused_at IS NOT NULL THEN
            OLD.refused_by := g.account;
            OLD.refused_at := now();
            RETURN OLD;
        ELSE
            RETURN OLD;
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deciding_rules BEFORE UPDATE ON case_authorization FOR EACH ROW EXECUTE FUNCTION deciding_rules();
"""

_SEARCHES = """
CREATE FUNCTION search_rules() RETURNS trigger
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
CREATE FUNCTION check_may_look(what text) RETURNS grant_now
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting(what, 'operator', 'supervisor');
BEGIN
    IF NOT g.is_open AND g.authorization_id IS NULL THEN
        PERFORM public.refuse(what || ' needs an authorization: ask for one with `urban-reid cases ask`, then sign in '
            'under it');
    END IF;
    RETURN g;
END $$;
-- What leaves the home cannot be erased: it needs an approval, where a look under urgent use does not yet.
CREATE FUNCTION check_may_export(what text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.check_may_look(what);
BEGIN
    IF NOT g.is_open AND (SELECT a.approved_at FROM public.case_authorization AS a
        WHERE a.id = g.authorization_id) IS NULL THEN
        PERFORM public.refuse(what || ' needs an approval: what is found in urgent use stays here until then');
    END IF;
END $$;
CREATE FUNCTION probe_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_may_look('a search');
    RETURN NEW;
END $$;
CREATE TRIGGER probe_rules BEFORE INSERT ON probe FOR EACH ROW EXECUTE FUNCTION probe_rules();
CREATE TRIGGER search_rules BEFORE INSERT ON search_request FOR EACH ROW EXECUTE FUNCTION search_rules();

-- A result is written by the session that asked, once.
CREATE FUNCTION check_result(request uuid) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
    asked public.search_request := (SELECT r FROM public.search_request AS r WHERE r.id = request);
BEGIN
    IF g.is_open IS NULL OR (NOT g.is_open AND asked.session_hash IS DISTINCT FROM public.session_now())
        OR asked.finished_at IS NOT NULL THEN
        PERFORM public.refuse('a search is answered once, under the session that asked for it');
    END IF;
END $$;
CREATE FUNCTION result_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_result(NEW.request_id);
    RETURN NEW;
END $$;
CREATE FUNCTION answer_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_result(OLD.id);
    RETURN NEW;
END $$;
CREATE TRIGGER result_rules BEFORE INSERT ON search_hit FOR EACH ROW EXECUTE FUNCTION result_rules();
CREATE TRIGGER result_rules BEFORE INSERT ON search_evidence FOR EACH ROW EXECUTE FUNCTION result_rules();
-- A lead shows a picture of the person that its hit is about.
CREATE FUNCTION lead_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_result(NEW.request_id);
    IF NOT EXISTS (SELECT FROM public.search_hit AS h JOIN public.identity AS i ON i.id = h.identity_id
        JOIN public.identity_member AS m ON m.identity_id = ANY (i.tracklets || i.id)
        WHERE h.request_id = NEW.request_id AND h.rank = NEW.rank AND m.crop_id = NEW.crop_id) THEN
        PERFORM public.refuse('a lead shows a crop of the identity that its hit names');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lead_rules BEFORE INSERT ON lead FOR EACH ROW EXECUTE FUNCTION lead_rules();
CREATE TRIGGER answer_rules BEFORE UPDATE ON search_request FOR EACH ROW
    WHEN (current_user <> 'urban_reid_owner') EXECUTE FUNCTION answer_rules();
"""

_LEADS = """
CREATE FUNCTION case_of_request(request uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.case_id FROM public.search_request AS r
    JOIN public.case_authorization AS a ON a.id = r.authorization_id WHERE r.id = request
$$;
CREATE FUNCTION case_of_lead(of_lead uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT public.case_of_request(l.request_id) FROM public.lead AS l WHERE l.id = of_lead
$$;
-- The case of the authorization that the session of now is under; null without one.
CREATE FUNCTION case_now() RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.case_id FROM public.case_authorization AS a WHERE a.id = (SELECT (public.granted()).authorization_id)
$$;

CREATE FUNCTION check_in_case() RETURNS void LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.acting_in_a_case('a look at leads', 'operator', 'supervisor');
    IF public.case_now() IS NULL THEN
        PERFORM public.refuse('a look at leads needs a session under an authorization: `urban-reid login` takes one');
    END IF;
END $$;

-- open; confirmed or rejected by two who agree; differ: one said yes and one no, and a third has to look.
CREATE FUNCTION lead_verdict(of_lead uuid) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(*) FILTER (WHERE w.is_same) >= 2 THEN 'confirmed'
        WHEN count(*) FILTER (WHERE NOT w.is_same) >= 2 THEN 'rejected'
        WHEN count(w.is_same) = 2 THEN 'differ' ELSE 'open' END
    FROM public.lead_answer AS w WHERE w.lead_id = of_lead
        -- Until it is committed, an answer decides nothing: whoever gave it could look, and take it back.
        AND w.answered_in IS DISTINCT FROM pg_current_xact_id_if_assigned()
$$;

CREATE FUNCTION verifying_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting_in_a_case('a look at a lead', 'operator', 'supervisor');
    of_case uuid := public.case_of_lead(NEW.lead_id);
BEGIN
    IF of_case IS NULL OR of_case IS DISTINCT FROM public.case_now() THEN
        PERFORM public.refuse('a look at a lead needs a session under an authorization of its case');
    ELSIF TG_OP = 'INSERT' THEN
        NEW.account_id := g.account;
        NEW.shown_at := now();
        NEW.is_same := NULL;
        NEW.answered_at := NULL;
        RETURN NEW;
    ELSIF OLD.account_id <> g.account OR OLD.is_same IS NOT NULL THEN
        PERFORM public.refuse('a lead is answered once by each person');
    END IF;
    PERFORM public.check_part('verifier', of_case, g);      -- holds the case until the end of the transaction
    IF public.lead_verdict(NEW.lead_id) IN ('confirmed', 'rejected') THEN
        PERFORM public.refuse('the lead is decided: two people agreed on it');
    END IF;
    NEW.answered_at := now();
    NEW.answered_in := pg_current_xact_id();
    RETURN NEW;
END $$;
CREATE TRIGGER verifying_rules BEFORE INSERT OR UPDATE ON lead_answer FOR EACH ROW EXECUTE FUNCTION verifying_rules();

-- Urgent use that was not approved, in time or at all: locked for good, its results erased. Their hashes stay.
CREATE FUNCTION lock_overdue() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
    erased jsonb;
    many integer := 0;
BEGIN
    FOR one IN
        SELECT a.* FROM public.case_authorization AS a
        WHERE a.kind = 'urgent' AND a.approved_at IS NULL AND a.locked_at IS NULL
        AND (num_nonnulls(a.refused_at, a.revoked_at) > 0 OR a.asked_at <= now() - interval '48 hours')
        ORDER BY a.id FOR UPDATE
    LOOP
        WITH requests AS (SELECT r.id FROM public.search_request AS r WHERE r.authorization_id = one.id),
        answers AS (DELETE FROM public.lead_answer WHERE lead_id IN (SELECT l.id FROM public.lead AS l
            WHERE l.request_id IN (SELECT r.id FROM requests AS r)) RETURNING *),
        leads AS (DELETE FROM public.lead WHERE request_id IN (SELECT r.id FROM requests AS r) RETURNING *),
        hits AS (DELETE FROM public.search_hit WHERE request_id IN (SELECT r.id FROM requests AS r) RETURNING *),
        parts AS (DELETE FROM public.search_evidence WHERE request_id IN (SELECT r.id FROM requests AS r) RETURNING *),
        gone AS (
            SELECT 'lead_answer' AS name, to_jsonb(x) AS content FROM answers AS x
            UNION ALL SELECT 'lead', to_jsonb(x) FROM leads AS x
            UNION ALL SELECT 'search_hit', to_jsonb(x) FROM hits AS x
            UNION ALL SELECT 'search_evidence', to_jsonb(x) FROM parts AS x)
        SELECT coalesce(jsonb_agg(jsonb_build_object('table', name, 'sha256',
            encode(sha256(convert_to(content::text, 'UTF8')), 'hex')) ORDER BY name, content::text), '[]')
        INTO erased FROM gone;
        UPDATE public.search_request SET finished_at = coalesce(finished_at, now()), compared = NULL, not_here = NULL
        WHERE authorization_id = one.id;
        UPDATE public.case_authorization SET locked_at = now() WHERE id = one.id;
        INSERT INTO public.audit (actor, action, unit, reason, details)
        SELECT 'urban-reid', 'case.lock', u, 'urgent use that was not approved', jsonb_build_object(
            'case', one.case_id, 'authorization', one.id, 'erased', erased)
        FROM unnest(one.units[1:1]) AS u;
        many := many + 1;
    END LOOP;
    RETURN many;
END $$;

-- The rows of the audit that are about a confirmed lead: its case, its search and itself, each with the hash before it.
CREATE FUNCTION custody(of_lead uuid) RETURNS TABLE (district text, "position" bigint, hash bytea, before bytea,
    id bigint, at_us bigint, actor text, action text, unit text, commitment bytea, salt bytea, reason text,
    details text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_case uuid := public.case_of_lead(of_lead);
    request text := (SELECT l.request_id::text FROM public.lead AS l WHERE l.id = of_lead);
BEGIN
    PERFORM public.acting_in_a_case('evidence', 'operator', 'supervisor');
    PERFORM public.check_may_export('evidence');
    IF public.lead_verdict(of_lead) <> 'confirmed' THEN
        PERFORM public.refuse('the lead is not confirmed by two people: it is no match');
    ELSIF of_case IS DISTINCT FROM public.case_now() THEN
        PERFORM public.refuse('evidence needs a session under an authorization of its case');
    END IF;
    RETURN QUERY SELECT c.district, c.position, c.hash::bytea, coalesce(b.hash::bytea, decode(repeat('00', 32), 'hex')),
        a.id, (extract(epoch FROM a.at) * 1000000)::bigint, a.actor, a.action, a.unit, a.commitment::bytea, a.salt,
        a.reason, a.details::text
    FROM public.audit AS a JOIN public.audit_chain AS c ON c.audit_id = a.id
    LEFT JOIN public.audit_chain AS b ON b.district = c.district AND b.position = c.position - 1
    WHERE (a.details ->> 'case' = of_case::text OR a.details ->> 'request' = request)
        AND coalesce(a.details ->> 'request', request) = request
        AND coalesce(a.details ->> 'lead', of_lead::text) = of_lead::text
    ORDER BY c.district, c.position;
END $$;
"""

# A verifier sees no score and no rank: hits are shown to who asked for them, and to the case once the lead is decided.
_POLICIES = """
ALTER TABLE lead ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_case ON lead FOR SELECT TO urban_reid_app USING (case_of_request(request_id) = (SELECT case_now()));
CREATE POLICY written ON lead FOR INSERT TO urban_reid_app WITH CHECK (true);       -- result_rules decides
ALTER TABLE lead_answer ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_or_decided ON lead_answer FOR SELECT TO urban_reid_app USING (
    account_id = (SELECT (granted()).account) OR (lead_verdict(lead_id) IN ('confirmed', 'rejected')
        AND case_of_lead(lead_id) = (SELECT case_now())));
CREATE POLICY shown ON lead_answer FOR INSERT TO urban_reid_app WITH CHECK (true);  -- verifying_rules decides
CREATE POLICY answered ON lead_answer FOR UPDATE TO urban_reid_app USING (account_id = (SELECT (granted()).account));
CREATE FUNCTION may_see_hit(request uuid, place integer) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
BEGIN
    RETURN g.is_open
        OR EXISTS (SELECT FROM public.search_request AS r WHERE r.id = request AND r.account_id = g.account)
        OR (public.case_of_request(request) = public.case_now() AND EXISTS (
            SELECT FROM public.lead AS l WHERE l.request_id = request AND l.rank = place
            AND public.lead_verdict(l.id) IN ('confirmed', 'rejected')));
END $$;
-- The rank of a lead's hit, for whom may see it.
CREATE FUNCTION rank_of_lead(of_lead uuid) RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.rank FROM public.lead AS l WHERE l.id = of_lead AND public.may_see_hit(l.request_id, l.rank)
$$;
-- What the probability of a lead's hit follows from: the calibration of its model's searches.
CREATE FUNCTION calibration_of_lead(of_lead uuid) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.calibration_id FROM public.lead AS l
    JOIN public.search_hit AS h ON h.request_id = l.request_id AND h.rank = l.rank
    JOIN public.search_evidence AS e ON e.request_id = h.request_id AND e.model_id = h.model_id
    WHERE l.id = of_lead AND public.may_see_hit(l.request_id, l.rank)
$$;
ALTER TABLE search_hit ENABLE ROW LEVEL SECURITY;
ALTER TABLE search_evidence ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen_by ON search_hit FOR SELECT TO urban_reid_app USING (may_see_hit(request_id, rank));
CREATE POLICY written ON search_hit FOR INSERT TO urban_reid_app WITH CHECK (true);  -- result_rules decides
CREATE POLICY seen_by ON search_evidence FOR SELECT TO urban_reid_app USING (may_see_hit(request_id, NULL));
CREATE POLICY written ON search_evidence FOR INSERT TO urban_reid_app WITH CHECK (true);
"""

_GRANTS = """
GRANT SELECT ON purpose, impact_assessment, authorization_limits TO urban_reid_app;
GRANT SELECT (lead_id, account_id, shown_at, is_same, answered_at) ON lead_answer TO urban_reid_app;
GRANT SELECT (id, request_id, unit, crop_id, made_at) ON lead TO urban_reid_app;
GRANT INSERT (name, description) ON purpose TO urban_reid_app;
GRANT UPDATE (retired_at) ON purpose TO urban_reid_app;
GRANT INSERT (reference) ON impact_assessment TO urban_reid_app;
GRANT UPDATE (longest_period_h, longest_open_h, urgent, standing) ON authorization_limits TO urban_reid_app;
GRANT INSERT (request_id, rank, unit, crop_id) ON lead TO urban_reid_app;
GRANT INSERT (lead_id), UPDATE (is_same) ON lead_answer TO urban_reid_app;
GRANT UPDATE (opens) ON case_authorization TO urban_reid_app;
REVOKE UPDATE (locked_at) ON case_authorization FROM urban_reid_app;
"""

_FUNCTIONS = (
    "refuse(text)",
    "acting(text, account_role_kind[])",
    "acting_in_a_case(text, account_role_kind[])",
    "is_within(text, text[])",
    "session_now()",
    "account_name(integer)",
    "parts_in_case(uuid, integer)",
    "check_part(text, uuid, grant_now)",
    "frame_rules()",
    "case_rules()",
    "asking_rules()",
    "deciding_rules()",
    "check_may_look(text)",
    "check_may_export(text)",
    "probe_rules()",
    "search_rules()",
    "check_result(uuid)",
    "result_rules()",
    "lead_rules()",
    "answer_rules()",
    "case_of_request(uuid)",
    "case_of_lead(uuid)",
    "case_now()",
    "check_in_case()",
    "lead_verdict(uuid)",
    "verifying_rules()",
    "lock_overdue()",
    "custody(uuid)",
    "may_see_hit(uuid, integer)",
    "rank_of_lead(uuid)",
    "calibration_of_lead(uuid)",
)
_TRIGGERS = (
    ("case_rules", "case_file"),
    ("asking_rules", "case_authorization"),
    ("deciding_rules", "case_authorization"),
    ("probe_rules", "probe"),
    ("search_rules", "search_request"),
    ("answer_rules", "search_request"),
    ("result_rules", "search_hit"),
    ("result_rules", "search_evidence"),
)

_DOWN = """
GRANT UPDATE (locked_at) ON case_authorization TO urban_reid_app;
DROP POLICY seen_by ON search_hit;
DROP POLICY written ON search_hit;
DROP POLICY seen_by ON search_evidence;
DROP POLICY written ON search_evidence;
ALTER TABLE search_hit DISABLE ROW LEVEL SECURITY;
ALTER TABLE search_evidence DISABLE ROW LEVEL SECURITY;
DROP TABLE lead_answer, lead, authorization_limits, impact_assessment, purpose;
ALTER TABLE search_request DROP COLUMN account_id;
DROP INDEX search_request_authorization_id_idx;
ALTER TABLE case_authorization DROP COLUMN opens;
"""


def upgrade() -> None:
    for part in (_FRAME, _ACTING, _CASES, _SEARCHES, _LEADS, _POLICIES, _GRANTS):
        op.execute(part)


def downgrade() -> None:
    for trigger, table in _TRIGGERS:
        op.execute(f"DROP TRIGGER {trigger} ON {table}")
    op.execute(_DOWN)
    for function in reversed(_FUNCTIONS):
        op.execute(f"DROP FUNCTION {function}")
