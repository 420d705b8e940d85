"""Settings of a training run: the paper's for each strategy, and their learning rate over time (paper, 'Training
strategies' and 'Baselines').
"""

from dataclasses import dataclass
from typing import Literal

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


def paper_settings(strategy: Strategy, baseline: Literal["bagtricks", "agw"]) -> TrainSettings:
    """The paper's settings of a strategy and a baseline."""
    triplet: Literal["batch_hard", "weighted"] = "weighted" if baseline == "agw" else "batch_hard"
    if strategy != "separate":
        return TrainSettings(strategy=strategy, triplet=triplet)
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
    """Adam's learning rate at `moment`, in epochs from 0: linear warm-up from 1 %, then x 0.1 at each milestone."""
    share = moment / plan.epochs
    rate = plan.learning_rate * 0.1 ** sum(share >= milestone for milestone in plan.milestones)
    return rate * (0.01 + 0.99 * share / plan.warmup) if share < plan.warmup else rate
