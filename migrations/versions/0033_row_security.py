"""Row-level security: who asks sees the rows of his units and times; the program works as three roles.

urban_reid_worker sees all rows about persons and no reason for which somebody looked; urban_reid_app sees the rows that
its session was granted, and reads partitions through their parents alone; urban_reid_signin has accounts and sessions.
"""

from alembic import op

revision = "0033"
down_revision = "0032"

# Each is evaluated once a statement, because policies ask for them in a sub-select without reference to the row.
_SEEN = r"""
-- Patterns for LIKE of these units and all below them; '' stands for the whole city.
CREATE FUNCTION unit_patterns(units text[]) RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN (
    SELECT coalesce(array_agg(pattern), '{}') FROM unnest(units) AS unit,
        regexp_replace(unit, '([\\%_])', '\\\1', 'g') AS escaped,
        unnest(CASE WHEN unit = '' THEN ARRAY['%'] ELSE ARRAY[escaped, escaped || '/%'] END) AS pattern
);
-- What a session may see of persons: units and times of its authorization.
CREATE FUNCTION seen_units() RETURNS text[] LANGUAGE sql STABLE
RETURN (
    SELECT CASE WHEN g.is_open OR (g.authorization_id IS NOT NULL AND g.role IN ('operator', 'supervisor'))
        THEN public.unit_patterns(g.units) ELSE '{}' END
    FROM public.granted() AS g
);
CREATE FUNCTION seen_time() RETURNS tstzrange LANGUAGE sql STABLE
RETURN (
    SELECT CASE WHEN g.is_open THEN '(,)' WHEN g.authorization_id IS NOT NULL
        THEN tstzrange(g.from_time, g.to_time) ELSE 'empty' END
    FROM public.granted() AS g
);
-- The authorizations of the same case: their searches and probes may be looked at. The zero: those of an open home.
CREATE FUNCTION seen_authorizations() RETURNS uuid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
BEGIN
    RETURN CASE WHEN g.is_open THEN ARRAY['00000000-0000-0000-0000-000000000000'::uuid]
        ELSE ARRAY(SELECT b.id FROM public.case_authorization AS a JOIN public.case_authorization AS b
            ON b.case_id = a.case_id
            WHERE a.id = g.authorization_id AND g.units <> '{}' AND g.role IN ('operator', 'supervisor')) END;
END $$;
CREATE FUNCTION seen_case() RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
BEGIN
    RETURN CASE WHEN g.is_open THEN '00000000-0000-0000-0000-000000000000'::uuid
        ELSE (SELECT a.case_id FROM public.case_authorization AS a
            WHERE a.id = g.authorization_id AND g.units <> '{}' AND g.role IN ('operator', 'supervisor')) END;
END $$;
-- The key of an unanswered search, by which the process that answers it works under the session that asked.
CREATE FUNCTION search_key(request uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.answer_key FROM public.search_request AS r WHERE r.id = request AND r.finished_at IS NULL
$$;
REVOKE EXECUTE ON FUNCTION search_key(uuid) FROM PUBLIC;
-- Whose word it is, is not for the caller to say.
CREATE FUNCTION retention_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.acting('a rule of retention', 'administrator');
BEGIN
    NEW.set_by := coalesce(g.name, NEW.set_by);
    RETURN NEW;
END $$;
CREATE TRIGGER retention_rules BEFORE INSERT ON retention FOR EACH ROW EXECUTE FUNCTION retention_rules();
CREATE FUNCTION confirmation_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.operator := coalesce((public.granted()).name, NEW.operator);
    RETURN NEW;
END $$;
CREATE TRIGGER confirmation_rules BEFORE INSERT ON confirmation FOR EACH ROW EXECUTE FUNCTION confirmation_rules();
-- Whether it may read who is sought, and why.
CREATE FUNCTION reads_cases() RETURNS boolean LANGUAGE sql STABLE
RETURN (SELECT g.is_open OR g.role IN ('operator', 'supervisor', 'auditor') FROM public.granted() AS g);
-- Whose audit it may read.
CREATE FUNCTION audited_units() RETURNS text[] LANGUAGE sql STABLE
RETURN (
    SELECT CASE WHEN g.is_open OR g.role = 'auditor' THEN public.unit_patterns(g.units) ELSE '{}' END
    FROM public.granted() AS g
);
"""

_WITHIN = "{unit} LIKE ANY ((SELECT seen_units())::text[]) AND {time}"
_TIME = "(SELECT seen_time())"
# Without a time of its own a row lies in no period.
_CROP = _WITHIN.format(unit="camera", time=f"CASE WHEN timed THEN captured_at ELSE '-infinity' END <@ {_TIME}")
_FRAME = _WITHIN.format(unit="camera", time=f"captured_at <@ {_TIME}")
_SPAN = (
    "tstzrange(CASE WHEN timed THEN first_seen ELSE '-infinity' END, "
    "CASE WHEN timed THEN last_seen ELSE '-infinity' END, '[]')"
)
_IDENTITY = _WITHIN.format(unit="unit", time=f"{_SPAN} && {_TIME}")
_RUN = _WITHIN.format(unit="r.unit", time=f"tstzrange(r.window_start, r.window_end) && {_TIME}")
_OF_CROP = "EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id)"
_OF_IDENTITY = "EXISTS (SELECT FROM identity AS i WHERE i.id = identity_id)"
_OF_RUN = f"EXISTS (SELECT FROM run AS r WHERE r.id = run_id AND {_RUN})"
_ASKED = (
    "coalesce(authorization_id, '00000000-0000-0000-0000-000000000000') = ANY ((SELECT seen_authorizations())::uuid[])"
)

#: Rows about persons that urban_reid_app may look at.
_SEEN_ROWS = {
    "crop": _CROP,
    "crop_claim": _OF_CROP,
    "crop_truth": _OF_CROP,
    "crop_embedding": _OF_CROP,
    "context_frame": _FRAME,
    "identity": _IDENTITY,
    "identity_member": _OF_IDENTITY,
    "identity_event": _OF_RUN,
    "prototype": _OF_IDENTITY,
    "match_decision": _OF_RUN,
}
#: What people ask and say, which it may also write.
_SAID_ROWS = {
    "probe": "coalesce(case_id, '00000000-0000-0000-0000-000000000000') = (SELECT seen_case())",
    "search_request": _ASKED,
    "confirmation": _OF_IDENTITY,
}
# Everybody adds to the audit. Triggers of 0030 say who opens a case, asks for an authorization and decides on it.
_OTHERS = """
CREATE POLICY seen ON audit FOR SELECT TO urban_reid_app
    USING (coalesce(unit, '') LIKE ANY ((SELECT audited_units())::text[]));
CREATE POLICY written ON audit FOR INSERT TO urban_reid_app, urban_reid_signin WITH CHECK (true);
CREATE POLICY seen ON case_file FOR SELECT TO urban_reid_app USING ((SELECT reads_cases()));
CREATE POLICY written ON case_file FOR INSERT TO urban_reid_app WITH CHECK (true);
CREATE POLICY changed ON case_file FOR UPDATE TO urban_reid_app USING (true);
CREATE POLICY seen ON case_authorization FOR SELECT TO urban_reid_app USING ((SELECT reads_cases()));
CREATE POLICY written ON case_authorization FOR INSERT TO urban_reid_app WITH CHECK (true);
CREATE POLICY changed ON case_authorization FOR UPDATE TO urban_reid_app USING (true);
CREATE POLICY held ON case_authorization FOR SELECT TO urban_reid_signin USING (true);
"""
_SECURED = (*_SEEN_ROWS, *_SAID_ROWS, "audit", "case_file", "case_authorization")
#: Tables whose policies are of 0030.
_SECURED_BEFORE = ("search_hit", "search_evidence", "lead", "lead_answer")

#: What people ask, say and decide stays urban_reid_app's; urban_reid_worker gets columns without reasons and persons.
_READ_IN_PART = "search_request, search_hit, probe, confirmation, audit, case_file, case_authorization"
_SAID = f"{_READ_IN_PART}, search_evidence, lead, lead_answer, purpose, impact_assessment, authorization_limits"
_ACCOUNTS = "account, account_role, session, account_id_seq, account_role_id_seq"

# What one role may with the other tables, sequences and functions goes to the other role.
_HAND_OVER = """
DO $$
DECLARE
    held record;
BEGIN
    FOR held IN
        SELECT format('%s ON %s public.%I', x.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE '' END,
                      c.relname) AS may
        FROM pg_class AS c, aclexplode(c.relacl) AS x
        WHERE c.relnamespace = 'public'::regnamespace AND x.grantee = '{before}'::regrole
          AND c.relname = ANY (string_to_array('{these}', ', ')) = {are_meant}
        UNION ALL
        SELECT format('%s (%I) ON public.%I', x.privilege_type, a.attname, c.relname)
        FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid, aclexplode(a.attacl) AS x
        WHERE c.relnamespace = 'public'::regnamespace AND x.grantee = '{before}'::regrole
          AND c.relname = ANY (string_to_array('{these}', ', ')) = {are_meant}
        UNION ALL
        SELECT format('EXECUTE ON FUNCTION %s', p.oid::regprocedure)
        FROM pg_proc AS p, aclexplode(p.proacl) AS x
        WHERE p.pronamespace = 'public'::regnamespace AND x.grantee = '{before}'::regrole
          AND p.proname NOT IN ('granted', 'searches_of_subject') AND NOT {are_meant}
    LOOP
        EXECUTE format('GRANT %s TO {after}', held.may);
        EXECUTE format('REVOKE %s FROM {before}', held.may);
    END LOOP;
END $$;
"""
_GRANTS = """
GRANT USAGE ON SCHEMA public TO urban_reid_worker, urban_reid_signin;
GRANT SELECT (id, model_id, requested_at, finished_at, probe_id) ON search_request TO urban_reid_worker;
GRANT SELECT (model_id) ON search_hit TO urban_reid_worker;
GRANT SELECT (id, picture, uploaded_at) ON probe TO urban_reid_worker;  -- where its file lies
GRANT SELECT (id, at, identity_id, is_one_person) ON confirmation TO urban_reid_worker;
GRANT SELECT (id, at, actor, action, unit, commitment) ON audit TO urban_reid_worker;
GRANT INSERT (actor, action, unit, reason, details) ON audit TO urban_reid_worker, urban_reid_signin;
GRANT SELECT (id, closed_at, hold) ON case_file TO urban_reid_worker;
GRANT SELECT (id, case_id, kind, units, from_time, to_time, expires_at, asked_at, approved_at, refused_at, revoked_at,
    locked_at) ON case_authorization TO urban_reid_worker;
GRANT SELECT ON case_authorization TO urban_reid_signin;
GRANT EXECUTE ON FUNCTION granted() TO urban_reid_worker, urban_reid_signin;
GRANT SELECT ON alembic_version, city, urban_unit, camera_overlap, walk, camera_feed, camera_health, camera_outage,
    camera_file, ingest_batch, model, model_switch, model_comparison, calibration, learning, run, watermark,
    audit_chain, crop, crop_truth, context_frame, crop_embedding, identity, identity_now, identity_member,
    identity_event, prototype, match_decision, erased_group, retention TO urban_reid_app;
GRANT INSERT ON retention TO urban_reid_app;
GRANT EXECUTE ON FUNCTION search_key(uuid) TO urban_reid_worker;
DO $$ BEGIN
    REVOKE SELECT ON search_request FROM urban_reid_app;
    EXECUTE (SELECT format('GRANT SELECT (%s) ON search_request TO urban_reid_app', string_agg(attname, ', '))
        FROM pg_attribute WHERE attrelid = 'search_request'::regclass AND attnum > 0 AND NOT attisdropped
        AND attname <> 'answer_key');
END $$;
ALTER VIEW identity_now SET (security_invoker = true);
"""
_NO_POLICIES = """
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT policyname, tablename FROM pg_policies
        WHERE schemaname = 'public' AND tablename = ANY (string_to_array('{tables}', ', '))
    LOOP
        EXECUTE format('DROP POLICY %I ON public.%I', one.policyname, one.tablename);
    END LOOP;
END $$;
"""
_NO_GRANTS = """
ALTER VIEW identity_now RESET (security_invoker);
REVOKE EXECUTE ON FUNCTION granted() FROM urban_reid_worker, urban_reid_signin;
REVOKE USAGE ON SCHEMA public FROM urban_reid_worker, urban_reid_signin;
DROP FUNCTION seen_units();
DROP FUNCTION seen_time();
DROP FUNCTION seen_authorizations();
DROP FUNCTION seen_case();
DROP FUNCTION reads_cases();
DROP FUNCTION search_key(uuid);
DROP TRIGGER retention_rules ON retention;
DROP FUNCTION retention_rules();
DROP TRIGGER confirmation_rules ON confirmation;
DROP FUNCTION confirmation_rules();
DO $$ BEGIN
    EXECUTE (SELECT format('REVOKE SELECT (%s) ON search_request FROM urban_reid_app', string_agg(attname, ', '))
        FROM pg_attribute WHERE attrelid = 'search_request'::regclass AND attnum > 0 AND NOT attisdropped);
    GRANT SELECT ON search_request TO urban_reid_app;
END $$;
DROP FUNCTION audited_units();
DROP FUNCTION unit_patterns(text[]);
"""
# New partitions are the worker's alone.
_PARTITIONS = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('ensure_partition(text, integer, date)'::regprocedure), '{before}', '{after}');
END $do$;
"""
_APP, _WORKER, _SIGNIN = "urban_reid_app", "urban_reid_worker", "urban_reid_signin"
_NOT_THE_WORKERS = f"{_SAID}, {_ACCOUNTS}"


def upgrade() -> None:
    op.execute(_SEEN)
    for table in (*_SECURED, *_SECURED_BEFORE):
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    for table in _SECURED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    for table, condition in _SEEN_ROWS.items():
        op.execute(f"CREATE POLICY seen ON {table} FOR SELECT TO urban_reid_app USING ({condition})")
    for table, condition in _SAID_ROWS.items():
        op.execute(f"CREATE POLICY seen ON {table} TO urban_reid_app USING ({condition})")
    op.execute(_OTHERS)
    op.execute(_HAND_OVER.format(these=_NOT_THE_WORKERS, are_meant="false", before=_APP, after=_WORKER))
    op.execute(_HAND_OVER.format(these=_ACCOUNTS, are_meant="true", before=_APP, after=_SIGNIN))
    op.execute(_GRANTS)
    op.execute(_PARTITIONS.format(before=_APP, after=_WORKER))


def downgrade() -> None:
    op.execute(_PARTITIONS.format(before=_WORKER, after=_APP))
    op.execute(f"REVOKE ALL ON {_READ_IN_PART} FROM urban_reid_worker, urban_reid_signin")
    op.execute(_HAND_OVER.format(these=_ACCOUNTS, are_meant="true", before=_SIGNIN, after=_APP))
    op.execute(_HAND_OVER.format(these=_NOT_THE_WORKERS, are_meant="false", before=_WORKER, after=_APP))
    op.execute(_NO_POLICIES.format(tables=", ".join(_SECURED)))
    for table in _SECURED:
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for table in (*_SECURED, *_SECURED_BEFORE):
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    op.execute(_NO_GRANTS)
