"""A camera whose file was refused is in a state of its own."""

from alembic import op

revision = "0023"
down_revision = "0022"

_UP = """
ALTER TABLE camera_health DROP CONSTRAINT camera_health_state_check;
ALTER TABLE camera_health ADD CONSTRAINT camera_health_state_check
    CHECK (state IN ('starting', 'up', 'down', 'ended', 'refused', 'paused'));
"""

_DOWN = """
UPDATE camera_health SET state = 'ended' WHERE state = 'refused';
ALTER TABLE camera_health DROP CONSTRAINT camera_health_state_check;
ALTER TABLE camera_health ADD CONSTRAINT camera_health_state_check
    CHECK (state IN ('starting', 'up', 'down', 'ended', 'paused'));
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
