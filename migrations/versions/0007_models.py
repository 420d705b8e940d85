"""A model can be renamed, and removed where nothing refers to it."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Runs with its owner's rights, because the program may delete no model and nothing that is append-only. Foreign keys
# refuse a model that anything else refers to.
_UP = """
GRANT UPDATE (name, card) ON model TO urban_reid_app;
CREATE FUNCTION remove_model(model integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    DELETE FROM public.model_comparison AS c WHERE c.model_id = remove_model.model;
    DELETE FROM public.calibration AS c WHERE c.model_id = remove_model.model;
    DELETE FROM public.model AS m WHERE m.id = remove_model.model AND NOT m.in_use;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'model % is in use or not registered', model;
    END IF;
END $$;
REVOKE EXECUTE ON FUNCTION remove_model(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remove_model(integer) TO urban_reid_app;
"""

_DOWN = """
DROP FUNCTION remove_model(integer);
REVOKE UPDATE (name, card) ON model FROM urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
