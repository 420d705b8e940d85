"""A probe is of the case under which it was uploaded, and goes with it, also where no search followed."""

from alembic import op

revision = "0032"
down_revision = "0031"

_COLUMN = """
ALTER TABLE probe ADD COLUMN case_id uuid REFERENCES case_file (id);  -- null: uploaded in an open home
CREATE INDEX ON probe (case_id) WHERE case_id IS NOT NULL;
UPDATE probe AS p SET case_id = (SELECT a.case_id FROM search_request AS r
    JOIN case_authorization AS a ON a.id = r.authorization_id
    WHERE r.probe_id = p.id ORDER BY r.requested_at, r.id LIMIT 1);
"""
_RULES = """
CREATE OR REPLACE FUNCTION probe_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_may_look('a search');
    {}RETURN NEW;
END $$;
"""
_ROWS = """
CREATE OR REPLACE FUNCTION rows_of_case(named text, OUT held boolean, OUT requests uuid[], OUT probes uuid[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH asked AS (
        SELECT a.case_id, r.id, r.probe_id FROM public.case_authorization AS a
        JOIN public.search_request AS r ON r.authorization_id = a.id
    )
    SELECT f.hold, ARRAY(SELECT k.id FROM asked AS k WHERE k.case_id = f.id ORDER BY 1), ARRAY(
        SELECT k.probe_id FROM asked AS k WHERE k.case_id = f.id AND k.probe_id IS NOT NULL
        UNION SELECT p.id FROM public.probe AS p WHERE p.case_id = f.id ORDER BY 1)
    FROM public.case_file AS f WHERE f.name = named OR f.id::text = named
$$;
"""
_ROWS_BEFORE = """
CREATE OR REPLACE FUNCTION rows_of_case(named text, OUT held boolean, OUT requests uuid[], OUT probes uuid[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT f.hold, coalesce(array_agg(DISTINCT r.id) FILTER (WHERE r.id IS NOT NULL), '{}'),
        coalesce(array_agg(DISTINCT r.probe_id) FILTER (WHERE r.probe_id IS NOT NULL), '{}')
    FROM public.case_file f LEFT JOIN public.case_authorization a ON a.case_id = f.id
    LEFT JOIN public.search_request r ON r.authorization_id = a.id
    WHERE f.name = named OR f.id::text = named GROUP BY f.id
$$;
"""


def upgrade() -> None:
    op.execute(_COLUMN)
    op.execute(_RULES.format("NEW.case_id := public.case_now();\n    "))
    op.execute(_ROWS)


def downgrade() -> None:
    op.execute(_ROWS_BEFORE)
    op.execute(_RULES.format(""))
    op.execute("ALTER TABLE probe DROP COLUMN case_id")
