"""The database's schema as Alembic migrations, shipped in the wheel."""
