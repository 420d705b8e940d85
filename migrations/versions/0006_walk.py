"""The table of shortest walks is `walk`, so that transit means learned times; `ensure_leaf` is `ensure_partition`."""

from importlib import import_module

from alembic import op

revision = "0006"
down_revision = "0005"

# Constraints keep their table's old name when it is renamed; renaming a key renames its index.
_RENAME = """
ALTER TABLE {old} RENAME TO {new};
DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT conname AS old, '{new}' || substr(conname, length('{old}') + 1) AS new
        FROM pg_constraint WHERE conrelid = '{new}'::regclass AND starts_with(conname, '{old}_')
    LOOP
        EXECUTE format('ALTER TABLE {new} RENAME CONSTRAINT %I TO %I', found.old, found.new);
    END LOOP;
END $$;
"""

# Runs with its owner's rights, because the program may create no table. It creates the partition of a model and, below
# it, the partition of a day. The latter is created on its own and then attached, which waits for no reader.
_PARTITIONS = """
DROP FUNCTION ensure_leaf(text, integer, date);
CREATE FUNCTION ensure_partition(family text, model integer, of_day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    of_model text := format('%s_m%s', family, model);
    wanted text := format('%s_m%s_%s', family, model, to_char(of_day, 'YYYYMMDD'));
    width integer;
BEGIN
    IF family NOT IN ('crop_embedding', 'prototype') THEN
        RAISE EXCEPTION 'no partitioned table: %', family;
    END IF;
    IF EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = wanted) THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('urban_reid partition ' || family, model));
    -- Asked of pg_tables, because to_regclass may remember from before the wait that there was no such table.
    IF EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = wanted) THEN
        RETURN;
    END IF;
    SELECT m.dims INTO width FROM public.model AS m WHERE m.id = ensure_partition.model;
    IF width IS NULL THEN
        RAISE EXCEPTION 'no model %', model;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_tables WHERE schemaname = 'public' AND tablename = of_model) THEN
        EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL) PARTITION BY RANGE (day)',
                       of_model, family);
        EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES IN (%s)', family, of_model, model);
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON public.%I TO urban_reid_app', of_model);
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING ALL)', wanted, of_model);
    EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT width CHECK (vector_dims(v) = %s), ADD CHECK (model_id = %s), '
                   'ADD CHECK (day >= %L AND day < %L)', wanted, width, model, of_day, of_day + 1);
    EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                   of_model, wanted, of_day, of_day + 1);
    EXECUTE format('GRANT SELECT, INSERT, DELETE ON public.%I TO urban_reid_app', wanted);
END $$;
REVOKE EXECUTE ON FUNCTION ensure_partition(text, integer, date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_partition(text, integer, date) TO urban_reid_app;
"""

_GRANT_BEFORE = "GRANT EXECUTE ON FUNCTION ensure_leaf(text, integer, date) TO urban_reid_app"


def upgrade() -> None:
    op.execute(_RENAME.format(old="transit", new="walk"))
    op.execute(_PARTITIONS)


def downgrade() -> None:
    op.execute(_RENAME.format(old="walk", new="transit"))
    op.execute("DROP FUNCTION ensure_partition(text, integer, date)")
    op.execute(import_module("migrations.versions.0001_city").LEAVES)
    op.execute(_GRANT_BEFORE)
