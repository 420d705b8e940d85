"""Hosts that look at cameras: each camera is dealt to one, which holds it by a lease of the database's clock."""

from alembic import op

revision = "0046"
down_revision = "0045"

_UP = """
CREATE TABLE camera_host (                  -- a host whose sign of life is recent
    name text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    looks_per_s double precision NOT NULL CHECK (looks_per_s >= 0),     -- that its cameras may ask for in all
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE camera_lease (
    camera text PRIMARY KEY REFERENCES camera_feed (camera) ON DELETE CASCADE,
    host text NOT NULL,                     -- to whom the camera is dealt; it may be gone
    dealt_at timestamptz NOT NULL,
    looks_per_s double precision CHECK (looks_per_s >= 0),  -- measured, with what embedding costs; null: not yet
    holder text,                            -- who may look, until then
    until timestamptz,
    CHECK ((holder IS NULL) = (until IS NULL))
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON camera_host, camera_lease TO urban_reid_worker;
GRANT SELECT ON camera_host, camera_lease TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE camera_lease, camera_host")
