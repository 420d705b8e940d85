"""A registered model's operating point: kept in its card, in the folder and in the row."""

from sqlalchemy import text

from pipeline.audit import audit
from pipeline.models import ModelRow
from pipeline.store import Store
from reid_core.files import write_card
from schemas.cards import OperatingPoint


def keep_operating_point(store: Store, model: ModelRow, point: OperatingPoint) -> None:
    """What a model computes does not change by it, nor its digest."""
    card = model.card.model_copy(update={"operating_point": point})
    with store.begin() as connection:
        connection.execute(
            text("UPDATE model SET card = CAST(:card AS jsonb) WHERE id = :id"),
            {"card": card.model_dump_json(), "id": model.id},
        )
        details = {"model": model.name, "operating_point": point.model_dump(mode="json")}
        audit(connection, store.settings.operator, "model.operating_point", details=details)
        # Last in the transaction, so that a folder that cannot be written leaves the row as it is.
        write_card(card, model.directory(store.settings))
