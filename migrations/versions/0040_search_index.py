"""Searches with several pictures, of some places and hours; and what a process needs that keeps prototypes in memory.

A row of prototype_removal for each statement that removed prototypes; partitions that were dropped are seen by name.
"""

from alembic import op

revision = "0040"
down_revision = "0039"

_UP = """
CREATE TABLE prototype_removal (            -- append-only; names nobody
    at timestamptz NOT NULL DEFAULT now()
);
CREATE FUNCTION prototype_removed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM gone) THEN
        INSERT INTO public.prototype_removal DEFAULT VALUES;
    END IF;
    RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION prototype_removed() FROM PUBLIC;
CREATE TRIGGER prototype_removed AFTER DELETE ON prototype REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION prototype_removed();
CREATE TABLE search_recall (                -- append-only: a sample of searches, compared with the exact scan
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    measured_at timestamptz NOT NULL DEFAULT now(),
    model_id integer NOT NULL REFERENCES model (id),
    identities integer NOT NULL CHECK (identities > 0),     -- that were compared
    wanted integer NOT NULL CHECK (wanted > 0),             -- nearest ones by the exact scan
    found integer NOT NULL CHECK (found BETWEEN 0 AND wanted)
);
ALTER TABLE search_request
    ADD COLUMN places text[] NOT NULL DEFAULT '{}',     -- units; empty: everywhere in its unit
    ADD COLUMN day_from time,                           -- hours of the day in the city's zone; null: all
    ADD COLUMN day_to time,
    ADD CHECK ((day_from IS NULL) = (day_to IS NULL));
GRANT SELECT (places, day_from, day_to) ON search_request TO urban_reid_app;
CREATE TABLE search_example (               -- append-only: further crops of the person, and of others
    request_id uuid NOT NULL REFERENCES search_request (id),
    crop_id bigint NOT NULL REFERENCES crop (id) ON DELETE CASCADE,
    is_person boolean NOT NULL,             -- false: of somebody whom it is not
    PRIMARY KEY (request_id, crop_id)
);
CREATE INDEX ON search_example (crop_id);
ALTER TABLE search_example ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON search_example TO urban_reid_app
    USING (EXISTS (SELECT FROM search_request AS r WHERE r.id = request_id));
GRANT SELECT, INSERT ON search_example TO urban_reid_app;
CREATE FUNCTION example_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.check_may_look('a search');
    IF NOT EXISTS (SELECT FROM public.search_request AS r WHERE r.id = NEW.request_id AND r.finished_at IS NULL
            AND r.account_id IS NOT DISTINCT FROM (public.granted()).account) THEN
        PERFORM public.refuse('crops are added to a search by the one who asks for it, before it is answered');
    ELSIF public.is_of_subject(NEW.request_id) THEN
        PERFORM public.refuse('under an authorization of kind subject one searches with the picture that came with the '
            'request: `urban-reid subject --probe`');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER example_rules BEFORE INSERT ON search_example FOR EACH ROW EXECUTE FUNCTION example_rules();
CREATE FUNCTION examples_noted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.audit (actor, action, unit, details)
    SELECT r.operator, 'search.start', r.unit, public.case_of_authorization(r.authorization_id)
        || jsonb_build_object('request', r.id,
            'more', coalesce(jsonb_agg(encode(c.key, 'hex')) FILTER (WHERE e.is_person), '[]'),
            'unlike', coalesce(jsonb_agg(encode(c.key, 'hex')) FILTER (WHERE NOT e.is_person), '[]'))
    FROM added AS e JOIN public.crop AS c ON c.id = e.crop_id JOIN public.search_request AS r ON r.id = e.request_id
    GROUP BY r.id;
    RETURN NULL;
END $$;
CREATE TRIGGER examples_noted AFTER INSERT ON search_example REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION examples_noted();
GRANT SELECT ON prototype_removal TO urban_reid_worker;
GRANT SELECT, INSERT ON search_recall TO urban_reid_worker;
GRANT SELECT ON search_recall TO urban_reid_app;
"""
_NOTED = """
CREATE OR REPLACE FUNCTION search_asked() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    INSERT INTO public.audit (actor, action, unit, reason, details)
    VALUES (NEW.operator, 'search.start', NEW.unit, NEW.reason, public.case_of_authorization(NEW.authorization_id)
        || jsonb_build_object('request', NEW.id, 'probe_id', NEW.probe_id, 'from_time', NEW.from_time,
            'to_time', NEW.to_time, 'top', NEW.top, 'crop_key',
            (SELECT encode(c.key, 'hex') FROM public.crop AS c WHERE c.id = NEW.crop_id)){});
    RETURN NULL;
END $$;
"""
_NARROWING = """
        || jsonb_strip_nulls(jsonb_build_object('places', to_jsonb(nullif(NEW.places, '{}')),
            'day_from', NEW.day_from, 'day_to', NEW.day_to))"""
_DOWN = """
DROP TABLE search_example, search_recall;
DROP FUNCTION example_rules();
DROP FUNCTION examples_noted();
ALTER TABLE search_request DROP COLUMN places, DROP COLUMN day_from, DROP COLUMN day_to;
DROP TRIGGER prototype_removed ON prototype;
DROP FUNCTION prototype_removed();
DROP TABLE prototype_removal;
"""


def upgrade() -> None:
    op.execute(_UP)
    op.execute(_NOTED.replace("{}", _NARROWING, 1))


def downgrade() -> None:
    op.execute(_NOTED.replace("{}", "", 1))
    op.execute(_DOWN)
