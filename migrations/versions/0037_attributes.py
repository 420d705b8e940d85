"""What people wear and carry, as a model for attributes sees it in a few crops of each passage; not sex, not age.

Rows are of crops, so that they go with them and are seen as they are.
"""

from alembic import op

revision = "0037"
down_revision = "0036"

_UP = """
CREATE TABLE crop_attributes (              -- probabilities, and colors by name
    crop_id bigint PRIMARY KEY REFERENCES crop (id) ON DELETE CASCADE,
    model text NOT NULL CHECK (btrim(model) <> ''),
    bag real NOT NULL CHECK (bag BETWEEN 0 AND 1),
    backpack real NOT NULL CHECK (backpack BETWEEN 0 AND 1),
    hat real NOT NULL CHECK (hat BETWEEN 0 AND 1),
    long_sleeves real NOT NULL CHECK (long_sleeves BETWEEN 0 AND 1),
    long_trousers real NOT NULL CHECK (long_trousers BETWEEN 0 AND 1),
    long_hair real NOT NULL CHECK (long_hair BETWEEN 0 AND 1),
    coat_or_jacket real NOT NULL CHECK (coat_or_jacket BETWEEN 0 AND 1),
    top text NOT NULL,
    bottom text NOT NULL
);
CREATE TABLE attributes_progress (          -- up to which of a camera's tracklets that is done
    camera text NOT NULL REFERENCES urban_unit (code),
    model text NOT NULL,
    tracklet bigint NOT NULL,               -- the last one's id in identity, which may be gone
    PRIMARY KEY (camera, model)
);
ALTER TABLE crop_attributes ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY seen ON crop_attributes FOR SELECT TO urban_reid_app
    USING (EXISTS (SELECT FROM crop AS c WHERE c.id = crop_id));
GRANT SELECT, INSERT, DELETE ON crop_attributes TO urban_reid_worker;
GRANT SELECT, INSERT, UPDATE ON attributes_progress TO urban_reid_worker;
GRANT SELECT ON crop_attributes TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE crop_attributes, attributes_progress")
