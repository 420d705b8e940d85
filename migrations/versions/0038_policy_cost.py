"""Policies cost less: the planner guesses that about half of the rows are seen, and a grant is looked up faster.

It took `unit LIKE ANY (...)` and `time <@ ...` for conditions that hardly a row meets, and so read whole tables to join
a few rows. It takes CASE for half of them. What is seen stays the same.

Hits name identities, and leads show crops, that their session sees: their policies say so once a statement, and the
rule of leads need not look through policies row by row.
"""

from alembic import op

revision = "0038"
down_revision = "0037"

_SEEN = r"""
CREATE OR REPLACE FUNCTION seen_units() RETURNS text[]
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
BEGIN
    RETURN CASE WHEN g.is_open OR (g.authorization_id IS NOT NULL AND g.role IN ('operator', 'supervisor'))
        THEN public.unit_patterns(g.units) ELSE '{}' END;
END $$;
CREATE OR REPLACE FUNCTION seen_time() RETURNS tstzrange
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.granted();
BEGIN
    RETURN CASE WHEN g.is_open THEN '(,)' WHEN g.authorization_id IS NOT NULL
        THEN tstzrange(g.from_time, g.to_time) ELSE 'empty' END;
END $$;
-- Patterns for LIKE of these units and all below them; '' stands for the whole city.
CREATE OR REPLACE FUNCTION unit_patterns(units text[]) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    unit text;
    patterns text[] := '{}';
BEGIN
    FOREACH unit IN ARRAY coalesce(units, '{}') LOOP
        IF unit = '' THEN
            patterns := patterns || '%'::text;
        ELSE
            unit := regexp_replace(unit, '([\\%_])', '\\\1', 'g');
            patterns := patterns || unit || (unit || '/%');
        END IF;
    END LOOP;
    RETURN patterns;
END $$;
"""
_SEEN_BEFORE = r"""
CREATE OR REPLACE FUNCTION seen_units() RETURNS text[] LANGUAGE sql STABLE
RETURN (
    SELECT CASE WHEN g.is_open OR (g.authorization_id IS NOT NULL AND g.role IN ('operator', 'supervisor'))
        THEN public.unit_patterns(g.units) ELSE '{}' END
    FROM public.granted() AS g
);
CREATE OR REPLACE FUNCTION seen_time() RETURNS tstzrange LANGUAGE sql STABLE
RETURN (
    SELECT CASE WHEN g.is_open THEN '(,)' WHEN g.authorization_id IS NOT NULL
        THEN tstzrange(g.from_time, g.to_time) ELSE 'empty' END
    FROM public.granted() AS g
);
CREATE OR REPLACE FUNCTION unit_patterns(units text[]) RETURNS text[] LANGUAGE sql IMMUTABLE
RETURN (
    SELECT coalesce(array_agg(pattern), '{}') FROM unnest(units) AS unit,
        regexp_replace(unit, '([\\%_])', '\\\1', 'g') AS escaped,
        unnest(CASE WHEN unit = '' THEN ARRAY['%'] ELSE ARRAY[escaped, escaped || '/%'] END) AS pattern
);
"""

_WITHIN = "{unit} LIKE ANY ((SELECT seen_units())::text[]) AND {time}"
_TIME = "(SELECT seen_time())"
_SPAN = (
    "tstzrange(CASE WHEN timed THEN first_seen ELSE '-infinity' END, "
    "CASE WHEN timed THEN last_seen ELSE '-infinity' END, '[]')"
)
_RUN = _WITHIN.format(unit="r.unit", time=f"tstzrange(r.window_start, r.window_end) && {_TIME}")
#: Which rows are seen, as a condition to put into the policy (first) of each table.
_CONDITIONS = {
    "crop": (
        "{}",
        _WITHIN.format(unit="camera", time=f"CASE WHEN timed THEN captured_at ELSE '-infinity' END <@ {_TIME}"),
    ),
    "context_frame": ("{}", _WITHIN.format(unit="camera", time=f"captured_at <@ {_TIME}")),
    "identity": ("{}", _WITHIN.format(unit="unit", time=f"{_SPAN} && {_TIME}")),
    "identity_event": ("EXISTS (SELECT FROM run AS r WHERE r.id = run_id AND {})", _RUN),
    "match_decision": ("EXISTS (SELECT FROM run AS r WHERE r.id = run_id AND {})", _RUN),
}

_WRITTEN = """
ALTER POLICY written ON search_hit WITH CHECK ({hit});
ALTER POLICY written ON lead WITH CHECK ({lead});
ALTER FUNCTION lead_rules() SECURITY {rights};
"""
#: A session of the whole city has what its authorization is for: nothing to compare.
_WHOLE_CITY = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('granted()'::regprocedure), $${before}$$, $${after}$$);
END $do$;
"""
_IN_BOTH = "THEN s.units ELSE public.units_in_both"
_IN_BOTH_FAST = "THEN s.units WHEN s.units = '{\"\"}' THEN t.units ELSE public.units_in_both"


def upgrade() -> None:
    op.execute(_SEEN)
    op.execute(_WHOLE_CITY.format(before=_IN_BOTH, after=_IN_BOTH_FAST))
    for table, (around, condition) in _CONDITIONS.items():
        seen = around.format(f"CASE WHEN {condition} THEN true ELSE false END")
        op.execute(f"ALTER POLICY seen ON {table} USING ({seen})")
    op.execute(
        _WRITTEN.format(
            hit="EXISTS (SELECT FROM identity AS i WHERE i.id = identity_id)",
            lead="EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id)",
            rights="DEFINER",
        )
    )


def downgrade() -> None:
    op.execute(_WRITTEN.format(hit="true", lead="true", rights="INVOKER"))
    for table, (around, condition) in _CONDITIONS.items():
        op.execute(f"ALTER POLICY seen ON {table} USING ({around.format(condition)})")
    op.execute(_WHOLE_CITY.format(before=_IN_BOTH_FAST, after=_IN_BOTH))
    op.execute(_SEEN_BEFORE)
