"""The newest versions of identities are found one by one: a look at some of them no longer sorts all of the city.

`identity_now` took the first version of each name after all were sorted, so that whoever asked for some of them by id,
by key or by their last sight waited for the whole city: half a minute of four million versions. It asks now of each
version whether a newer one counts, which goes along an index: the one of names alone led to all versions of a name.
"""

from alembic import op

revision = "0044"
down_revision = "0043"

_COLUMNS = (
    "i.id, i.run_id, i.key, i.persistent_id, i.unit, i.level, i.window_start, i.first_seen, i.last_seen, i.timed, "
    "i.crops, i.tracklets, i.retired, i.row_hash"
)
_UP = f"""
CREATE OR REPLACE VIEW identity_now WITH (security_invoker = true) AS
SELECT {_COLUMNS} FROM identity AS i JOIN run AS r ON r.id = i.run_id
WHERE r.superseded_at IS NULL AND NOT i.retired AND NOT EXISTS (
    SELECT FROM identity AS n JOIN run AS s ON s.id = n.run_id WHERE n.unit = i.unit
        AND n.persistent_id = i.persistent_id AND n.window_start > i.window_start AND s.superseded_at IS NULL);
CREATE INDEX identity_retired ON identity (unit, persistent_id) WHERE retired;
CREATE INDEX identity_versions ON identity (persistent_id, window_start DESC);
DROP INDEX identity_persistent_id_idx;
"""
_DOWN = f"""
CREATE INDEX identity_persistent_id_idx ON identity (persistent_id);
DROP INDEX identity_retired, identity_versions;
CREATE OR REPLACE VIEW identity_now WITH (security_invoker = true) AS
SELECT * FROM (
    SELECT DISTINCT ON (i.unit, i.persistent_id) {_COLUMNS} FROM identity AS i JOIN run AS r ON r.id = i.run_id
    WHERE r.superseded_at IS NULL ORDER BY i.unit, i.persistent_id, i.window_start DESC
) AS newest WHERE NOT retired;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
