"""What an authorization opens is counted as far as a decision needs it: 100,001 stands for more than 100,000.

Each crop of the period was counted before somebody saw the page, and again when they approved: seconds of ten million.
Cameras are asked one by one whether they have a crop of the period, along the index of camera and time.
"""

from alembic import op

revision = "0050"
down_revision = "0047"

_HEAD = """
CREATE OR REPLACE FUNCTION opens_now(of_authorization uuid, OUT crops bigint, OUT cameras bigint,
    OUT identities bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    asked public.case_authorization;{names}
BEGIN
    SELECT a.* INTO asked FROM public.case_authorization AS a WHERE a.id = of_authorization
        AND public.may_read_authorization(a.asked_by, a.units);
    IF asked.id IS NULL THEN
        PERFORM public.refuse('there is no authorization of that id where you work');
    END IF;
    {counts}
END $$;
"""
_UP = _HEAD.format(
    names="""
    most CONSTANT integer := 100001;
    there text[];""",
    counts="""there := ARRAY(SELECT u.code FROM public.urban_unit AS u
        WHERE u.level = 'camera' AND public.is_within(u.code, asked.units) AND EXISTS (
            SELECT FROM public.crop AS c WHERE c.camera = u.code AND c.withdrawn_at IS NULL
                AND c.captured_at >= asked.from_time AND c.captured_at < asked.to_time));
    cameras := cardinality(there);
    SELECT count(*) INTO crops FROM (SELECT FROM public.crop AS c WHERE c.camera = ANY (there)
        AND c.withdrawn_at IS NULL AND c.captured_at >= asked.from_time AND c.captured_at < asked.to_time
        LIMIT most) AS counted;
    SELECT count(*) INTO identities FROM (SELECT FROM public.identity_now AS i WHERE i.unit = ANY (asked.units)
        AND i.first_seen < asked.to_time AND i.last_seen >= asked.from_time LIMIT most) AS counted;""",
)
_DOWN = _HEAD.format(
    names="",
    counts="""SELECT count(*), count(DISTINCT c.camera) INTO crops, cameras FROM public.crop AS c
    WHERE c.withdrawn_at IS NULL AND c.captured_at >= asked.from_time AND c.captured_at < asked.to_time
        AND public.is_within(c.camera, asked.units);
    SELECT count(*) INTO identities FROM public.identity_now AS i
    WHERE i.unit = ANY (asked.units) AND i.first_seen < asked.to_time AND i.last_seen >= asked.from_time;""",
)


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
