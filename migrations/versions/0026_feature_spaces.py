"""A model may be a feature space: it computes from the stored features of another model, its base."""

from alembic import op

revision = "0026"
down_revision = "0025"

# A base has features of its own, so it has no base itself; a foreign key with a constant says so.
_UP = """
ALTER TABLE model
    ADD COLUMN base_id integer,             -- whose features it is computed from; null: it has features of its own
    ADD COLUMN has_features boolean NOT NULL GENERATED ALWAYS AS (base_id IS NULL) STORED,
    ADD COLUMN base_has_features boolean GENERATED ALWAYS AS (CASE WHEN base_id IS NOT NULL THEN true END) STORED,
    ADD UNIQUE (id, has_features),
    ADD FOREIGN KEY (base_id, base_has_features) REFERENCES model (id, has_features);
CREATE INDEX ON model (base_id) WHERE base_id IS NOT NULL;
"""
_DOWN = """
DO $$ BEGIN
    IF EXISTS (SELECT FROM model WHERE base_id IS NOT NULL) THEN
        RAISE EXCEPTION 'feature spaces are registered, which earlier versions cannot read; remove them first';
    END IF;
END $$;
ALTER TABLE model DROP COLUMN base_has_features, DROP COLUMN has_features CASCADE, DROP COLUMN base_id;
"""

# Only this function makes partitions, so a model without one for features can have none.
_PARTITIONS = "ensure_partition(text, integer, date)"
_REPLACE = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('{function}'::regprocedure), $old${old}$old$, $new${new}$new$);
END $do$;
"""
_BEFORE = "    IF width IS NULL THEN"
_REFUSED = f"""    IF family = 'crop_embedding' AND EXISTS
        (SELECT FROM public.model AS m WHERE m.id = ensure_partition.model AND NOT m.has_features) THEN
        RAISE EXCEPTION 'model % is a feature space and has no features of its own', model;
    END IF;
{_BEFORE}"""


def upgrade() -> None:
    op.execute(_UP)
    op.execute(_REPLACE.format(function=_PARTITIONS, old=_BEFORE, new=_REFUSED))


def downgrade() -> None:
    op.execute(_REPLACE.format(function=_PARTITIONS, old=_REFUSED, new=_BEFORE))
    op.execute(_DOWN)
