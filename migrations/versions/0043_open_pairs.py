"""Pairs that wait for a reviewer are kept beside their decisions in the order of the queue: a page reads a page.

A row comes with its decision and goes when the decision's run is superseded. Its worth never changes: the keys of a
decision say what both sides hold.
"""

from alembic import op

revision = "0043"
down_revision = "0042"

_UP = """
CREATE TABLE review_open (
    decision_id bigint PRIMARY KEY REFERENCES match_decision (id) ON DELETE CASCADE,
    run_id bigint NOT NULL REFERENCES run (id),
    unit text NOT NULL REFERENCES urban_unit (code),
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    worth numeric(12, 3) NOT NULL       -- see worth_of
);
CREATE INDEX ON review_open (run_id);
CREATE INDEX review_open_order ON review_open ((-worth), window_start, decision_id) INCLUDE (unit);

-- How unsure the program is, 1 at even odds and 0 where it is sure, times the logarithm of the pictures that move.
CREATE FUNCTION worth_of(probability double precision, crops integer) RETURNS numeric LANGUAGE sql IMMUTABLE
RETURN round(CAST((1 - abs(2 * coalesce(probability, 0.5) - 1)) * log(2.0, 1 + crops) AS numeric), 3);

-- A side's row is the newest version with its key; of a group that was joined on in the same window there is none.
CREATE FUNCTION open_pairs(decisions bigint[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO public.review_open (decision_id, run_id, unit, window_start, window_end, worth)
    SELECT d.id, r.id, r.unit, r.window_start, r.window_end, public.worth_of(d.probability, least(a.crops, b.crops))
    FROM public.match_decision AS d JOIN public.run AS r ON r.id = d.run_id AND r.superseded_at IS NULL
    CROSS JOIN LATERAL (SELECT i.crops FROM public.identity AS i WHERE i.key = d.left_key AND NOT i.retired
        ORDER BY i.id DESC LIMIT 1) AS a
    CROSS JOIN LATERAL (SELECT i.crops FROM public.identity AS i WHERE i.key = d.right_key AND NOT i.retired
        ORDER BY i.id DESC LIMIT 1) AS b
    WHERE d.id = ANY(decisions)
$$;
CREATE FUNCTION decisions_open() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.open_pairs(ARRAY(SELECT w.id FROM written AS w WHERE w.verdict = 'review'));
    RETURN NULL;
END $$;
CREATE TRIGGER decisions_open AFTER INSERT ON match_decision REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION decisions_open();
CREATE FUNCTION decisions_closed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.review_open AS o USING changed AS c WHERE o.run_id = c.id AND c.superseded_at IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER decisions_closed AFTER UPDATE ON run REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION decisions_closed();

ALTER TABLE review_open ENABLE ROW LEVEL SECURITY;
ALTER TABLE review_open FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON review_open FOR SELECT TO urban_reid_app USING (
    CASE WHEN unit LIKE ANY ((SELECT seen_units())::text[])
        AND tstzrange(window_start, window_end) && (SELECT seen_time()) THEN true ELSE false END);
GRANT SELECT ON review_open TO urban_reid_app, urban_reid_worker;
REVOKE EXECUTE ON FUNCTION open_pairs(bigint[]) FROM PUBLIC;
SELECT open_pairs(ARRAY(SELECT id FROM match_decision WHERE verdict = 'review'));
ANALYZE review_open;
"""
_DOWN = """
DROP TRIGGER decisions_closed ON run;
DROP TRIGGER decisions_open ON match_decision;
DROP FUNCTION decisions_closed(), decisions_open(), open_pairs(bigint[]);
DROP TABLE review_open;
DROP FUNCTION worth_of(double precision, integer);
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
