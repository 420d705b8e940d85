"""Person re-identification models: open one, embed pictures of people, compare them, evaluate.

    import reid_core

    model = reid_core.open_model(reid_core.DEMO_MODEL)
    features = model.embed(["door-1.jpg", "door-2.jpg"])  # float32 (2, D)
    model.distances(features[:1], features[1:])  # float64 (1, 1), 0..2, small = alike

The names in `__all__` are what this package promises to its users; what lies in its modules may change. Importing the
package loads no torch: each name is imported when it is first used.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reid_core.backbones import register_backbone
    from reid_core.datasets import Dataset, open_dataset
    from reid_core.diff_attention import DiffAttention
    from reid_core.evaluation.ranking import RankingScores
    from reid_core.feature_space import FeatureSpace, learn_basis, learn_means
    from reid_core.library import Model, Picture, evaluate, open_model
    from schemas.cards import DiffAttentionSettings, InputConvention
    from schemas.errors import UrbanReidError

DEMO_MODEL = Path(__file__).parent / "weights" / "demo"
"""The packaged model's directory: small, trained on rendered figures alone, for trying things out."""

__all__ = [
    "DEMO_MODEL",
    "Dataset",
    "DiffAttention",
    "DiffAttentionSettings",
    "FeatureSpace",
    "InputConvention",
    "Model",
    "Picture",
    "RankingScores",
    "UrbanReidError",
    "evaluate",
    "learn_basis",
    "learn_means",
    "open_dataset",
    "open_model",
    "register_backbone",
]

_MODULES = {
    "Dataset": "reid_core.datasets",
    "DiffAttention": "reid_core.diff_attention",
    "DiffAttentionSettings": "schemas.cards",
    "FeatureSpace": "reid_core.feature_space",
    "InputConvention": "schemas.cards",
    "Model": "reid_core.library",
    "Picture": "reid_core.library",
    "RankingScores": "reid_core.evaluation.ranking",
    "UrbanReidError": "schemas.errors",
    "evaluate": "reid_core.library",
    "learn_basis": "reid_core.feature_space",
    "learn_means": "reid_core.feature_space",
    "open_dataset": "reid_core.datasets",
    "open_model": "reid_core.library",
    "register_backbone": "reid_core.backbones",
}

if not TYPE_CHECKING:  # a type checker sees the imports above, and reports any other name

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(_MODULES[name]), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return __all__
