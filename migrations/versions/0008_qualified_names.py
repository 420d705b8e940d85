"""Functions qualify what they name, so that a dump can be restored: pg_dump and psql work with an empty search path."""

from alembic import op

revision = "0008"
down_revision = "0007"

# With RETURN a body is parsed when it is created and stored with what it refers to: no search path changes its meaning.
_UP = """
CREATE OR REPLACE FUNCTION level_of(code text) RETURNS unit_level LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN (ARRAY['district', 'street', 'building', 'camera']::unit_level[])[cardinality(string_to_array(code, '/'))];
CREATE OR REPLACE FUNCTION parent_of(code text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN nullif(regexp_replace(code, '/?[^/]+$', ''), '');
"""
_DOWN = """
CREATE OR REPLACE FUNCTION level_of(code text) RETURNS unit_level LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT (ARRAY['district', 'street', 'building', 'camera']::unit_level[])[cardinality(string_to_array(code, '/'))] $$;
CREATE OR REPLACE FUNCTION parent_of(code text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS
$$ SELECT nullif(regexp_replace(code, '/?[^/]+$', ''), '') $$;
"""

# A body in PL/pgSQL is parsed when it runs, so with this path it finds nothing of ours that is not qualified.
_PATH = "ALTER FUNCTION {function} SET search_path = pg_catalog, {also}pg_temp"
_PARTITIONS = "ensure_partition(text, integer, date)"
_PL_FUNCTIONS = (_PARTITIONS, "remove_model(integer)")
_REPLACE = """
DO $do$ BEGIN
    EXECUTE replace(pg_get_functiondef('{function}'::regprocedure), '{old}', '{new}');
END $do$;
"""
_BARE, _QUALIFIED = "CHECK (vector_dims(v)", "CHECK (public.vector_dims(v)"


def upgrade() -> None:
    op.execute(_UP)
    op.execute(_REPLACE.format(function=_PARTITIONS, old=_BARE, new=_QUALIFIED))
    for function in _PL_FUNCTIONS:
        op.execute(_PATH.format(function=function, also=""))


def downgrade() -> None:
    op.execute(_DOWN)
    op.execute(_REPLACE.format(function=_PARTITIONS, old=_QUALIFIED, new=_BARE))
    for function in _PL_FUNCTIONS:
        op.execute(_PATH.format(function=function, also="public, "))
