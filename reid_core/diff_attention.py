"""Diff attention: gates the channels of two features by their difference (paper, 'Diff attention module').

    f  = w1 * t(x - y) + w2 * x + w3 * y + b        t: sub | sub_squ | sub_abs
    a  = sigmoid(W2 relu(W1 f))
    x' = a * x,  y' = a * y                         the same gate for both, no residual

Notable: distances are computed without x' and y'; for `sub`, W1's product is computed once per feature instead of once
per pair; memory is bounded by `BLOCK_VALUES` for any number of pairs. The distance is not symmetric: the first argument
is the query.
"""

import torch
from torch import Tensor, nn

from reid_core.training_distances import Weights, training_distances
from schemas.cards import DiffAttentionSettings
from schemas.errors import CoreError

#: Rows of each matrix product of `decision_distances`.
PRODUCT_ROWS = 32
#: Values of the largest temporary tensor of a block of pairs: 64 MB in float32.
BLOCK_VALUES = 2**24


class DiffAttention(nn.Module):
    """The module, 2 * D * (D/r) + 4 parameters. Raises CoreError where r is larger than D.

    Initialized near the plain metric: w = (1, 0, 0) and b = 0, so that the gate depends on the difference alone; W1 by
    He's rule; W2 so small that the gate's logits have a standard deviation near 0.1, that is a = 0.5 +- 0.03. With
    W2 = 0, W1 would have no gradient; with the usual scale, training would begin with randomly chosen channels.
    """

    def __init__(self, dims: int, settings: DiffAttentionSettings) -> None:
        super().__init__()
        hidden = dims // settings.reduction
        if hidden == 0:
            raise CoreError(f"diff attention with reduction {settings.reduction} has no hidden channel at {dims} dims")
        self.dims = dims
        self.settings = settings
        self.mix = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))  # w1, w2, w3
        self.bias = nn.Parameter(torch.tensor(0.0))  # b
        self.squeeze = nn.Linear(dims, hidden, bias=False)  # W1
        self.excite = nn.Linear(hidden, dims, bias=False)  # W2
        nn.init.kaiming_normal_(self.squeeze.weight, nonlinearity="relu")
        nn.init.normal_(self.excite.weight, std=0.1 / hidden**0.5 / 2)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The attended features x', y' (n, D) of the row pairs x, y (n, D); for few pairs."""
        gate = self.gate(x, y)
        return gate * x, gate * y

    def gate(self, x: Tensor, y: Tensor) -> Tensor:
        """The gate a (..., D), 0..1, of x and y, whose shapes broadcast."""
        w1, w2, w3 = self.mix
        mixed = w1 * self._transform(x - y) + w2 * x + w3 * y + self.bias
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(mixed))))

    def pair_distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Test distances (n,) of the row pairs x, y (n, D), as `distance_matrix` with `normalize` gives them."""
        assert x.shape == y.shape and x.shape[1] == self.dims, f"{tuple(x.shape)} and {tuple(y.shape)}"
        rows = max(1, BLOCK_VALUES // self.dims)
        blocks = [
            _distance(self.gate(a, b), a, b) for a, b in zip(torch.split(x, rows), torch.split(y, rows), strict=True)
        ]
        return torch.cat(blocks) if blocks else x.new_zeros(0)

    @torch.inference_mode()
    def decision_distances(self, x: Tensor, y: Tensor) -> Tensor:
        """`pair_distances` in the module's precision, with the same bits for a row pair whatever the other pairs are.

        Products of other shapes differ in their last bits, so each has `PRODUCT_ROWS` rows; all else works row by row.
        Its memory grows with n.
        """
        w1, w2, w3 = (float(weight) for weight in self.mix.detach())
        mixed = self._transform(x - y).mul_(w1).add_(x * w2).add_(y * w3).add_(float(self.bias.detach()))
        gate = _product(_product(mixed, self.squeeze.weight).relu_(), self.excite.weight).sigmoid_()
        gate.mul_(gate)
        cross, left, right = (torch.mul(a, b, out=mixed).mul_(gate).sum(-1) for a, b in ((x, y), (x, x), (y, y)))
        cosine = cross.div_(left.mul_(right).clamp_(min=torch.finfo(x.dtype).tiny).sqrt_())
        return cosine.mul_(-2).add_(2).clamp_(min=0).sqrt_()  # as `_distance`, without its temporary tensors

    def distance_matrix(self, x: Tensor, y: Tensor, *, normalize: bool) -> Tensor:
        """Distances (m, n) of all pairs of x (m, D), the queries, and y (n, D).

        normalize=False: ||x' - y'||, the training distance, with a zero gradient where it is zero.
        normalize=True: Euclidean distance of x' and y' after L2 normalization, in 0..2, the test distance.
        """
        assert x.shape[1] == y.shape[1] == self.dims, f"{tuple(x.shape)} and {tuple(y.shape)}"
        weights = Weights(self.settings.transform, self.mix, self.bias, self.squeeze.weight, self.excite.weight)
        return training_distances(x, y, weights, normalize=normalize)

    def _transform(self, difference: Tensor) -> Tensor:
        match self.settings.transform:
            case "sub":
                return difference
            case "sub_squ":
                return difference.square()
            case "sub_abs":
                return difference.abs()


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T (n, m), x (n, D) in blocks of PRODUCT_ROWS; the last is padded with zeros."""
    found = x.new_empty(len(x), len(weight))
    whole = len(x) - len(x) % PRODUCT_ROWS
    for start in range(0, whole, PRODUCT_ROWS):
        rows = slice(start, start + PRODUCT_ROWS)
        torch.mm(x[rows], weight.T, out=found[rows])
    if whole < len(x):
        rest = x.new_zeros(PRODUCT_ROWS, x.shape[1])
        rest[: len(x) - whole] = x[whole:]
        found[whole:] = torch.mm(rest, weight.T)[: len(x) - whole]
    return found


def _distance(gate: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (n,) of gate * x and gate * y (n, D) after L2 normalization, without building these."""
    # |x'/|x'| - y'/|y'||^2 = 2 - 2 S(a^2 x y) / sqrt(S(a^2 x^2) S(a^2 y^2))
    squared_gate = gate.square()
    cross = (squared_gate * (x * y)).sum(-1)
    lengths = (squared_gate * x.square()).sum(-1) * (squared_gate * y.square()).sum(-1)
    cosine = cross / lengths.clamp(min=torch.finfo(x.dtype).tiny).sqrt()
    return (2 - 2 * cosine).clamp(min=0).sqrt()
