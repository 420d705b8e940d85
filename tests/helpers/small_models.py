"""Small untrained models in model directories."""

from pathlib import Path

import torch

from reid_core.files import save_model
from reid_core.models import build_model
from schemas.calibration import LevelCalibration, straight_line
from schemas.cards import InputConvention, ModelConfig
from schemas.levels import Level

INPUT = InputConvention(height=64, width=32)
CALIBRATION = LevelCalibration(
    level=Level.STREET,
    terms=straight_line(4.0, 2.0),
    join_log_odds=0.5,
    review_log_odds=-0.5,
    fitted_on="two rendered people",
    pairs=100,
    positives=10,
)


def small_model(directory: Path, seed: int = 0) -> Path:
    """A model with a calibration; another seed is another model."""
    torch.manual_seed(seed)
    save_model(
        build_model(ModelConfig(architecture="resnet10s", input=INPUT)),
        directory,
        name="any",
        calibration=[CALIBRATION],
        half=True,
    )
    return directory
