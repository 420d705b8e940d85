"""The methods by name: how each is trained, and on what, as its own paper says.

| baseline  | paper                                                  | losses                                         |
|-----------|--------------------------------------------------------|-------------------------------------------------|
| bagtricks | the paper, 'Baselines'                                 | cross-entropy, triplet, centers                 |
| agw       | the paper, 'Baselines'                                 | the same, with the weighted triplet             |
| osnet     | Zhou et al., ICCV 2019, trained as BagTricks           | cross-entropy, triplet, centers                 |
| circle    | Sun et al., CVPR 2020, trained as BagTricks            | cross-entropy, circle loss, centers             |
| trinet    | Hermans et al., 'In defense of the triplet loss', 2017 | soft-margin triplet alone                       |
| pcb       | Sun et al., ECCV 2018, without refined part pooling    | a cross-entropy for each stripe                 |
| mgn       | Wang et al., ACM Multimedia 2018                       | mean of 8 cross-entropies, mean of 3 triplets   |
| cbn       | Zhuang et al., ECCV 2020                               | cross-entropy                                   |
| transreid | He et al., ICCV 2021, patches that do not overlap      | both, of the whole and a quarter of each group |

Where the framework decides and no paper: every method is tested by the concatenation of its parts' features, batches
are P identities x K pictures, warm-up begins at 1 %, and one learning rate holds for weights and biases. TriNet's
25,000 steps are the 140 epochs that they are on Market-1501; its ten views of a test picture are one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.cards import Baseline, InputConvention

#: A baseline, or one of the two methods that are BagTricks but for their backbone or their triplet loss.
MethodName = Baseline | Literal["osnet", "circle"]


@dataclass(frozen=True)
class Method:
    """title: as the paper writes it. baseline: of its models. settings: fields of `TrainSettings` in plain and joint
    training that differ from BagTricks'. architecture, input: of the method's paper.
    """

    title: str
    baseline: Baseline
    settings: Mapping[str, Any] = field(default_factory=dict)
    architecture: str = "resnet50"
    input: InputConvention = field(default_factory=InputConvention)


_NO_CENTERS: Mapping[str, Any] = {"center_weight": 0.0, "label_smoothing": 0.0}
_SGD: Mapping[str, Any] = {**_NO_CENTERS, "optimizer": "sgd", "learning_rate": 0.01, "warmup": 0.0}

METHODS: Mapping[MethodName, Method] = {
    "bagtricks": Method("BagTricks", "bagtricks"),
    "agw": Method("AGW", "agw"),
    "osnet": Method("OSNet", "bagtricks", architecture="osnet_x1_0"),
    "circle": Method("Circle", "bagtricks", {"triplet": "circle"}),
    "trinet": Method(
        "TriNet",
        "trinet",
        {
            **_NO_CENTERS,
            "margin": None,
            "identities_per_batch": 18,
            "learning_rate": 3e-4,
            "weight_decay": 0.0,
            "epochs": 140,
            "warmup": 0.0,
            "decay": "exponential",
            "milestones": (0.6,),
            "erase": False,
        },
    ),
    "pcb": Method(
        "PCB",
        "pcb",
        {
            **_SGD,
            "triplet_weight": 0.0,
            "learning_rate": 0.1,
            "backbone_share": 0.1,
            "epochs": 60,
            "milestones": (40 / 60,),
            "crop": False,
            "erase": False,
        },
        input=InputConvention(height=384, width=128),
    ),
    "mgn": Method(
        "MGN",
        "mgn",
        {**_SGD, "margin": 1.2, "epochs": 80, "milestones": (40 / 80, 60 / 80), "crop": False, "erase": False},
        input=InputConvention(height=384, width=128),
    ),
    "cbn": Method(
        "CBN",
        "cbn",
        {**_SGD, "triplet_weight": 0.0, "epochs": 60, "milestones": (40 / 60,), "erase": False},
    ),
    "transreid": Method(
        "TransReID",
        "transreid",
        {
            **_SGD,
            "margin": None,
            "learning_rate": 0.008,
            "weight_decay": 1e-4,
            "warmup": 5 / 120,
            "decay": "cosine",
        },
        architecture="timm:vit_base_patch16_224",
        input=InputConvention(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    ),
}
