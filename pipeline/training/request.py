"""What a training run is asked for: who asks, why, and for which model, in the city's database."""

import json
from uuid import UUID

from sqlalchemy import text

from pipeline.store import Store
from schemas.errors import InputError
from schemas.parameters import TrainParameters


def request_training(store: Store, parameters: TrainParameters) -> UUID:
    """Writes down what is asked for. Returns the request's id, which is all that a flow run is told."""
    asked = parameters.model_dump(mode="json", exclude={"operator", "reason"})
    with store.begin() as connection:
        request: UUID = connection.execute(
            text(
                "INSERT INTO training_request (operator, reason, parameters) "
                "VALUES (:operator, :reason, CAST(:parameters AS jsonb)) RETURNING id"
            ),
            {"operator": parameters.operator, "reason": parameters.reason, "parameters": json.dumps(asked)},
        ).scalar_one()
    return request


def read_training_request(store: Store, request: UUID) -> TrainParameters:
    """Raises InputError if there is no such request."""
    with store.begin() as connection:
        row = connection.execute(
            text("SELECT operator, reason, parameters FROM training_request WHERE id = :id"), {"id": request}
        ).one_or_none()
    if row is None:
        raise InputError(f"no training was asked for as {request}", do="`urban-reid train` writes a request")
    return TrainParameters.model_validate({**row.parameters, "operator": row.operator, "reason": row.reason})
