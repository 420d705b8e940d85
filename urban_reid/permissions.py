"""Who may call which command in a home with people of real cameras. In other homes, whoever runs the program may.

What stands behind a command asks again, and the database with it: this table says which door that is.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from typing import Any

import typer
from typer.main import get_command_name

from schemas.roles import Role
from schemas.settings import settings


class Door(StrEnum):
    """What a command asks for."""

    ALONE = "alone"  # nothing: it shows nobody, and changes nothing that an engineer answers for
    ENGINEER = "engineer"  # the role engineer, of who is signed in; with nobody signed in it works alone
    PERSONS = "persons"  # operator or supervisor under an authorization; asked by what shows the persons
    RULES = "rules"  # what the tables' own rules allow whoever is signed in (migration 0030)
    AUDITOR = "auditor"  # the role auditor
    ADMINISTRATOR = "administrator"  # the role administrator, asked by what changes accounts, the retention, or erases


_A, _E, _P = Door.ALONE, Door.ENGINEER, Door.PERSONS
DOORS: dict[str, Door] = {
    **dict.fromkeys(
        ("demo", "status", "doctor", "simulate", "up", "worker", "console", "core", "resolve", "score"), _A
    ),
    "search-several": _A,  # asks consoles of other homes, under sessions of theirs
    **dict.fromkeys(("train", "evaluate", "reproduce", "dataset check"), _A),
    **dict.fromkeys(("login", "logout", "whoami", "tokens add", "tokens list", "tokens revoke"), _A),
    **dict.fromkeys((f"ingest {name}" for name in ("manifest", "dataset", "video", "list")), _A),
    "ingest undo": _E,
    **dict.fromkeys(("city show", "cameras list", "cameras test", "cameras secret list"), _A),
    **dict.fromkeys(("city load", "cameras secret set", "cameras secret remove"), _E),
    **dict.fromkeys((f"cameras {name}" for name in ("add", "set", "pause", "resume", "remove", "import")), _E),
    **dict.fromkeys((f"models {name}" for name in ("list", "show", "catalog", "convert", "export")), _A),
    **dict.fromkeys((f"models {name}" for name in ("get", "register", "rename", "remove", "use")), _E),
    **dict.fromkeys((f"models {name}" for name in ("calibrate", "transit", "normalize", "compare")), _E),
    **dict.fromkeys(("models promote", "models rollback"), _E),
    **dict.fromkeys((f"db {name}" for name in ("upgrade", "status", "stop", "reset-passwords", "url")), _A),
    **dict.fromkeys(("db backup", "db verify", "db restore"), _A),
    **dict.fromkeys(("search", "report", "identities confirm", "subject"), _P),
    **dict.fromkeys((f"review {name}" for name in ("list", "answer", "merge", "split", "follow")), _P),
    **dict.fromkeys((f"review {name}" for name in ("undo", "changed", "agreement")), _P),
    **dict.fromkeys(("retention show", "retention run"), _A),
    **dict.fromkeys(("retention set", "erase"), Door.ADMINISTRATOR),
    **dict.fromkeys(
        (f"cases {name}" for name in ("open", "ask", "pending", "approve", "refuse", "revoke")), Door.RULES
    ),
    **dict.fromkeys((f"cases {name}" for name in ("list", "show", "close", "hold")), Door.RULES),
    **dict.fromkeys((f"purposes {name}" for name in ("add", "retire", "assessment", "limits")), Door.RULES),
    **dict.fromkeys((f"standing {name}" for name in ("start", "list", "show", "approve", "end")), Door.RULES),
    **dict.fromkeys(("leads list", "leads show", "leads answer", "evidence export"), _P),
    **dict.fromkeys(("cases lock", "purposes list", "evidence verify"), _A),
    **dict.fromkeys(("keys show", "pictures encrypt"), _A),
    **dict.fromkeys(("keys renew", "webhook"), _E),
    "pictures show": _P,
    **dict.fromkeys(("audit show", "audit report", "audit export"), Door.AUDITOR),
    **dict.fromkeys(("audit verify", "audit checkpoint"), _A),
    **dict.fromkeys((f"accounts {name}" for name in ("add", "list", "grant", "revoke")), Door.ADMINISTRATOR),
    **dict.fromkeys((f"accounts {name}" for name in ("disable", "unlock", "password")), Door.ADMINISTRATOR),
    **dict.fromkeys((f"accounts {name}" for name in ("pending", "agree", "decline")), Door.ADMINISTRATOR),
    "accounts recover": _A,
}


#: Who gets which page of the console; None: whoever is signed in. Those with persons on them ask for an authorization.
PAGES: dict[str, tuple[Role, ...] | None] = {
    **dict.fromkeys(("overview", "cameras", "words"), None),
    **dict.fromkeys(("search", "leads", "review"), (Role.OPERATOR, Role.SUPERVISOR)),
    **dict.fromkeys(("cases", "standing"), (Role.OPERATOR, Role.SUPERVISOR, Role.AUDITOR)),
    **dict.fromkeys(("runs", "models", "settings"), (Role.ENGINEER, Role.ADMINISTRATOR)),
    "audit": (Role.AUDITOR,),
}

#: Commands that write nothing into the city, and those that work for everybody or are about sessions themselves.
_OUTSIDE = ("status", "doctor", "demo", "simulate", "evaluate", "reproduce", "dataset")
_UNDER_NONE = (*_OUTSIDE, "up", "worker", "console", "core", "login", "logout", "whoami", "tokens")


def guard(app: typer.Typer, above: str = "") -> None:
    """Puts the door of each command of `app`, and of the groups below it, before the command.

    What a command does alone it does under the session of who calls it, if there is one: the audit names the account.
    """
    for command in app.registered_commands:
        name = f"{above}{command_name(command)}"
        if DOORS.get(name) in (Door.ALONE, Door.ENGINEER, Door.AUDITOR) and command.callback is not None:
            command.callback = _guarded(name, command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            guard(group.typer_instance, f"{above}{group.name} " if isinstance(group.name, str) else above)


def command_name(command: Any) -> str:
    """A registered command's name on the command line."""
    return command.name or get_command_name(command.callback.__name__)


def check(command: str) -> None:
    """Raises NotAllowed, after an audit row, where a command is for others than who is signed in."""
    door, what = DOORS[command], f"`urban-reid {command}`"
    if door is Door.ALONE or (door is Door.ENGINEER and not _token()):
        return
    from pipeline.governance.doors import check_role, grant_of
    from pipeline.store import Store

    if door is Door.ENGINEER:
        with Store.open(settings(), "urban-reid") as store:
            with store.signed_in() as connection:
                grant = grant_of(connection)
            if grant is not None:
                alone = "; with nobody signed in it works alone: `urban-reid logout` first"
                check_role(store, (Role.ENGINEER,), what, otherwise=alone)
    elif door is Door.AUDITOR:
        with Store.open(settings(), "urban-reid") as store:
            check_role(store, (Role.AUDITOR,), what)


def _guarded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def guarded(*arguments: Any, **options: Any) -> Any:
        check(name)
        if name.split()[0] in _UNDER_NONE or not (token := _token()):
            return call(*arguments, **options)
        from pipeline.governance.audit import working_under

        with working_under(token):
            return call(*arguments, **options)

    return guarded


def _token() -> str:
    """The token of who calls a command; empty where nobody is signed in. Raises HomeError."""
    from pipeline.store.session_file import session_token

    try:
        return session_token(settings())
    except OSError:  # of the data directory, which the command will tell of
        return ""
