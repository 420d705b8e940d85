"""Roles and passwords that an administrator gives wait for another one's agreement, where there is more than one."""

from alembic import op

revision = "0036"
down_revision = "0035"

_UP = """
CREATE TABLE account_change (               -- asked for by one administrator, done once another agreed
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id integer NOT NULL REFERENCES account (id),
    role account_role_kind,                 -- null: a new password
    unit text,
    from_time timestamptz,                  -- null: from the agreement on
    to_time timestamptz,                    -- null: without an end
    password text,                          -- argon2id, until it is decided
    asked_by integer NOT NULL REFERENCES account (id),
    asked_at timestamptz NOT NULL DEFAULT now(),
    decided_by integer REFERENCES account (id),
    decided_at timestamptz,
    is_agreed boolean CHECK (NOT is_agreed OR decided_by <> asked_by),
    CHECK ((role IS NULL) = (unit IS NULL)),
    CHECK (num_nonnulls(role, password) = CASE WHEN role IS NULL AND decided_at IS NOT NULL THEN 0 ELSE 1 END),
    CHECK (num_nonnulls(decided_by, decided_at, is_agreed) IN (0, 3))
);
GRANT SELECT, INSERT ON account_change TO urban_reid_signin;
GRANT UPDATE (password, decided_by, decided_at, is_agreed) ON account_change TO urban_reid_signin;
GRANT USAGE, SELECT ON SEQUENCE account_change_id_seq TO urban_reid_signin;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute("DROP TABLE account_change")
