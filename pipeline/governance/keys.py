"""The keys of a data directory as their keepers see them: what there is, and a new key file."""

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline.encryption.data_keys import DataKeys
from pipeline.encryption.key_service import key_file, key_service
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from schemas.settings import Settings


@dataclass(frozen=True)
class Keys:
    """The key file and its id (None: none yet), whether it lies in the data directory, and the days with a key.

    Days: how many have one, by district or owner.
    """

    file: Path
    id: str | None
    within_home: bool
    days: dict[str, int]


def keys_of(settings: Settings) -> Keys:
    """Reads the key file, and the newest day's key with it. Raises HomeError, StoreError."""
    keys, days = DataKeys(settings), dict[str, int]()
    for name in (names := list(keys.names())):
        owner = name.partition("/")[0]
        days[owner] = days.get(owner, 0) + 1
    file = key_file(settings)
    for owner, _, day in (name.partition("/") for name in names[-1:]):
        keys.find(owner, date.fromisoformat(day))
    id_ = key_service(settings).name() if names or file.exists() else None
    return Keys(file, id_, file.is_relative_to(settings.home), days)


def renew_key(store: Store, *, operator: str, reason: str) -> int:
    """Makes a new key file and wraps the keys of all days anew; how many. Writes an audit row first.

    Killed anywhere, every key can be read, and the next call wraps what was not wrapped. Raises HomeError, StoreError.
    """
    keys = DataKeys(store.settings)
    with store.signed_in() as connection:
        audit(connection, operator, Action.KEY_RENEW, reason=reason, details={"keys": sum(1 for _ in keys.names())})
    key_service(store.settings).renew()
    return keys.rewrap()
