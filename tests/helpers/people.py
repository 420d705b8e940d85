"""People with accounts, under whose sessions a test's store works."""

import secrets
from hashlib import sha256

from argon2 import PasswordHasher
from pydantic import SecretStr
from sqlalchemy import text

from pipeline.store import Store
from schemas.roles import Role

PASSWORD = "correct horse battery"
#: Everybody of `add_people`, by role.
PEOPLE = {
    Role.ADMINISTRATOR: "zoe",
    Role.OPERATOR: "anna",
    Role.SUPERVISOR: "ben",
    Role.AUDITOR: "cleo",
    Role.ENGINEER: "dan",
}


#: With parameters that cost nothing; the first sign-in makes it new.
_HASHED = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)


def add_people(store: Store) -> None:
    """An account for each role, for the whole city, as administrators make them. Nobody is signed in."""
    with store.signing_in() as connection:
        for role, name in PEOPLE.items():
            connection.execute(
                text(
                    "WITH made AS (INSERT INTO account (name, password) VALUES (:name, :password) RETURNING id) INSERT "
                    "INTO account_role (account_id, role, granted_by) SELECT id, CAST(:role AS account_role_kind), "
                    "'tests' FROM made"
                ),
                {"name": name, "password": _HASHED, "role": role},
            )


def become(store: Store, name: str | None) -> str:
    """Makes the store work under a new session of one of `add_people`, in the role of that name, without a password.

    None: under no session. Returns the session's token.
    """
    token = secrets.token_hex(32) if name else ""
    if name:
        with store.signing_in() as connection:
            connection.execute(
                text(
                    "INSERT INTO session (hash, account_id, role, units, expires_at) SELECT :hash, a.id, r.role, "
                    "array_agg(r.unit), now() + interval '1 h' FROM account a JOIN account_role r ON account_id = a.id "
                    "WHERE a.name = :name GROUP BY a.id, r.role"
                ),
                {"hash": sha256(bytes.fromhex(token)).digest(), "name": name},
            )
    store.settings = store.settings.model_copy(update={"token": SecretStr(token) if token else None})
    return token
