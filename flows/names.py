"""Names by which Prefect knows our deployments, flow/deployment, and the work pools that workers take runs from."""

from typing import Literal

from schemas.levels import Level

#: What a worker runs: each has a work pool of its own.
FlowRole = Literal["resolve", "search", "training"]

DEPLOYMENT = "urban-reid"
#: Of deployments whose runs workers take. Others than those of `up`, so that both may use one server.
OF_WORKERS = "urban-reid-workers"


def pool_name(role: FlowRole) -> str:
    """The work pool of a role."""
    return f"urban-reid-{role}"


def deployment_name(flow: Level | Literal["search", "training"], by: Literal["here", "workers"] = "here") -> str:
    """The deployment of a flow; of a level, the one that resolves its units. `by`: whether `up` or workers run it."""
    return f"{flow}/{DEPLOYMENT if by == 'here' else OF_WORKERS}"
