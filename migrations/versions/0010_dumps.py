"""The program may read its sequences' values, so that pg_dump works with the address that `db url` prints."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO urban_reid_app")


def downgrade() -> None:
    op.execute("REVOKE SELECT ON ALL SEQUENCES IN SCHEMA public FROM urban_reid_app")
