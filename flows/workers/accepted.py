"""What may be run of what Prefect's API says: a flow of ours by its name, with ids, codes and times as parameters.

Nothing else of a row is read: no entry point, code, command, environment, image, block or template.
"""

from collections.abc import Mapping
from typing import Any

from prefect import Flow
from pydantic import BaseModel, ValidationError

from flows.names import FlowRole
from flows.resolve import FLOWS
from flows.search import search
from flows.training import training
from schemas.errors import UsageError
from schemas.parameters import RequestParameters, ResolveParameters

_Taken = tuple[Flow[..., Any], type[BaseModel]]

#: By role and name of the flow: the flow, and the model of its parameters.
ACCEPTED: Mapping[FlowRole, Mapping[str, _Taken]] = {
    "resolve": {flow.name: (flow, ResolveParameters) for flow in FLOWS.values()},
    "search": {search.name: (search, RequestParameters)},
    "training": {training.name: (training, RequestParameters)},
}


def accepted(role: FlowRole, flow: str, parameters: object) -> tuple[Flow[..., Any], BaseModel]:
    """The flow of this name with its validated parameters, `{"parameters": ...}` as a run's row has them.

    Raises UsageError for a flow that is not of the role, and for other parameters; its text repeats neither.
    """
    found = ACCEPTED[role].get(flow)
    if found is None:
        raise UsageError(f"the work pool of role {role} runs {', '.join(sorted(ACCEPTED[role]))}, and no other flow")
    known, model = found
    if not isinstance(parameters, dict) or parameters.keys() != {"parameters"}:
        raise UsageError("the run's parameters are not those of its flow")
    try:
        return known, model.model_validate(parameters["parameters"])
    except ValidationError:
        raise UsageError("the run's parameters are not those of its flow") from None
