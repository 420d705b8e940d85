"""The database's shape, as Alembic migrations; shipped in the wheel."""
