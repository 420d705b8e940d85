"""A live home with people in every role, who sign in without passwords."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy import text

from pipeline.governance.authorizations import approve, ask, open_case, what_it_opens
from pipeline.governance.purposes import add_purpose, state_assessment
from pipeline.store import Store
from schemas.parameters import AuthorizationParameters
from tests.helpers.homes import become_live

#: Name and role of each person.
PEOPLE = {
    "anna": "operator",
    "ben": "supervisor",
    "cleo": "operator",
    "dora": "operator",
    "eve": "supervisor",
    "ada": "administrator",
    "otto": "auditor",
    "emil": "engineer",
}


class Governed:
    """A store whose home became live. `as_` says who acts from now on; `connect`: as a superuser."""

    def __init__(self, store: Store, connect: Callable[[], Any]) -> None:
        self.store, self._connect, self._tokens = store, connect, 0
        self._settings = store.settings
        become_live(connect)
        for name, role in PEOPLE.items():
            self.sql("INSERT INTO account (name, password) VALUES (%s, 'x')", name)
            self.sql(
                "INSERT INTO account_role (account_id, role, granted_by, from_time) "
                "SELECT id, %s, 'ada', now() - interval '1 hour' FROM account WHERE name = %s",
                role,
                name,
            )
        self.as_("ada")
        add_purpose(store, "missing-person", "a person who is missed", reason="council's decision 3")
        state_assessment(store, "DPIA 2026/7", reason="signed by the council")

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Runs a statement as a superuser; its rows."""
        connection = self._connect()
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            found: list[Any] = cursor.fetchall() if cursor.description else []
        connection.close()
        return found

    def as_(self, name: str | None, authorization: UUID | None = None) -> None:
        """Signs somebody in; None: nobody."""
        if name is None:
            self.store.settings = self._settings
            return
        self._tokens += 1
        token = sha256(f"{id(self)} {self._tokens}".encode()).hexdigest()
        self.sql(
            "INSERT INTO session (hash, account_id, role, units, authorization_id, expires_at) "
            "SELECT sha256(decode(%s, 'hex')), id, %s, '{\"\"}', %s, now() + interval '1 hour' FROM account "
            "WHERE name = %s",
            token,
            PEOPLE[name],
            None if authorization is None else str(authorization),
            name,
        )
        self.store.settings = self._settings.model_copy(update={"token": SecretStr(token)})

    def past_rules(self, statement: str, *values: Any) -> None:
        """Runs a statement as a superuser, without triggers."""
        connection = self._connect()
        with connection, connection.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            cursor.execute(statement, values)
        connection.close()

    def authorized(self, case: str = "case 17", by: str = "anna", approver: str = "ben", **changed: Any) -> UUID:
        """An approved authorization of a new case; nobody is signed in after it."""
        self.as_(by)
        open_case(self.store, case, reason="reported by the parents")
        authorization = ask(self.store, case, asked(**changed))
        self.as_(approver)
        _, opens = what_it_opens(self.store, str(authorization))
        approve(self.store, str(authorization), opens, reason="in proportion")
        self.as_(None)
        return authorization

    def answers(self, lead: UUID) -> list[tuple[str, bool | None]]:
        """What the signed-in person sees of the answers."""
        with self.store.signed_in() as connection:
            sql = "SELECT account_name(account_id) AS name, is_same FROM lead_answer WHERE lead_id = :lead ORDER BY 1"
            return [(row.name, row.is_same) for row in connection.execute(text(sql), {"lead": lead})]


def asked(**changed: Any) -> AuthorizationParameters:
    """What somebody asks for: the first days of 2026 in d1, for a week from now."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    usual = {
        "purpose": "missing-person",
        "legal_basis": "police act, section 12",
        "sought": "a child in a red coat",
        "units": ("d1",),
        "from_time": start,
        "to_time": start + timedelta(days=2),
        "expires_at": datetime.now(UTC) + timedelta(days=7),
    }
    return AuthorizationParameters.model_validate(usual | changed)
