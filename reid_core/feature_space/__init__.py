"""Feature spaces: raw features made comparable between cameras.

Cameras shift features: light, angle and lens move everybody's the same way. A feature space takes each camera's own
mean off, and may express what is left in a basis, in which one person's features spread alike in all directions and a
direction counts by how much it tells people apart. It is applied to each crop, before prototypes.
"""

from reid_core.feature_space.learning import learn_basis, learn_means, mutual_neighbors, shared_votes
from reid_core.feature_space.space import Basis, FeatureSpace

__all__ = ["Basis", "FeatureSpace", "learn_basis", "learn_means", "mutual_neighbors", "shared_votes"]
