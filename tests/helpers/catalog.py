"""What a database holds: the definitions of everything that belongs to us, and every row."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import text

from pipeline.store import roles, schema

Connect = Callable[[], Any]

#: Names, definitions and rights of everything that belongs to us.
_CATALOG = """
SELECT concat_ws(' ', 'relation', c.relname, c.relkind, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.reloptions)
    FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace
UNION ALL SELECT concat_ws(' ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
        pg_get_expr(d.adbin, d.adrelid), a.attacl)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL SELECT concat_ws(' ', 'constraint', conname, conrelid::regclass, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT concat_ws(' ', 'policy', tablename, policyname, permissive, roles, cmd, qual, with_check)
    FROM pg_policies WHERE schemaname = 'public'
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT concat_ws(' ', 'function', proname, pg_get_functiondef(oid), proacl) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace AND pg_get_userbyid(proowner) = :owner
UNION ALL SELECT concat_ws(' ', 'type', typname, typacl) FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND pg_get_userbyid(typowner) = :owner
"""
_TABLES = (
    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
    "AND NOT relispartition AND relname <> 'alembic_version'"
)


def catalog(connect: Connect) -> set[str]:
    with schema.session(connect) as connection:
        return set(connection.scalars(text(_CATALOG), {"owner": roles.OWNER}))


def rows(connect: Connect, without: Sequence[str] = ()) -> dict[str, list[str]]:
    """Every row of every table, as text, without some columns and tables; the tables by today's name."""
    with schema.session(connect) as connection:
        connection.execute(text(f"SET ROLE {roles.OWNER}"))  # who sees each row
        found = {}
        for table in set(connection.scalars(text(_TABLES)).all()) - set(without):
            line = f"SELECT (to_jsonb(t) - CAST(:without AS text[]))::text FROM {table} AS t"
            lines = connection.scalars(text(line), {"without": list(without)}).all()
            found["walk" if table == "transit" else table] = sorted(lines)
        return found
