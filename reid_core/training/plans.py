"""Settings of a training run: the paper's for each strategy, and their learning rate over time (paper, 'Training
strategies' and 'Baselines').
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from reid_core.training.methods import METHODS, MethodName
from schemas.cards import ModelConfig

Strategy = Literal["plain", "joint", "separate"]
TripletDistance = Literal["training", "test"]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides a run's weights, except the first weights and the pictures.

    The defaults are the paper's for BagTricks, plain and joint; `paper_settings` returns those of all.
    """

    strategy: Strategy = "joint"
    triplet: Literal["batch_hard", "weighted", "circle"] = "batch_hard"  # circle: post-BN feature, plain only
    margin: float | None = 0.3  # of the batch-hard triplet; None is the soft margin
    triplet_weight: float = 1.0  # 10 in separate training
    # The triplet's distances. training: the paper's ||x' - y'||, or plain distances of the pre-BN feature. test: those
    # that the model is tested with, of x' and y', or of the post-BN feature, after L2 normalization.
    triplet_distance: TripletDistance = "training"
    label_smoothing: float = 0.1  # of the cross-entropy on the post-BN feature
    center_weight: float = 5e-4  # of the center loss on the pre-BN feature; 0: none
    center_learning_rate: float = 0.5  # of the centers' SGD
    epochs: int = 120
    learning_rate: float = 3.5e-4  # Adam's, after warm-up and before decay
    module_start: float = 0.0  # joint: share of the epochs after which the module begins to learn
    weight_decay: float = 5e-4  # Adam's, added to the gradient
    warmup: float = 10 / 120  # share of the epochs over which the rate grows from 1 %
    milestones: tuple[float, ...] = (40 / 120, 70 / 120)  # shares of the epochs at which the rate is multiplied by 0.1
    identities_per_batch: int = 16  # P
    pictures_per_identity: int = 4  # K
    clip_norm: float | None = None  # largest norm of the gradient over all trained parameters; None: no limit
    average_decay: float = 0.0  # of the moving average of the weights, which replaces them at the end; 0: none
    cached_views: int = 0  # separate: augmented views per picture whose features are kept; 0: new views each epoch
    seed: int = 0  # of batches, augmentation, dropout and centers
    validate_every: int = 10  # epochs between validations; the last epoch always has one
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: with momentum 0.9
    backbone_share: float = 1.0  # of the learning rate, for the backbone
    # How the rate falls. steps: at the milestones. cosine: over the whole run, to 0.2 %. exponential: from the first
    # milestone on, to 0.1 % at the end.
    decay: Literal["steps", "cosine", "exponential"] = "steps"
    crop: bool = True  # augmentation: padding and random crop
    erase: bool = True  # augmentation: random erasing


#: Settings that plans written before version 0.3 do not state.
_LATER = ("optimizer", "backbone_share", "decay", "crop", "erase")


def described(plan: TrainSettings) -> dict[str, Any]:
    """The plan as JSON for cards and checkpoints. Later settings are left out at their defaults, as in earlier ones."""
    usual = {field.name: field.default for field in fields(plan) if field.name in _LATER}
    return {name: value for name, value in asdict(plan).items() if name not in usual or value != usual[name]}


def described_config(config: ModelConfig) -> dict[str, Any]:
    """As `described`, of a model's configuration."""
    return config.model_dump(mode="json", exclude=None if config.cameras else {"cameras"})


def paper_settings(strategy: Strategy, method: MethodName) -> TrainSettings:
    """The settings of a strategy and a method: the paper's, and for others their own papers' (`methods`).

    Joint training of a method has its own optimizer and losses, with the triplet loss on attended distances in place of
    its own, or in addition where it has none. Separate training is the same for all.
    """
    triplet: Literal["batch_hard", "weighted"] = "weighted" if method == "agw" else "batch_hard"
    if strategy != "separate":
        plan = replace(TrainSettings(strategy=strategy, triplet=triplet), **METHODS[method].settings)
        return replace(plan, triplet_weight=1.0) if strategy == "joint" else plan
    return TrainSettings(
        strategy=strategy,
        triplet=triplet,
        margin=None,
        triplet_weight=10,
        epochs=60,
        learning_rate=0.05,
        warmup=0,
        milestones=(20 / 60, 40 / 60),
    )


def learning_rate(plan: TrainSettings, moment: float) -> float:
    """The optimizer's learning rate at `moment`, in epochs from 0: linear warm-up from 1 %, then as `decay` says."""
    share = moment / plan.epochs
    match plan.decay:
        case "steps":
            factor = 0.1 ** sum(share >= milestone for milestone in plan.milestones)
        case "cosine":
            factor = 0.002 + 0.998 * (1 + math.cos(math.pi * share)) / 2
        case "exponential":
            start = plan.milestones[0]
            factor = 0.001 ** (max(0.0, share - start) / (1 - start))
    rate = plan.learning_rate * factor
    return rate * (0.01 + 0.99 * share / plan.warmup) if share < plan.warmup else rate
