"""Who asks for a training run, and why, stands in the city's database; Prefect is told the request's id only."""

from alembic import op

revision = "0015"
down_revision = "0014"

_UP = """
CREATE TABLE training_request (             -- append-only
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    requested_at timestamptz NOT NULL DEFAULT now(),
    operator text NOT NULL CHECK (btrim(operator) <> ''),
    reason text NOT NULL CHECK (btrim(reason) <> ''),
    parameters jsonb NOT NULL CHECK (jsonb_typeof(parameters) = 'object')
);
GRANT SELECT, INSERT ON training_request TO urban_reid_app;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE training_request")
