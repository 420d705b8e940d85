"""The optimizer of a run: which parameters it changes, and at which share of the learning rate."""

import torch
from torch import nn

from reid_core.models import ReIDModel
from reid_core.training.frozen import FrozenEmbedder
from reid_core.training.plans import TrainSettings


def optimizer_of(model: ReIDModel | FrozenEmbedder, trained: nn.Module, plan: TrainSettings) -> torch.optim.Optimizer:
    """Adam or SGD over the parameters of `trained`, a part of `model`.

    Each group states its `share` of the learning rate, and whether it is joint training's diff attention (`of_module`).
    """
    parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    attention = model.diff_attention if plan.strategy == "joint" else None
    module = set() if attention is None else set(attention.parameters())
    backbone = set(model.backbone.parameters()) if isinstance(model, ReIDModel) else set()
    groups = [
        {"params": [p for p in parameters if p in backbone], "share": plan.backbone_share, "of_module": False},
        {"params": [p for p in parameters if p not in backbone | module], "share": 1.0, "of_module": False},
        {"params": [p for p in parameters if p in module], "share": 1.0, "of_module": True},
    ]
    used = [group for group in groups if group["params"]]
    if plan.optimizer == "sgd":
        return torch.optim.SGD(used, lr=plan.learning_rate, momentum=0.9, weight_decay=plan.weight_decay)
    return torch.optim.Adam(used, weight_decay=plan.weight_decay, fused=True)
