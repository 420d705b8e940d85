"""Cameras that are looked at all the time: how, how they fare, and when they were blind."""

from alembic import op

revision = "0016"
down_revision = "0015"

_UP = """
CREATE TABLE camera_feed (
    camera text PRIMARY KEY REFERENCES urban_unit (code) CHECK (level_of(camera) = 'camera'),
    address text NOT NULL CHECK (address <> ''),    -- without user and password
    secret text,                            -- the name of its user and password
    looks_per_s double precision NOT NULL CHECK (looks_per_s > 0),
    detector text,                          -- null: the default one
    region integer[] CHECK (cardinality(region) = 4),   -- x, y, width, height in the frame, pixels
    masks jsonb NOT NULL DEFAULT '[]',      -- polygons, corners x, y in shares of the frame
    motion_gate boolean NOT NULL DEFAULT false,
    start timestamptz,                      -- of a file's first frame
    fps double precision CHECK (fps > 0),
    paused boolean NOT NULL DEFAULT false,
    added_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE camera_health (                -- how a feed fares now
    camera text PRIMARY KEY REFERENCES urban_unit (code) ON DELETE CASCADE,
    state text NOT NULL CHECK (state IN ('starting', 'up', 'down', 'ended', 'paused')),
    at timestamptz NOT NULL,
    detail text NOT NULL DEFAULT '',
    last_frame_at timestamptz,
    looks_per_s double precision,
    people integer,
    lag_s double precision,
    reconnects bigint NOT NULL DEFAULT 0,
    clock_offset_s double precision,
    frozen boolean NOT NULL DEFAULT false,
    black boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);                   -- each row is replaced every few seconds
CREATE TABLE camera_outage (                -- a time in which a camera saw nothing
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    camera text NOT NULL REFERENCES urban_unit (code) ON DELETE CASCADE,
    down_at timestamptz NOT NULL,
    up_at timestamptz CHECK (up_at >= down_at),     -- null: it is down still
    reason text NOT NULL,
    down_told_at timestamptz,               -- when the webhook was told; null: not yet, or there is none
    up_told_at timestamptz
);
CREATE UNIQUE INDEX camera_outage_open ON camera_outage (camera) WHERE up_at IS NULL;
CREATE INDEX ON camera_outage (camera, down_at);
CREATE INDEX ON camera_outage (down_at) WHERE down_told_at IS NULL OR up_told_at IS NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON camera_feed, camera_health TO urban_reid_app;
GRANT SELECT, INSERT ON camera_outage TO urban_reid_app;
GRANT SELECT ON SEQUENCE camera_outage_id_seq TO urban_reid_app;
GRANT UPDATE (up_at, down_told_at, up_told_at) ON camera_outage TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE camera_outage, camera_health, camera_feed")
