"""The state of a training run in one safetensors file: its tensors, and everything else as JSON in the metadata.

It needs no state of random generators: batches, augmentation and dropout are drawn from (seed, epoch, batch).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from reid_core.tensors import read_tensors
from reid_core.training.log import EpochRecord
from schemas.cards import current_names
from schemas.disk import replacing
from schemas.errors import CoreError

CHECKPOINT = "checkpoint.safetensors"


@dataclass
class Position:
    """The position of a run: the records of its complete epochs, and its place in the next one."""

    records: list[EpochRecord] = field(default_factory=list)
    batches: int = 0  # done in this epoch
    sums: dict[str, float] = field(default_factory=dict)  # of each loss over these batches
    seconds: float = 0.0  # time of these batches


def save_checkpoint(
    directory: Path, identity: Mapping[str, object], position: Position, tensors: Mapping[str, Tensor]
) -> None:
    """Writes the state, whole or not at all, in place of the one before. `identity` identifies the run."""
    text = json.dumps({"identity": identity, "position": asdict(position)})
    with replacing(directory / CHECKPOINT) as partial:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial, {"run": text})


def load_checkpoint(directory: Path, identity: Mapping[str, object]) -> tuple[Position, dict[str, Tensor]] | None:
    """Position and tensors of the run `identity`, None without a checkpoint.

    Raises CoreError for a checkpoint of another run, and ModelFileError for a damaged one.
    """
    path = directory / CHECKPOINT
    if not path.exists():
        return None
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        saved: Any = current_names(json.loads((file.metadata() or {}).get("run", "{}")))
    if saved.get("identity") != json.loads(json.dumps(identity)):
        raise CoreError(
            f"{path}: is the checkpoint of another model, other settings or pictures; "
            "choose another directory or remove it"
        )
    if "centres" in tensors:  # codespell:ignore centres
        tensors["centers"] = tensors.pop("centres")  # as version 0.1 spelled it  # codespell:ignore centres
    position = saved["position"]
    records = [EpochRecord(**record) for record in position.pop("records")]
    return Position(records, **position), tensors
