"""A version of a person that was withdrawn counts for nobody, also where the newer one is outside of what one may see.

Whether a newer version counts was asked under the policies: of a version whose newer one lies outside of an
authorization's period, such as after a join was undone, the older one stood for now. It is asked past the policies,
where they bind, of rows whose key one has read, and answered with a boolean.
"""

from alembic import op

revision = "0052"
down_revision = "0051"

_FUNCTIONS = """
-- Whether policies keep identities from this session: asked once a statement.
CREATE FUNCTION sees_in_part() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN row_security_active('public.identity') AND (public.granted()).is_open IS NOT TRUE;
END $$;
-- Whether a newer version of the person counts than this one, which whoever knows its key has seen. It says no more.
CREATE FUNCTION is_outdated(version bigint, its_key bytea) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER COST 1000 SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN EXISTS (SELECT FROM public.identity AS i JOIN public.identity AS n ON n.unit = i.unit
            AND n.persistent_id = i.persistent_id AND n.window_start > i.window_start
        JOIN public.run AS r ON r.id = n.run_id
        WHERE i.id = version AND i.key = its_key AND r.superseded_at IS NULL);
END $$;
REVOKE EXECUTE ON FUNCTION sees_in_part(), is_outdated(bigint, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sees_in_part(), is_outdated(bigint, bytea) TO urban_reid_app, urban_reid_worker;
"""
_COLUMNS = (
    "i.id, i.run_id, i.key, i.persistent_id, i.unit, i.level, i.window_start, i.first_seen, i.last_seen, i.timed, "
    "i.crops, i.tracklets, i.retired, i.row_hash"
)
_NEWER = """FROM identity AS n JOIN run AS s ON s.id = n.run_id WHERE n.unit = i.unit
        AND n.persistent_id = i.persistent_id AND n.window_start > i.window_start AND s.superseded_at IS NULL"""
_VIEW = f"""
CREATE OR REPLACE VIEW identity_now WITH (security_invoker = true) AS
SELECT {_COLUMNS} FROM identity AS i JOIN run AS r ON r.id = i.run_id
WHERE r.superseded_at IS NULL AND NOT i.retired AND NOT EXISTS (SELECT {_NEWER})
"""
# The function is slow beside an index: it is asked only where no newer version is seen.
_UP = (
    f"{_VIEW} AND CASE WHEN (SELECT sees_in_part()) "
    f"THEN NOT coalesce((SELECT true {_NEWER} LIMIT 1), is_outdated(i.id, i.key)) ELSE true END"
)


def upgrade() -> None:
    op.execute(_FUNCTIONS)
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_VIEW)
    op.execute("DROP FUNCTION is_outdated(bigint, bytea), sees_in_part()")
