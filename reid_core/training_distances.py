"""The attended distances of all pairs of a batch, with their own backward pass.

Computed pair by pair, they would take as long as the backbone in joint training on a CPU. So nothing is computed twice:

    W1 f = w1 * W1 t(x - y) + w2 * W1 x + w3 * W1 y + b * W1 1

The last three products are computed once per picture. For a batch against itself t(x - y) serves both orders, since
|x - y| and (x - y)^2 are symmetric; `sub` needs no product per pair. The backward pass keeps nothing of the pairs: it
computes them again, and only those whose distance has a gradient, which are two per row with hard mining.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: Values of a block's largest tensor, by device: on a CPU 4 MB in float32, which fit into its caches.
BLOCK_VALUES = {"cpu": 2**20, "cuda": 2**24}
#: Squared distances up to this count as 0, without gradient: the gradient of the root is infinite there.
TINY = 1e-12


class Weights(NamedTuple):
    """The module's parameters: `mix` (3,), `bias` (), `squeeze` W1 (D/r, D), `excite` W2 (D, D/r)."""

    transform: str
    mix: Tensor
    bias: Tensor
    squeeze: Tensor
    excite: Tensor


def training_distances(x: Tensor, y: Tensor, weights: Weights, *, normalize: bool) -> Tensor:
    """Distances (m, n) of x' and y' of all pairs of x (m, D) and y (n, D), in the weights' type; differentiable once.

    `normalize`: after L2 normalization. Besides the matrix and 17 bytes per pair, memory holds one block. Where x and y
    are the same tensor, half of the first layer is saved. Distances up to 1e-6 are 0 and have no gradient. Under
    autocast only the matrix products take autocast's type.
    """
    device, dtype = x.device.type, weights.squeeze.dtype
    products = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else dtype
    symmetric = x is y
    x = x.to(dtype)
    y = x if symmetric else y.to(dtype)
    with torch.autocast(device, enabled=False):
        plan = (weights.transform, normalize, symmetric, products)
        distances: Tensor = _TrainingDistances.apply(x, y, *weights[1:], *plan)
    return distances


class _TrainingDistances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        tensors, ctx.plan = inputs[:6], inputs[6:]
        pairs = _Pairs(*tensors, *ctx.plan)
        distances = pairs.distances()
        ctx.save_for_backward(*tensors, distances)
        return distances

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, distances = ctx.saved_tensors
        gradients = _Pairs(*tensors, *ctx.plan).gradients(distances, gradient, features=any(ctx.needs_input_grad[:2]))
        return (*gradients, None, None, None, None)


class _Block(NamedTuple):
    """The k pairs x[left], y[right] of a block, in one order or in both (`orders` is 1 or 2)."""

    left: Tensor  # (k,)
    right: Tensor  # (k,)
    difference: Tensor  # x - y (k, D)
    transformed: Tensor  # t(x - y) (k, D), in the products' type; empty for `sub`
    squeezed: Tensor  # W1 t(x - y) (k, D/r); empty for `sub`
    hidden: Tensor  # relu(W1 f) (orders, k, D/r)
    gate: Tensor  # a (orders, k, D)


class _Normalized(NamedTuple):
    """The pairs of a block after L2 normalization."""

    x: Tensor  # (k, D)
    y: Tensor  # (k, D)
    squared: Tensor  # a^2 (orders, k, D)
    cosine: Tensor  # (orders, k)
    of_x: Tensor  # S(a^2 x^2) (orders, k)
    of_y: Tensor  # S(a^2 y^2) (orders, k)


class _Pairs:
    """What both passes compute of the pairs of x (m, D) and y (n, D); in both orders at once where y is x."""

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        mix: Tensor,
        bias: Tensor,
        squeeze: Tensor,
        excite: Tensor,
        transform: str,
        normalize: bool,
        symmetric: bool,
        products: torch.dtype,
    ) -> None:
        self.x, self.y, self.bias, self.w1 = x, y, bias, mix[0]
        self.transform, self.normalize, self.symmetric, self.products = transform, normalize, symmetric, products
        self.squeeze, self.excite = squeeze.to(products), excite.to(products)
        self.of_x = (x.to(products) @ self.squeeze.T).to(x.dtype)  # W1 x (m, D/r)
        self.of_y = self.of_x if symmetric else (y.to(products) @ self.squeeze.T).to(y.dtype)
        self.of_one = squeeze.sum(1)  # W1 1 (D/r,)
        w1, w2, w3 = mix
        self.x_weight, self.y_weight = (w1 + w2, w3 - w1) if transform == "sub" else (w2, w3)
        self.x_part = self.x_weight * self.of_x
        self.y_part = self.y_weight * self.of_y + bias * self.of_one

    def distances(self) -> Tensor:
        distances = self.x.new_zeros(len(self.x), len(self.y))
        for block in self._blocks(torch.ones_like(distances, dtype=torch.bool)):
            if self.normalize:
                cosine = self._normalized(block).cosine  # (orders, k)
                found = (2 - 2 * cosine).clamp_(min=0).sqrt_()
            else:
                found = torch.linalg.vector_norm(block.gate.mul_(block.difference), dim=-1)
            distances[block.left, block.right] = found[0]
            if self.symmetric:
                distances[block.right, block.left] = found[1]
        return distances.masked_fill_(distances <= TINY**0.5, 0)

    def gradients(self, distances: Tensor, gradient: Tensor, *, features: bool) -> tuple[Tensor | None, ...]:
        """Gradients of x, y, mix, bias, squeeze and excite; where y is x, that of x is the sum of both."""
        slope = torch.where(distances > 0, gradient / distances, 0)
        x_grad, y_grad, squeeze, excite, x_part, y_part = (
            torch.zeros_like(like, dtype=self.x.dtype)
            for like in (self.x, self.y, self.squeeze, self.excite, self.x_part, self.y_part)
        )
        w1 = torch.zeros_like(self.bias)
        for block in self._blocks(slope != 0):
            left, right, difference, transformed, squeezed, hidden, _ = block
            slopes = slope[left, right][None]  # (orders, k)
            if self.symmetric:
                slopes = torch.cat([slopes, slope[right, left][None]])
            logits, *direct = (self._of_normalized if self.normalize else self._of_plain)(block, slopes, features)
            logits = logits.to(self.products).flatten(0, 1)
            excite += logits.T @ hidden.flatten(0, 1).to(self.products)
            inner = (logits @ self.excite).to(hidden.dtype).view_as(hidden).mul_(hidden > 0)  # of W1 f
            # Sums over the pairs of a row are matrix products: fast, and on a GPU always in the same order.
            of_left, of_right = _membership(left, self.x), _membership(right, self.y)
            x_part += of_left @ inner[0]
            y_part += of_right @ inner[0]
            if self.symmetric:
                x_part += of_right @ inner[1]
                y_part += of_left @ inner[1]
            if self.transform != "sub":
                both = inner.sum(0)
                w1 += (both * squeezed).sum()
                both = (self.w1 * both).to(self.products)
                squeeze += both.T @ transformed
                if features:
                    slope_of_t = difference.sign() if self.transform == "sub_abs" else 2 * difference
                    slope_of_t.mul_(both @ self.squeeze)
                    direct = [direct[0] + slope_of_t, direct[1] - slope_of_t]
            if features:
                x_grad += of_left @ direct[0]
                y_grad += of_right @ direct[1]
        w2, w3, bias = (x_part * self.of_x).sum(), (y_part * self.of_y).sum(), (y_part * self.of_one).sum()
        mix = torch.stack([w2 - w3 if self.transform == "sub" else w1, w2, w3])
        squeeze += self.bias * y_part.sum(0)[:, None]
        x_part, y_part = (self.x_weight * x_part).to(self.products), (self.y_weight * y_part).to(self.products)
        squeeze += x_part.T @ self.x.to(self.products)
        squeeze += y_part.T @ self.y.to(self.products)
        if not features:
            return None, None, mix, bias, squeeze, excite
        x_grad += x_part @ self.squeeze
        y_grad += y_part @ self.squeeze
        if self.symmetric:
            return x_grad + y_grad, None, mix, bias, squeeze, excite
        return x_grad, y_grad, mix, bias, squeeze, excite

    # `slopes` (orders, k) is the gradient divided by the distance. The next two return the gradients of a block's
    # logits W2 relu(W1 f) (orders, k, D), and with `features` the parts of the gradients of x and y (k, D) that do not
    # pass through the gates. da = a * (1 - a) * dlogit.

    def _of_plain(self, block: _Block, slopes: Tensor, features: bool) -> list[Tensor]:
        """d|a * delta| = (a * delta^2 * da + a^2 * delta * ddelta) / |a * delta|"""
        weighted = block.gate.square().mul_(slopes[..., None])
        direct = weighted.sum(0).mul_(block.difference) if features else None
        logits = weighted.mul_(block.gate.neg_().add_(1)).mul_(block.difference.square())
        return [logits] if direct is None else [logits, direct, -direct]

    def _of_normalized(self, block: _Block, slopes: Tensor, features: bool) -> list[Tensor]:
        """d sqrt(2 - 2c) = -dc / sqrt(2 - 2c), where c = S(a^2 x y) / sqrt(S(a^2 x^2) * S(a^2 y^2))"""
        x, y, squared, cosine, of_x, of_y = self._normalized(block)
        across, of_x, of_y = (
            (slopes * part)[..., None] for part in (of_x.rsqrt() * of_y.rsqrt(), cosine / of_x, cosine / of_y)
        )
        direct = []
        if features:
            weighted = (squared * across).sum(0)
            direct = [(squared * own).sum(0).mul_(its) for own, its in ((of_x, x), (of_y, y))]
            direct = [direct[0].sub_(weighted * y), direct[1].sub_(weighted * x)]
        logits = (of_x * x.square()).add_(of_y * y.square()).sub_(2 * across * (x * y))
        return [logits.mul_(squared).mul_(block.gate.neg_().add_(1)), *direct]

    def _normalized(self, block: _Block) -> _Normalized:
        x, y = self.x.index_select(0, block.left), self.y.index_select(0, block.right)
        squared = block.gate.square()
        tiny = torch.finfo(x.dtype).tiny  # a vector of zeros is no division by zero
        of_x, of_y = ((squared * own.square()).sum(-1).clamp_(min=tiny) for own in (x, y))
        cosine = (squared * (x * y)).sum(-1) / (of_x.sqrt() * of_y.sqrt())
        return _Normalized(x, y, squared, cosine, of_x, of_y)

    def _blocks(self, chosen: Tensor) -> Iterator[_Block]:
        """The pairs of the mask `chosen` (m, n), in blocks; where y is x, each pair once if either order is chosen."""
        pairs = ((chosen | chosen.T).triu(1) if self.symmetric else chosen).nonzero().T  # (2, pairs)
        rows = max(1, BLOCK_VALUES[self.x.device.type] // (self.x.shape[1] * (1 + self.symmetric)))
        for start in range(0, pairs.shape[1], rows):
            yield self._block(*pairs[:, start : start + rows])

    def _block(self, left: Tensor, right: Tensor) -> _Block:
        difference = self.x.index_select(0, left) - self.y.index_select(0, right)
        hidden = [self.x_part.index_select(0, left) + self.y_part.index_select(0, right)]
        if self.symmetric:
            hidden.append(self.x_part.index_select(0, right) + self.y_part.index_select(0, left))
        stacked = torch.stack(hidden)
        transformed = squeezed = difference.new_empty(0)
        if self.transform != "sub":
            transformed = difference.abs() if self.transform == "sub_abs" else difference.square()
            transformed = transformed.to(self.products)
            squeezed = (transformed @ self.squeeze.T).to(difference.dtype)
            stacked += self.w1 * squeezed
        stacked.relu_()
        gate = (stacked.to(self.products) @ self.excite.T).to(difference.dtype).sigmoid_()
        return _Block(left, right, difference, transformed, squeezed, stacked, gate)


def _membership(index: Tensor, rows: Tensor) -> Tensor:
    """(n, k) of `index` (k,) and `rows` (n, D): 1 where pair k belongs to the row, else 0."""
    return (torch.arange(len(rows), device=index.device)[:, None] == index).to(rows.dtype)
