"""Answers of reviewers about pairs of passages, which bind later resolves, and decisions that follow from them.

An answer names tracklets by their keys; each is found again by its first crop, which stays the same when late crops
make another tracklet of it. Answers are append-only, and go with the people whom they are about.
"""

from alembic import op

revision = "0034"
down_revision = "0033"

_TABLES = """
CREATE TYPE review_said AS ENUM ('same', 'different', 'unsure');
CREATE TABLE review_answer (                -- append-only: what somebody says about one pair of passages or more
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    account_id integer REFERENCES account (id),     -- null: the home was open
    reviewer text NOT NULL CHECK (btrim(reviewer) <> ''),
    said review_said NOT NULL,
    way text NOT NULL CHECK (way IN ('decision', 'hit', 'pair', 'second', 'merge', 'split')),  -- how they came to it
    reason text NOT NULL CHECK (btrim(reason) <> '')
);
CREATE INDEX ON review_answer (at, id);
CREATE TABLE review_pair (                  -- append-only
    answer_id uuid NOT NULL REFERENCES review_answer (id) ON DELETE CASCADE,
    left_key content_key NOT NULL,          -- of a tracklet as it was looked at
    right_key content_key NOT NULL,
    left_crop content_key NOT NULL,         -- of its first crop; salted where that is gone
    right_crop content_key NOT NULL,
    unit text NOT NULL REFERENCES urban_unit (code),    -- the lowest one above the cameras of both
    PRIMARY KEY (answer_id, left_crop, right_crop)
);
CREATE INDEX ON review_pair (unit);
CREATE INDEX ON review_pair (left_key);
CREATE INDEX ON review_pair (right_key);
CREATE INDEX ON review_pair (left_crop);
CREATE INDEX ON review_pair (right_crop);
CREATE TABLE review_undo (                  -- append-only: an answer that counts no longer
    answer_id uuid PRIMARY KEY REFERENCES review_answer (id) ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(),
    account_id integer REFERENCES account (id),
    reviewer text NOT NULL CHECK (btrim(reviewer) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> '')
);
ALTER TABLE match_decision ADD COLUMN answered boolean NOT NULL DEFAULT false;  -- follows from an answer
CREATE INDEX match_decision_review ON match_decision (run_id) WHERE verdict = 'review';
"""
# A join that an answer asks for needs no calibration.
_NO_PROBABILITY = """
DO $$
DECLARE
    name text := (SELECT conname FROM pg_constraint WHERE conrelid = 'match_decision'::regclass AND contype = 'c'
        AND pg_get_constraintdef(oid) LIKE '%probability IS NOT NULL%verdict%');
BEGIN
    EXECUTE format('ALTER TABLE match_decision DROP CONSTRAINT %1$I, ADD CONSTRAINT %1$I '
        'CHECK (probability IS NOT NULL OR verdict = ''review''{})', name);
END $$;
"""

_FUNCTIONS = """
CREATE FUNCTION review_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    g public.grant_now := public.check_may_look('a review');
BEGIN
    NEW.at := now();
    NEW.account_id := g.account;
    NEW.reviewer := coalesce(g.name, NEW.reviewer);
    RETURN NEW;
END $$;
CREATE TRIGGER review_rules BEFORE INSERT ON review_answer FOR EACH ROW EXECUTE FUNCTION review_rules();
CREATE TRIGGER review_rules BEFORE INSERT ON review_undo FOR EACH ROW EXECUTE FUNCTION review_rules();

-- A tracklet's camera and first crop; null where none has the key.
CREATE FUNCTION passage_of(tracklet bytea, OUT camera text, OUT crop bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.camera, c.key::bytea FROM public.identity AS i JOIN public.identity_member AS m ON m.identity_id = i.id
    JOIN public.crop AS c ON c.id = m.crop_id WHERE i.key = tracklet AND i.level = 'camera'
    ORDER BY c.captured_at, c.key LIMIT 1
$$;
-- The pair in the order of its crops, and the unit in which both can be together first.
CREATE FUNCTION review_pair_rules() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    one record;
    other record;
BEGIN
    PERFORM public.check_may_look('a review');
    IF NOT EXISTS (SELECT FROM public.review_answer AS a WHERE a.id = NEW.answer_id AND a.at = now()) THEN
        PERFORM public.refuse('an answer says all of what it is about at once');
    END IF;
    SELECT * INTO one FROM public.passage_of(NEW.left_key);
    SELECT * INTO other FROM public.passage_of(NEW.right_key);
    IF one.crop IS NULL OR other.crop IS NULL THEN
        PERFORM public.refuse('one of both passages is not there any more');
    ELSIF one.crop = other.crop THEN
        PERFORM public.refuse('both are the same passage');
    ELSIF one.crop > other.crop THEN
        SELECT NEW.right_key, NEW.left_key INTO NEW.left_key, NEW.right_key;
        NEW.left_crop := other.crop;
        NEW.right_crop := one.crop;
    ELSE
        NEW.left_crop := one.crop;
        NEW.right_crop := other.crop;
    END IF;
    NEW.unit := (SELECT u.code FROM public.urban_unit AS u WHERE starts_with(one.camera, u.code || '/')
        AND starts_with(other.camera, u.code || '/') ORDER BY length(u.code) DESC LIMIT 1);
    IF NEW.unit IS NULL THEN
        PERFORM public.refuse('people of two districts are never joined');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER review_pair_rules BEFORE INSERT ON review_pair FOR EACH ROW EXECUTE FUNCTION review_pair_rules();

-- Marks what an answer is about, and all that it may say of others: in each unit above two of these passages, the
-- windows from the one on in which the second of them was seen.
CREATE FUNCTION mark_review(answers uuid[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE side AS (
        SELECT left_crop AS crop, left_key AS key, answer_id, right_crop AS other FROM public.review_pair
        UNION ALL SELECT right_crop, right_key, answer_id, left_crop FROM public.review_pair
    ), reached (crop) AS (
        SELECT s.crop FROM side AS s WHERE s.answer_id = ANY(answers)
        UNION SELECT s.other FROM reached AS r JOIN side AS s ON s.crop = r.crop
    ), seen AS (
        SELECT s.crop, min(i.unit) AS camera, min(i.window_start) AS at
        FROM side AS s JOIN reached AS r ON r.crop = s.crop JOIN public.identity AS i ON i.level = 'camera' AND (
            i.key = s.key OR i.id IN (SELECT m.identity_id FROM public.identity_member AS m
                JOIN public.crop AS c ON c.id = m.crop_id WHERE c.key = s.crop))
        GROUP BY s.crop
    )
    INSERT INTO public.watermark (unit, dirty_from, version)
    SELECT code, at, 1 FROM (
        SELECT u.code, s.at, row_number() OVER (PARTITION BY u.code ORDER BY s.at) AS place
        FROM seen AS s JOIN public.urban_unit AS u ON starts_with(s.camera, u.code || '/')) AS above
    WHERE place = 2 ORDER BY code
    ON CONFLICT (unit) DO UPDATE SET dirty_from = least(watermark.dirty_from, excluded.dirty_from),
        version = watermark.version + 1
$$;
CREATE FUNCTION review_marks() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM public.mark_review(ARRAY(SELECT DISTINCT n.answer_id FROM written AS n));
    RETURN NULL;
END $$;
CREATE TRIGGER review_marks AFTER INSERT ON review_pair REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION review_marks();
CREATE TRIGGER review_marks AFTER INSERT ON review_undo REFERENCING NEW TABLE AS written
    FOR EACH STATEMENT EXECUTE FUNCTION review_marks();

-- What is said about a passage goes with it. Of a crop that is gone no key stays.
CREATE FUNCTION review_of_gone_passages() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.review_pair AS p USING gone AS g WHERE g.level = 'camera' AND g.key IN (p.left_key, p.right_key)
        AND NOT EXISTS (SELECT FROM public.identity AS i WHERE i.key = g.key);
    RETURN NULL;
END $$;
CREATE TRIGGER review_of_gone_passages AFTER DELETE ON identity REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION review_of_gone_passages();
CREATE FUNCTION review_of_gone_crops() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE public.review_pair AS p SET left_crop = public.erased_hash('review', encode(p.left_crop, 'hex'))
    FROM gone AS g WHERE g.key = p.left_crop;
    UPDATE public.review_pair AS p SET right_crop = public.erased_hash('review', encode(p.right_crop, 'hex'))
    FROM gone AS g WHERE g.key = p.right_crop;
    RETURN NULL;
END $$;
CREATE TRIGGER review_of_gone_crops AFTER DELETE ON crop REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION review_of_gone_crops();
CREATE FUNCTION review_of_nothing() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.review_answer AS a USING gone AS g WHERE a.id = g.answer_id
        AND NOT EXISTS (SELECT FROM public.review_pair AS p WHERE p.answer_id = a.id);
    RETURN NULL;
END $$;
CREATE TRIGGER review_of_nothing AFTER DELETE ON review_pair REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION review_of_nothing();
"""

# An answer is seen by whoever may see both passages of one of its pairs. Triggers say who may give one.
_POLICIES = """
CREATE POLICY seen ON review_pair FOR SELECT TO urban_reid_app USING (
    EXISTS (SELECT FROM identity AS i WHERE i.key = left_key)
    AND EXISTS (SELECT FROM identity AS i WHERE i.key = right_key));
CREATE POLICY written ON review_pair FOR INSERT TO urban_reid_app WITH CHECK (
    EXISTS (SELECT FROM identity AS i WHERE i.key = left_key)
    AND EXISTS (SELECT FROM identity AS i WHERE i.key = right_key));
CREATE POLICY seen ON review_answer FOR SELECT TO urban_reid_app
    USING (EXISTS (SELECT FROM review_pair AS p WHERE p.answer_id = id));
CREATE POLICY written ON review_answer FOR INSERT TO urban_reid_app WITH CHECK (true);
CREATE POLICY seen ON review_undo FOR SELECT TO urban_reid_app
    USING (EXISTS (SELECT FROM review_pair AS p WHERE p.answer_id = review_undo.answer_id));
CREATE POLICY written ON review_undo FOR INSERT TO urban_reid_app
    WITH CHECK (EXISTS (SELECT FROM review_pair AS p WHERE p.answer_id = review_undo.answer_id));
"""
_TABLE_NAMES = ("review_answer", "review_pair", "review_undo")
_GRANTS = """
GRANT SELECT ON review_answer, review_pair, review_undo TO urban_reid_app;
GRANT INSERT (id, reviewer, said, way, reason) ON review_answer TO urban_reid_app;
GRANT INSERT (answer_id, left_key, right_key) ON review_pair TO urban_reid_app;
GRANT INSERT (answer_id, reviewer, reason) ON review_undo TO urban_reid_app;
GRANT SELECT (id, at, reviewer, said, way) ON review_answer TO urban_reid_worker;
GRANT SELECT ON review_pair TO urban_reid_worker;
GRANT SELECT (answer_id, at) ON review_undo TO urban_reid_worker;
"""
_INNER = ("passage_of(bytea)", "mark_review(uuid[])")

_DOWN = """
DROP TRIGGER review_of_gone_passages ON identity;
DROP TRIGGER review_of_gone_crops ON crop;
DROP TABLE review_undo, review_pair, review_answer;
DROP FUNCTION review_of_nothing(), review_of_gone_crops(), review_of_gone_passages(), review_marks(),
    mark_review(uuid[]), review_pair_rules(), passage_of(bytea), review_rules();
DROP TYPE review_said;
DROP INDEX match_decision_review;
"""


def upgrade() -> None:
    op.execute(_TABLES)
    op.execute(_NO_PROBABILITY.format(" OR answered"))
    op.execute(_FUNCTIONS)
    for table in _TABLE_NAMES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(_POLICIES)
    for function in _INNER:
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")
    op.execute(_GRANTS)


def downgrade() -> None:
    op.execute(_DOWN)
    op.execute("DELETE FROM match_decision WHERE probability IS NULL AND verdict <> 'review'")
    op.execute(_NO_PROBABILITY.format(""))
    op.execute("ALTER TABLE match_decision DROP COLUMN answered")
