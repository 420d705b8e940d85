"""A standing search whose period is over looks for nobody any more, and no longer takes a place of those that look.

It looked whenever any window was decided, although no window after its period can show anybody. Windows of the period
that are decided late still count. What is looked for is told without counting each look that there ever was, by
functions beside `standing_searches`, whose states programs of before know.
"""

from alembic import op

revision = "0051"
down_revision = "0050"

_READABLE = "((public.granted()).is_open OR public.may_read_authorization(t.asked_by, t.units))"
_FUNCTIONS = f"""
-- Whether its period is over: by the clock, or since all of its units have decided windows after it, as where it is
-- about a time before it was asked for.
CREATE FUNCTION standing_is_past(standing uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT (s.asked_at < s.to_time AND s.to_time <= now()) OR NOT EXISTS (
        SELECT FROM unnest(s.units) AS u (code) WHERE NOT EXISTS (SELECT FROM public.run AS r
            WHERE r.unit = u.code AND r.window_start >= s.to_time AND r.superseded_at IS NULL))
    FROM public.standing_search AS s WHERE s.id = standing
$$;
-- What is looked for and where, for whoever may read who is sought there. current_only: what can still look, alone.
CREATE FUNCTION standing_states(current_only boolean) RETURNS TABLE (id uuid, case_id uuid, case_name text,
    authorization_id uuid, sought text, units text[], bar double precision, from_time timestamptz,
    to_time timestamptz, expires_at timestamptz, asked_by text, reason text, asked_at timestamptz, approved_by text,
    approved_at timestamptz, ended_by text, ended_at timestamptz, ending text, state text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT s.id, t.case_id, f.name, s.authorization_id, t.sought, s.units, s.bar, s.from_time, s.to_time,
        t.expires_at, s.operator, s.reason, s.asked_at, public.account_name(s.approved_by), s.approved_at,
        public.account_name(s.ended_by), s.ended_at, s.ending,
        CASE WHEN s.ended_at IS NOT NULL THEN 'ended'
            WHEN NOT public.standing_holds(s.id) AND (s.approved_at IS NULL AND t.expires_at > now()
                AND num_nonnulls(t.refused_at, t.revoked_at, t.locked_at, f.closed_at) = 0) IS NOT TRUE THEN 'over'
            WHEN public.standing_is_past(s.id) THEN 'past'
            WHEN s.approved_at IS NULL THEN 'asked' ELSE 'looks' END
    FROM public.standing_search AS s LEFT JOIN public.case_authorization AS t ON t.id = s.authorization_id
    LEFT JOIN public.case_file AS f ON f.id = t.case_id
    WHERE NOT (current_only AND (s.ended_at IS NOT NULL OR t.expires_at <= now()) IS TRUE) AND {_READABLE};
END $$;
-- What one did, for the same: counts and times, no person.
CREATE FUNCTION standing_counts(standing uuid) RETURNS TABLE (looks bigint, looked_at timestamptz, hits bigint,
    left_out bigint, latency_s double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT l.looks, l.looked_at, p.hits, p.left_out, p.latency_s
    FROM public.standing_search AS s LEFT JOIN public.case_authorization AS t ON t.id = s.authorization_id
    CROSS JOIN LATERAL (SELECT count(*) AS looks, max(r.finished_at) AS looked_at FROM public.search_request AS r
        WHERE r.standing_id = s.id AND r.finished_at IS NOT NULL) AS l
    CROSS JOIN LATERAL (SELECT count(DISTINCT (q.request_id, q.rank)) FILTER (WHERE q.rank IS NOT NULL) AS hits,
        count(*) FILTER (WHERE q.rank IS NULL) AS left_out,
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM q.raised_at - q.last_frame_at)::float8)
            FILTER (WHERE q.rank IS NOT NULL) AS latency_s
        FROM public.standing_passage AS q WHERE q.standing_id = s.id) AS p
    WHERE s.id = standing AND {_READABLE}
$$;
REVOKE EXECUTE ON FUNCTION standing_is_past(uuid), standing_states(boolean), standing_counts(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION standing_states(boolean), standing_counts(uuid) TO urban_reid_app;
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
    ("due_standing()", "r.window_end > s.from_time)", "r.window_end > s.from_time AND r.window_start < s.to_time)"),
    (
        "standing_rules()",
        "WHERE s.ended_at IS NULL\n",
        "WHERE s.ended_at IS NULL AND NOT public.standing_is_past(s.id)\n",
    ),
)


def upgrade() -> None:
    op.execute(_FUNCTIONS)
    for function, before, after in _PARTS:
        op.execute(_CHANGED.format(function=function, before=before, after=after))


def downgrade() -> None:
    for function, before, after in _PARTS:
        op.execute(_CHANGED.format(function=function, before=after, after=before))
    op.execute("DROP FUNCTION standing_counts(uuid), standing_states(boolean), standing_is_past(uuid)")
