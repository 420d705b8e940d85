"""The training losses (paper, 'Training strategies' and 'Baselines').

Triplet losses take a matrix of distances, plain or attended. Row i holds the distances from anchor i, column j those to
picture j of the same batch; the matrix need not be symmetric. A picture is never its own positive: its distance to
itself is 0, and would only dilute the weights of the weighted loss. The circle loss takes cosines instead of distances.
The cross-entropy with label smoothing is torch's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pairs(identities: Tensor) -> tuple[Tensor, Tensor]:
    """Two boolean (n, n) masks of `identities` (n,): positives (same identity, not the picture itself) and negatives.

    Every row must have both, as every row has in the sampler's batches of P identities x K pictures.
    """
    same = identities[:, None] == identities[None, :]
    positives = same & ~torch.eye(len(identities), dtype=torch.bool, device=identities.device)
    assert positives.any(1).all() and (~same).any(1).all(), "each picture needs a positive and a negative in its batch"
    return positives, ~same


def batch_hard_triplet(distances: Tensor, identities: Tensor, margin: float | None) -> Tensor:
    """Mean over anchors of max(0, farthest positive - nearest negative + margin), a scalar.

    `distances` (n, n) float, `identities` (n,) integer. With `margin` None the soft margin log(1 + exp(.)) is used.
    """
    positives, negatives = pairs(identities)
    farthest = distances.masked_fill(~positives, -torch.inf).amax(1)
    nearest = distances.masked_fill(~negatives, torch.inf).amin(1)
    gap = farthest - nearest  # (n,)
    return (F.softplus(gap) if margin is None else F.relu(gap + margin)).mean()


def weighted_regularized_triplet(distances: Tensor, identities: Tensor) -> Tensor:
    """AGW's triplet, a scalar: mean over anchors of log(1 + exp(S w_p d_p - S w_n d_n)).

    The weights are softmax(d) over the positives and softmax(-d) over the negatives, and have a gradient, as published.
    `distances` (n, n) float, `identities` (n,) integer.
    """
    positives, negatives = pairs(identities)
    positive_weights = distances.masked_fill(~positives, -torch.inf).softmax(1)
    negative_weights = (-distances).masked_fill(~negatives, -torch.inf).softmax(1)
    return F.softplus(((positive_weights - negative_weights) * distances).sum(1)).mean()


def circle_loss(similarities: Tensor, identities: Tensor, *, margin: float = 0.25, gamma: float = 128.0) -> Tensor:
    """Circle loss over pairs, a scalar (Sun et al., CVPR 2020; m and gamma as published for re-ID).

    Mean over anchors of log(1 + S_n exp(gamma a_n (s_n - m)) S_p exp(-gamma a_p (s_p - 1 + m))) with the weights
    a_n = max(0, s_n + m) and a_p = max(0, 1 + m - s_p). The weights have no gradient, which gives the gradient of the
    paper. `similarities` (n, n) float are cosines of features that the caller has L2-normalized; `identities` (n,)
    integer.
    """
    positives, negatives = pairs(identities)
    weights = similarities.detach()
    attract = gamma * F.relu(1 + margin - weights) * (1 - margin - similarities)
    repel = gamma * F.relu(weights + margin) * (similarities - margin)
    attracted = attract.masked_fill(~positives, -torch.inf).logsumexp(1)
    return F.softplus(attracted + repel.masked_fill(~negatives, -torch.inf).logsumexp(1)).mean()


class CenterLoss(nn.Module):
    """Mean squared distance of features to their identity's center; the centers (C, D) are parameters, from N(0, 1).

    The total loss has it with weight 5e-4. The centers' gradient is divided by that weight again (`undo_weight`), so
    that their SGD with rate 0.5 does not depend on it.
    """

    def __init__(self, identities: int, dims: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(identities, dims))

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """`features` (n, D) pre-BN, `labels` (n,) integer in 0..C-1 -> scalar."""
        assert features.ndim == 2 and features.shape[1] == self.centers.shape[1]
        return (features - self.centers[labels]).square().sum(1).mean()

    def undo_weight(self, weight: float) -> None:
        """Divides the centers' gradient by the loss's weight in the total. Call it between backward and step."""
        if self.centers.grad is not None:
            self.centers.grad.div_(weight)
