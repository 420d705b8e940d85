"""A function that lets the program analyze tables that have grown, which only their owner may do."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Runs with its owner's rights, like ensure_leaf. It does not wait, and skips tables that another session analyzes.
# relpages is the table's number of pages when it was last analyzed.
_UP = """
CREATE FUNCTION analyze_grown(least_pages integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    grown regclass;
BEGIN
    FOR grown IN
        SELECT oid FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relowner = current_user::regrole
          AND pg_relation_size(oid) / current_setting('block_size')::integer >= greatest(2 * relpages, least_pages)
    LOOP
        EXECUTE format('ANALYZE (SKIP_LOCKED) %s', grown);
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION analyze_grown(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION analyze_grown(integer) TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP FUNCTION analyze_grown(integer)")
