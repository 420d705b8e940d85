"""A verifier sees no figure of a search before the lead is decided, and is no auditor, who reads others' answers."""

from alembic import op

revision = "0039"
down_revision = "0038"

_FIGURES = """
-- How many were compared and how probable it is that the person is not among them: for whoever asked, and for the case
-- once a lead of the search is decided.
CREATE FUNCTION figures_of_search(request uuid, OUT compared integer, OUT not_here double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT r.compared, r.not_here FROM public.search_request AS r WHERE r.id = request
        AND (public.may_see_hit(request, NULL) OR EXISTS (SELECT FROM public.lead AS l
            WHERE l.request_id = request AND public.may_see_hit(request, l.rank)))
$$;
REVOKE EXECUTE ON FUNCTION figures_of_search(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION figures_of_search(uuid) TO urban_reid_app;
REVOKE SELECT (compared, not_here) ON search_request FROM urban_reid_app;
"""
_RULES = """
CREATE OR REPLACE FUNCTION verifying_rules() RETURNS trigger
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
    ELSIF EXISTS (SELECT FROM public.account_role AS r WHERE r.account_id = g.account AND r.role = 'auditor'
        AND r.revoked_at IS NULL AND now() >= r.from_time AND now() < r.to_time) THEN
        PERFORM public.refuse(format('%s is auditor too, who reads what others answer: another person has to look',
            g.name));
    END IF;
    PERFORM public.check_part('verifier', of_case, g);      -- holds the case until the end of the transaction
    IF public.lead_verdict(NEW.lead_id) IN ('confirmed', 'rejected') THEN
        PERFORM public.refuse('the lead is decided: two people agreed on it');
    END IF;
    NEW.answered_at := now();
    NEW.answered_in := pg_current_xact_id();
    RETURN NEW;
END $$;
"""
_BEFORE = """
GRANT SELECT (compared, not_here) ON search_request TO urban_reid_app;
DROP FUNCTION figures_of_search(uuid);
CREATE OR REPLACE FUNCTION verifying_rules() RETURNS trigger
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
"""


def upgrade() -> None:
    op.execute(_FIGURES)
    op.execute(_RULES)


def downgrade() -> None:
    op.execute(_BEFORE)
