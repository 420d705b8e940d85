"""Names by which Prefect knows our deployments: flow/deployment."""

from schemas.levels import Level

DEPLOYMENT = "urban-reid"
TRAINING = f"training/{DEPLOYMENT}"


def deployment_name(level: Level) -> str:
    """The deployment that resolves units of a level."""
    return f"{level}/{DEPLOYMENT}"
