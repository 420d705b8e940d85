"""Undo of an ingest: its crops take no part any more, as if the batch had never been taken in.

Rows of crops stay, marked as withdrawn, so that audit and earlier decisions still say what they were about. Their
features and truth go, and their pictures unless something else holds them. A crop that another batch brought too
stays, as that batch describes it; a truth that no other batch stated goes. The windows concerned are resolved again;
runs that they supersede lose the prototypes that were made of withdrawn crops (`pipeline/resolve/withdrawn.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, text

from pipeline.city import watermarks
from pipeline.crops.context_frames import remove_of_batch, remove_without_crops
from pipeline.crops.crop_store import CropStore, Place
from pipeline.crops.held import parts, unheld
from pipeline.governance.audit import Action, audit
from pipeline.store import Store
from pipeline.store.locks import lock_crops
from schemas.errors import InputError


@dataclass(frozen=True)
class Undone:
    """What an undo did: crops withdrawn, crops kept because another batch brought them too, pictures removed.

    `again`: recorded files that `urban-reid up` takes in again, because the batch was of the file that follows.
    """

    batch: int
    crops: int
    kept: int
    pictures: int
    districts: tuple[str, ...]  # whose windows must be resolved again
    again: tuple[str, ...] = ()


# A truth counts to the batch that stated it first, and now to the earliest other batch that stated it too.
_LEAVE_TRUTHS = text("""
    WITH heir AS (
        SELECT DISTINCT ON (t.crop_id) t.crop_id, k.batch_id FROM crop_truth t
        LEFT JOIN crop_claim k ON k.crop_id = t.crop_id AND k.truth = t.truth
        WHERE t.batch_id = :batch ORDER BY t.crop_id, k.batch_id
    ), without AS (
        DELETE FROM crop_truth t USING heir h WHERE t.crop_id = h.crop_id AND h.batch_id IS NULL
    )
    UPDATE crop_truth t SET batch_id = h.batch_id FROM heir h WHERE t.crop_id = h.crop_id AND h.batch_id IS NOT NULL""")
# The earliest other batch that brought the crop.
_HAND_OVER = text("""
    WITH heir AS (
        SELECT DISTINCT ON (k.crop_id) k.* FROM crop_claim k JOIN crop c ON c.id = k.crop_id
        WHERE c.batch_id = :batch ORDER BY k.crop_id, k.batch_id
    ), taken AS (
        DELETE FROM crop_claim k USING heir h WHERE k.crop_id = h.crop_id AND k.batch_id = h.batch_id
    )
    UPDATE crop c SET batch_id = h.batch_id, track = h.track, box = h.box FROM heir h WHERE c.id = h.crop_id
    RETURNING c.id, c.camera, c.captured_at""")
_WITHDRAW = text(
    "UPDATE crop SET withdrawn_at = now() WHERE batch_id = :batch AND withdrawn_at IS NULL "
    "RETURNING id, camera, captured_at, day"
)
_WITHDRAW_SOME = text(
    "UPDATE crop SET withdrawn_at = now() WHERE key = ANY(CAST(:keys AS bytea[])) AND withdrawn_at IS NULL "
    "AND batch_id = ANY(:batches) "
    "AND NOT EXISTS (SELECT FROM crop_claim k WHERE k.crop_id = crop.id AND k.batch_id <> ALL(:batches)) "
    "RETURNING id, camera, captured_at, day, batch_id"
)
_WITHDRAWN = text(
    "SELECT DISTINCT picture, split_part(camera, '/', 1) AS district, day FROM crop "
    "WHERE batch_id = :batch AND withdrawn_at IS NOT NULL"
)

# The file before gave crops at its end that were withdrawn when this one went on from there.
_TAKE_BEFORE_AGAIN = text(
    "UPDATE camera_file b SET state = 'begun', attempts = 0 FROM camera_file f WHERE f.batch_id = :batch "
    "AND b.camera = f.camera AND b.leaves = f.follows AND b.state = 'taken' RETURNING b.path"
)


def undo(
    store: Store, crops: CropStore, batch: int, *, operator: str, reason: str, is_replaced: bool = False
) -> Undone:
    """Undoes a batch in one transaction, with an audit row, and removes pictures after it.

    is_replaced: the recorded file of the batch is taken in again at once; else the file that it followed is.

    A batch that was undone already is left as it is; pictures that an interrupted undo left are removed. Raises
    InputError if there is no such batch.
    """
    with store.begin() as connection:
        lock_crops(connection)
        row = connection.execute(
            text("SELECT name, undone_at FROM ingest_batch WHERE id = :batch"), {"batch": batch}
        ).one_or_none()
        if row is None:
            raise InputError(f"there is no batch {batch}; `urban-reid ingest list` shows them")
        withdrawn, kept = ([], []) if row.undone_at is not None else _withdraw(store, connection, batch)
        again: list[str] = []
        if row.undone_at is None:
            if not is_replaced:
                again = list(connection.scalars(_TAKE_BEFORE_AGAIN, {"batch": batch}))
            _close(connection, batch, row.name, operator, reason, len(withdrawn), len(kept))
            remove_of_batch(connection, store.settings, batch)
            _remove_states(store, connection, batch)
    return Undone(
        batch,
        len(withdrawn),
        len(kept),
        remove_pictures(store, crops, batch),
        tuple(sorted({changed.camera.partition("/")[0] for changed in (*withdrawn, *kept)})),
        tuple(sorted(again)),
    )


def _withdraw(store: Store, connection: Connection, batch: int) -> tuple[Sequence[Row[Any]], Sequence[Row[Any]]]:
    """The rows of the crops that were withdrawn, and of those that other batches keep."""
    at = {"batch": batch}
    connection.execute(text("DELETE FROM crop_claim WHERE batch_id = :batch"), at)
    connection.execute(_LEAVE_TRUTHS, at)
    kept = connection.execute(_HAND_OVER, at).all()
    withdrawn = connection.execute(_WITHDRAW, at).all()
    _forget(connection, withdrawn)
    changed = ((row.camera, row.captured_at) for row in (*withdrawn, *kept))
    watermarks.mark_crops(connection, changed, store.settings.association.window_s)
    return withdrawn, kept


def withdraw(store: Store, connection: Connection, keys: Sequence[bytes], batches: Sequence[int]) -> set[int]:
    """Has crops that only these batches brought take no part any more; returns those of the batches that they were of.

    Their pictures go with `remove_pictures` of these, after the transaction.
    """
    of = {"keys": list(keys), "batches": list(batches)}
    withdrawn = connection.execute(_WITHDRAW_SOME, of).all()
    ids = [row.id for row in withdrawn]
    connection.execute(text("DELETE FROM crop_claim WHERE crop_id = ANY(:ids)"), {"ids": ids})
    remove_without_crops(connection, store.settings, ids)
    _forget(connection, withdrawn)
    changed = ((row.camera, row.captured_at) for row in withdrawn)
    watermarks.mark_crops(connection, changed, store.settings.association.window_s)
    return {row.batch_id for row in withdrawn}


def _forget(connection: Connection, withdrawn: Sequence[Row[Any]]) -> None:
    """Removes the features, attributes and truths of withdrawn crops."""
    ids, days = [row.id for row in withdrawn], list({row.day for row in withdrawn})
    connection.execute(
        text("DELETE FROM crop_embedding WHERE day = ANY(:days) AND crop_id = ANY(:ids)"), {"days": days, "ids": ids}
    )
    for table in ("crop_attributes", "crop_truth"):
        connection.execute(text(f"DELETE FROM {table} WHERE crop_id = ANY(:ids)"), {"ids": ids})  # nosec B608


def _remove_states(store: Store, connection: Connection, batch: int) -> None:
    """Removes the state that a recorded file of the batch left for the one that follows it: it holds pictures."""
    query = text("SELECT camera, leaves FROM camera_file WHERE batch_id = :batch AND leaves IS NOT NULL")
    for row in connection.execute(query, {"batch": batch}):
        (store.settings.look_states_dir / row.camera / row.leaves).unlink(missing_ok=True)


def _close(
    connection: Connection, batch: int, name: str, operator: str, reason: str, withdrawn: int, kept: int
) -> None:
    connection.execute(
        text(
            "UPDATE ingest_batch SET undone_at = now(), undone_by = :operator, undo_reason = :reason WHERE id = :batch"
        ),
        {"batch": batch, "operator": operator, "reason": reason},
    )
    details = {"batch": batch, "name": name, "crops": withdrawn, "kept": kept}
    audit(connection, operator, Action.INGEST_UNDO, reason=reason, details=details)


def remove_pictures(store: Store, crops: CropStore, batch: int) -> int:
    """Removes the pictures of withdrawn crops of the batch that nothing else holds; returns how many were there."""
    with store.begin() as connection:
        rows = connection.execute(_WITHDRAWN, {"batch": batch})
        withdrawn = [(Place(row.district, row.day), bytes(row.picture)) for row in rows]
    removed = 0
    for part in parts(withdrawn):
        with store.begin() as connection:
            lock_crops(connection)  # nobody stores the same picture meanwhile
            removed += crops.remove(unheld(connection, "crops", part))
    return removed
