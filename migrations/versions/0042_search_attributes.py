"""Searches by what people wear and carry, with a picture or without one, and with several uploaded pictures.

Without a picture it lists people: nobody was compared, so its hits have no distance, and it gives no leads.
"""

from alembic import op

revision = "0042"
down_revision = "0041"

_UP = """
ALTER TABLE search_request
    ADD COLUMN attributes text[] NOT NULL DEFAULT '{}',     -- terms such as 'red top' or 'no hat'; empty: any
    DROP CONSTRAINT search_request_check,
    ADD CONSTRAINT search_request_check CHECK (CASE WHEN erased_at IS NULL
        THEN num_nonnulls(crop_id, probe_id) = 1 OR (num_nonnulls(crop_id, probe_id) = 0 AND attributes <> '{}')
        ELSE num_nonnulls(crop_id, probe_id) = 0 END);
GRANT SELECT (attributes) ON search_request TO urban_reid_app;
ALTER TABLE search_hit ALTER COLUMN distance DROP NOT NULL;     -- null: of a search without a picture
ALTER TABLE search_example
    ADD COLUMN probe_id uuid REFERENCES probe (id) ON DELETE CASCADE,   -- a further uploaded picture of the person
    DROP CONSTRAINT search_example_pkey,
    ALTER COLUMN crop_id DROP NOT NULL,
    ADD UNIQUE (request_id, crop_id),
    ADD UNIQUE (request_id, probe_id),
    ADD CHECK (num_nonnulls(crop_id, probe_id) = 1),
    ADD CHECK (is_person OR probe_id IS NULL);
CREATE INDEX ON search_example (probe_id) WHERE probe_id IS NOT NULL;
DROP POLICY of_seen_crop ON search_example;
CREATE POLICY of_seen_crop ON search_example AS RESTRICTIVE FOR INSERT TO urban_reid_app
    WITH CHECK (crop_id IS NULL OR EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id));
CREATE POLICY of_seen_probe ON search_example AS RESTRICTIVE FOR INSERT TO urban_reid_app
    WITH CHECK (probe_id IS NULL OR EXISTS (SELECT FROM probe AS p WHERE p.id = probe_id));
CREATE OR REPLACE FUNCTION examples_noted() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO public.audit (actor, action, unit, details)
    SELECT r.operator, 'search.start', r.unit, public.case_of_authorization(r.authorization_id)
        || jsonb_build_object('request', r.id,
            'more', coalesce(jsonb_agg(encode(c.key, 'hex')) FILTER (WHERE e.is_person AND c.id IS NOT NULL), '[]'),
            'unlike', coalesce(jsonb_agg(encode(c.key, 'hex')) FILTER (WHERE NOT e.is_person), '[]'))
        || jsonb_strip_nulls(jsonb_build_object('pictures',
            jsonb_agg(e.probe_id) FILTER (WHERE e.probe_id IS NOT NULL)))
    FROM added AS e LEFT JOIN public.crop AS c ON c.id = e.crop_id
    JOIN public.search_request AS r ON r.id = e.request_id GROUP BY r.id;
    RETURN NULL;
END $$;
CREATE FUNCTION lead_of_picture() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM public.search_request AS r WHERE r.id = NEW.request_id
            AND num_nonnulls(r.crop_id, r.probe_id) = 0) THEN
        PERFORM public.refuse('a search without a picture lists people and gives no lead');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER result_within BEFORE INSERT ON lead FOR EACH ROW EXECUTE FUNCTION lead_of_picture();
CREATE FUNCTION hit_compared() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.distance IS NULL) <> (SELECT num_nonnulls(r.crop_id, r.probe_id) = 0 FROM public.search_request AS r
            WHERE r.id = NEW.request_id) OR (NEW.distance IS NULL AND NEW.probability IS NOT NULL) THEN
        PERFORM public.refuse('a hit has a distance where the search has a picture, and no probability without one');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER result_compared BEFORE INSERT ON search_hit FOR EACH ROW EXECUTE FUNCTION hit_compared();
"""
#: An authorization of kind subject is for searches with the picture that came with the request.
_RULES = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('search_rules()'::regprocedure), $${before}$$, $${after}$$);
    EXECUTE replace(pg_get_functiondef('search_asked()'::regprocedure), $${said}$$, $${says}$$);
    EXECUTE replace(pg_get_functiondef('erase_rows(uuid, bigint[], uuid[], uuid[])'::regprocedure),
        $${of}$$, $${all}$$);
END $do$;
"""
_BY_CROP = "NEW.crop_id IS NOT NULL AND EXISTS"
_WITHOUT_PROBE = "NEW.probe_id IS NULL AND EXISTS"
_PLACES = "jsonb_build_object('places', "
_ATTRIBUTES = "jsonb_build_object('attributes', to_jsonb(nullif(NEW.attributes, '{}')), 'places', "
_OF_PROBE = "OR r.probe_id = ANY(probes);"
_OF_PICTURE = """OR r.probe_id = ANY(probes)
        OR r.id IN (SELECT e.request_id FROM public.search_example e WHERE e.probe_id = ANY(probes));"""
_DOWN = """
DROP TRIGGER result_compared ON search_hit;
DROP FUNCTION hit_compared();
DROP TRIGGER result_within ON lead;
DROP FUNCTION lead_of_picture();
DELETE FROM search_hit WHERE distance IS NULL;
ALTER TABLE search_hit ALTER COLUMN distance SET NOT NULL;
DROP POLICY of_seen_probe ON search_example;
DROP POLICY of_seen_crop ON search_example;
DELETE FROM search_example WHERE crop_id IS NULL;
ALTER TABLE search_example DROP CONSTRAINT search_example_request_id_crop_id_key, DROP COLUMN probe_id,
    ADD PRIMARY KEY (request_id, crop_id);
CREATE POLICY of_seen_crop ON search_example AS RESTRICTIVE FOR INSERT TO urban_reid_app
    WITH CHECK (EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id));
CREATE OR REPLACE FUNCTION examples_noted() RETURNS trigger
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
UPDATE search_request SET erased_at = now() WHERE erased_at IS NULL AND num_nonnulls(crop_id, probe_id) = 0;
ALTER TABLE search_request DROP CONSTRAINT search_request_check, DROP COLUMN attributes,
    ADD CONSTRAINT search_request_check
        CHECK (num_nonnulls(crop_id, probe_id) = CASE WHEN erased_at IS NULL THEN 1 ELSE 0 END);
"""


def upgrade() -> None:
    op.execute(_UP)
    rules = {"before": _BY_CROP, "after": _WITHOUT_PROBE, "said": _PLACES, "says": _ATTRIBUTES}
    op.execute(_RULES.format(**rules, of=_OF_PROBE, all=_OF_PICTURE))


def downgrade() -> None:
    rules = {"before": _WITHOUT_PROBE, "after": _BY_CROP, "said": _ATTRIBUTES, "says": _PLACES}
    op.execute(_RULES.format(**rules, of=_OF_PICTURE, all=_OF_PROBE))
    op.execute(_DOWN)
