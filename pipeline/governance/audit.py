"""The audit trail: who did what, where and why, written in the transaction of what was done."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, text

from schemas.errors import InputError


class Action(StrEnum):
    """What an audit row records, written `noun.verb`. `Action(stored)` also accepts the spellings of older rows."""

    ACCESS_REFUSE = "access.refuse"  # somebody may not see or do what they asked for
    ACCOUNT_ADD = "account.add"
    ACCOUNT_AGREE = "account.agree"  # another administrator's agreement to a role or password
    ACCOUNT_ASK = "account.ask"  # a role or password that waits for it
    ACCOUNT_CHANGE = "account.change"  # its password
    ACCOUNT_DECLINE = "account.decline"  # no agreement, or taken back by who asked
    ACCOUNT_DISABLE = "account.disable"
    ACCOUNT_GRANT = "account.grant"
    ACCOUNT_LOCK = "account.lock"  # after wrong passwords
    ACCOUNT_RECOVER = "account.recover"  # an administrator's password, by whoever runs the program
    ACCOUNT_REVOKE = "account.revoke"
    ACCOUNT_UNLOCK = "account.unlock"
    ASSESSMENT_STATE = "assessment.state"  # where the impact assessment is found
    ASSIGNMENTS_EXPORT = "assignments.export"
    AUDIT_ERASE = "audit.erase"  # reasons and details of the rows that it names were erased
    AUDIT_EXPORT = "audit.export"
    AUDIT_REPORT = "audit.report"
    AUDIT_SHOW = "audit.show"
    BACKUP_RESTORE = "backup.restore"
    BACKUP_WRITE = "backup.write"
    CAMERA_ADD = "camera.add"
    CAMERA_CHANGE = "camera.change"
    CAMERA_LOOK = "camera.look"  # a picture of what it sees
    CAMERA_PAUSE = "camera.pause"
    CAMERA_REMOVE = "camera.remove"
    CAMERA_RESUME = "camera.resume"
    CASE_APPROVE = "case.approve"  # these are of an authorization
    CASE_ASK = "case.ask"
    CASE_LOCK = "case.lock"  # urgent use that was not approved: its results are erased
    CASE_REFUSE = "case.refuse"
    CASE_REVOKE = "case.revoke"
    CASE_CLOSE = "case.close"  # these of the whole case
    CASE_HOLD = "case.hold"
    CASE_OPEN = "case.open"
    CASE_RELEASE = "case.release"  # held no longer
    CITY_CHANGE = "city.change"
    CITY_LOAD = "city.load"
    CROP_ENCRYPT = "crop.encrypt"  # pictures that an earlier version stored as they were
    CROP_LOSE = "crop.lose"  # pictures of crops are missing or damaged: found so, or accepted as gone for good
    CROP_RETURN = "crop.return"  # pictures that were gone are there again
    EVIDENCE_EXPORT = "evidence.export"
    ERASE_END = "erase.end"
    ERASE_START = "erase.start"
    ERASE_VERIFY = "erase.verify"
    IDENTITY_CONFIRM = "identity.confirm"
    IDENTITY_DENY = "identity.deny"
    INGEST_UNDO = "ingest.undo"
    KEY_RENEW = "key.renew"
    LEAD_ANSWER = "lead.answer"
    LEAD_SHOW = "lead.show"
    LIMITS_CHANGE = "limits.change"
    MODEL_CALIBRATE = "model.calibrate"
    MODEL_COMPARE = "model.compare"
    MODEL_PROMOTE = "model.promote"
    MODEL_REGISTER = "model.register"
    MODEL_REMOVE = "model.remove"
    MODEL_RENAME = "model.rename"
    MODEL_ROLLBACK = "model.rollback"
    MODEL_TRAIN = "model.train"
    MODEL_USE = "model.use"
    PEOPLE_SHOW = "people.show"  # a page of a unit's identities
    PERSON_SHOW = "person.show"  # one identity: its journey and pictures
    PICTURE_SHOW = "picture.show"  # one picture with its face
    PROBE_UPLOAD = "probe.upload"
    PURPOSE_ADD = "purpose.add"
    PURPOSE_RETIRE = "purpose.retire"
    REPORT_WRITE = "report.write"
    RESOLVE_AGAIN = "resolve.again"
    REVIEW_ANSWER = "review.answer"
    REVIEW_SHOW = "review.show"  # two passages, or what answers changed
    REVIEW_UNDO = "review.undo"
    SEARCH_SHOW = "search.show"  # what a search covered and what it shows
    RETENTION_RUN = "retention.run"
    RETENTION_SET = "retention.set"
    SEARCH_START = "search.start"
    SESSION_END = "session.end"
    SESSION_REFUSE = "session.refuse"  # a sign-in that failed
    SESSION_START = "session.start"
    STANDING_APPROVE = "standing.approve"  # these are of a standing search
    STANDING_END = "standing.end"
    STANDING_SHOW = "standing.show"  # the pictures of whom it looks for
    STANDING_START = "standing.start"
    SUBJECT_EXPORT = "subject.export"
    TRANSIT_LEARN = "transit.learn"

    @classmethod
    def _missing_(cls, value: object) -> "Action | None":
        return _OLD_SPELLINGS.get(value)


#: What shows or writes persons, or the audit, for somebody to take along: what left the system. The row of a lead does
#: not say whether its pictures were shown on a page or written to files.
LEAVING = (
    Action.ASSIGNMENTS_EXPORT, Action.AUDIT_EXPORT, Action.BACKUP_WRITE, Action.EVIDENCE_EXPORT, Action.LEAD_SHOW,
    Action.PICTURE_SHOW, Action.REPORT_WRITE, Action.SUBJECT_EXPORT,
)  # fmt: skip

#: Rows of version 0.1 keep what they say; readers see today's action.
_OLD_SPELLINGS: dict[object, Action] = {
    "city load": Action.CITY_LOAD,
    "crop.gone": Action.CROP_LOSE,
    "model.transit": Action.TRANSIT_LEARN,
    "report": Action.REPORT_WRITE,
    "search": Action.SEARCH_START,
}


_READ = text(
    "SELECT * FROM (SELECT id, at, actor, action, unit, reason, details FROM audit "
    "WHERE (CAST(:actions AS text[]) IS NULL OR action = ANY(:actions)) "
    "AND (CAST(:actor AS text) IS NULL OR actor = :actor) "
    "AND (CAST(:unit AS text) IS NULL OR unit = :unit OR starts_with(unit, :unit || '/')) "
    "AND (CAST(:start AS timestamptz) IS NULL OR at >= :start) AND (CAST(:end AS timestamptz) IS NULL OR at < :end) "
    "AND (CAST(:before AS bigint) IS NULL OR id < :before) "
    "ORDER BY id DESC LIMIT :last) newest ORDER BY id"
)


#: The token of the session under which a command of the program works; empty: none. See `working_under`.
_TOKEN: ContextVar[str] = ContextVar("token", default="")
_UNDER = text(
    "SELECT set_config('urban_reid.session', "
    "coalesce(nullif(current_setting('urban_reid.session', true), ''), :token), true)"
)


@contextmanager
def working_under(token: str) -> Iterator[None]:
    """Rows that are written within have the session's account as their actor, also those of `Store.begin`."""
    before = _TOKEN.set(token)
    try:
        yield
    finally:
        _TOKEN.reset(before)


def audit(
    connection: Connection,
    actor: str,
    action: Action,
    *,
    unit: str | None = None,
    reason: str | None = None,
    details: Mapping[str, Any],
) -> None:
    """Appends one row in the connection's transaction. Under a session its account is the actor, whoever is given."""
    if token := _TOKEN.get():
        connection.execute(_UNDER, {"token": token})
    connection.execute(
        text(
            "INSERT INTO audit (actor, action, unit, reason, details) "
            "VALUES (:actor, :action, :unit, :reason, CAST(:details AS jsonb))"
        ),
        {"actor": actor, "action": action.value, "unit": unit, "reason": reason, "details": json.dumps(details)},
    )


def read_audit(
    connection: Connection,
    *,
    action: str | None = None,
    actor: str | None = None,
    unit: str | None = None,
    start: datetime | None = None,
    end: datetime | None = None,
    before: int | None = None,
    last: int = 50,
) -> Sequence[Row[Any]]:
    """The newest `last` rows (id, at, actor, action, unit, reason, details) that fit, oldest first; at in [start, end).

    unit: of it and all units below it. before: of the rows with a smaller id. Raises InputError for an action that
    there is none of.
    """
    spellings = None
    if action is not None:
        try:
            wanted = Action(action)
        except ValueError:
            near = get_close_matches(action, list(Action), n=3, cutoff=0)
            raise InputError(f"no action {action[:80]!r}; there are, among others: {', '.join(near)}") from None
        spellings = [wanted.value, *(str(old) for old, new in _OLD_SPELLINGS.items() if new is wanted)]
    return connection.execute(
        _READ,
        {
            "actions": spellings,
            "actor": actor,
            "unit": unit,
            "start": start,
            "end": end,
            "before": before,
            "last": last,
        },
    ).all()
