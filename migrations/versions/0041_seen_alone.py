"""A search is asked with crops that its session sees, and an answer is undone by whoever sees all that it is about."""

from alembic import op

revision = "0041"
down_revision = "0040"

_UP = """
CREATE POLICY of_seen_crop ON search_request AS RESTRICTIVE FOR INSERT TO urban_reid_app
    WITH CHECK (crop_id IS NULL OR EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id));
CREATE POLICY of_seen_crop ON search_example AS RESTRICTIVE FOR INSERT TO urban_reid_app
    WITH CHECK (EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id));
CREATE FUNCTION pairs_of_answer(answer uuid) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FROM public.review_pair AS p WHERE p.answer_id = answer
$$;
REVOKE EXECUTE ON FUNCTION pairs_of_answer(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pairs_of_answer(uuid) TO urban_reid_app;
CREATE FUNCTION undo_rules() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (SELECT count(*) FROM public.review_pair AS p WHERE p.answer_id = NEW.answer_id)
            < public.pairs_of_answer(NEW.answer_id) THEN
        PERFORM public.refuse('an answer is undone by whoever may see all passages that it is about');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER undo_rules BEFORE INSERT ON review_undo FOR EACH ROW EXECUTE FUNCTION undo_rules();
"""
#: Another session of an account is under another authorization, it may be.
_RULES = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('example_rules()'::regprocedure), $${before}$$, $${after}$$);
END $do$;
"""
_OF_ACCOUNT = "r.account_id IS NOT DISTINCT FROM (public.granted()).account"
_OF_SESSION = "((public.granted()).is_open OR r.session_hash = public.session_now())"
_DOWN = """
DROP TRIGGER undo_rules ON review_undo;
DROP FUNCTION undo_rules();
DROP FUNCTION pairs_of_answer(uuid);
DROP POLICY of_seen_crop ON search_example;
DROP POLICY of_seen_crop ON search_request;
"""


def upgrade() -> None:
    op.execute(_UP)
    op.execute(_RULES.format(before=_OF_ACCOUNT, after=_OF_SESSION))


def downgrade() -> None:
    op.execute(_RULES.format(before=_OF_SESSION, after=_OF_ACCOUNT))
    op.execute(_DOWN)
