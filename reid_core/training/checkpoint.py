"""A training run's whole state in one safetensors file: tensors, and as JSON what is no tensor.

No state of a random generator is among it: batches, augmentation and dropout are drawn from (seed, epoch, batch).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from reid_core.tensors import read_tensors
from reid_core.training.log import EpochRecord
from schemas.disk import replacing
from schemas.errors import CoreError

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Position:
    """How far a run has come: whole epochs, and batches of the one after them."""

    records: list[EpochRecord] = field(default_factory=list)
    batches: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each loss over these batches
    seconds: float = 0.0  # that these batches took


def save_checkpoint(
    directory: Path, identity: Mapping[str, object], position: Position, tensors: Mapping[str, Tensor]
) -> None:
    """Writes the state in place of the one before or not at all. `identity` says which run it is of."""
    text = json.dumps({"identity": identity, "position": asdict(position)})
    with replacing(directory / CHECKPOINT) as partial:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial, {"run": text})


def load_checkpoint(directory: Path, identity: Mapping[str, object]) -> tuple[Position, dict[str, Tensor]] | None:
    """Position and tensors of the run `identity`, None where there is no checkpoint. Raises CoreError for another's."""
    path = directory / CHECKPOINT
    if not path.exists():
        return None
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        saved = json.loads((file.metadata() or {}).get("run", "{}"))
    if saved.get("identity") != json.loads(json.dumps(identity)):
        raise CoreError(
            f"{path}: a checkpoint of another model, other settings or pictures; choose another directory or remove it"
        )
    position = saved["position"]
    records = [EpochRecord(**record) for record in position.pop("records")]
    return Position(records, **position), tensors
