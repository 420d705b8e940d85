"""Search calibrations of packaged models reach homes that registered the model before its card had them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from sqlalchemy import text

import reid_core
from pipeline.governance.audit import Action, audit
from pipeline.registry.rows import SELECT, insert_search_calibration, row_of
from pipeline.store import Store
from reid_core.files import model_digest, read_card
from schemas.cards import ModelCard

_FOLDER = Path(reid_core.__file__).parent / "weights"
#: In the details of a registered model's card.
_EARLIER = "earlier_search_calibrations"
_SEARCHES = text("SELECT count(*) FROM calibration WHERE model_id = :model AND purpose = 'search'")
_CARD = text("UPDATE model SET card = CAST(:card AS jsonb) WHERE id = :id")


def take_over_packaged(store: Store) -> None:
    """Gives each registered model the search calibrations of the packaged model that it is.

    A home keeps the card that a model had when it was registered. Searches that `models calibrate` learned here stay,
    and then nothing is taken over. Can be called again and does nothing then.
    """
    packaged = _packaged()
    with store.begin() as connection:
        registered = f"{SELECT} WHERE digest = ANY(CAST(:packaged AS bytea[])) ORDER BY id"
        ours = {"packaged": list(packaged)}
        known = [row_of(row) for row in connection.execute(text(registered), ours)]
        if all(row.card.search_calibration == packaged[row.digest].search_calibration for row in known):
            return
        for row in map(row_of, connection.execute(text(f"{registered} FOR UPDATE"), ours).all()):
            card = packaged[row.digest]
            own = len(row.card.search_calibration) + earlier_searches(row.card)
            learned_here = connection.scalar(_SEARCHES, {"model": row.id}) > own
            if learned_here or row.card.search_calibration == card.search_calibration:
                continue
            for calibration in card.search_calibration:
                insert_search_calibration(connection, row.id, calibration)
            # Earlier rows stay, since searches refer to them; they are the card's own too.
            more = {"search_calibration": card.search_calibration, "details": row.card.details | {_EARLIER: own}}
            taken = row.card.model_copy(update=more)
            connection.execute(_CARD, {"card": taken.model_dump_json(), "id": row.id})
            details = {"model": row.name, "searches": [known.level.value for known in card.search_calibration]}
            audit(connection, store.settings.operator, Action.MODEL_CALIBRATE, details=details)


def is_packaged(digest: bytes) -> bool:
    """Whether a model with this digest comes with the program."""
    return digest in _packaged()


def earlier_searches(card: ModelCard) -> int:
    """Number of rows of earlier search calibrations of the card, which a later one has replaced."""
    return int(card.details.get(_EARLIER, 0))


@cache  # each search asks, and the package does not change meanwhile
def _packaged() -> Mapping[bytes, ModelCard]:
    cards = [read_card(folder) for folder in sorted(_FOLDER.iterdir()) if folder.is_dir()]
    return {model_digest(card): card for card in cards}
