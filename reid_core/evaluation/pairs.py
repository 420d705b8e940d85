"""The paper's test distance for many pairs, fast: all of queries x gallery as a stream, or a shortlist a query.

    distance^2 = 2 - 2 S(a^2 x y) / sqrt(S(a^2 x^2) S(a^2 y^2))        a = sigmoid(W2 relu(W1 f))

Notable: one query meets a block of the gallery, so that what is the query's is a vector and the block stays in the
cache for the next query; W1's linear parts are one product a feature; the gate comes as a tanh, since
4 a^2 = (1 + tanh(l/2))^2 and the factor cancels. Pairs whose gates are all but shut, which a module that collapsed in
training gives, are computed in float64 instead: of 1 + tanh nothing would be left. The device decides how products are
done, never the caller:

    CPU with AVX-512 VNNI   8 bits (four times the rate of float32), |x - y| in 8 bits too, from 1,024 channels on
    CUDA                    bfloat16, summed in float32; `sub_abs` as one Triton kernel (`pairs_triton`)
    other                   float32

Each differs from `DiffAttention.distance_matrix` by rounding alone; benchmarks/pairs.py measures how much. What the
city decides stays with `DiffAttention.pair_distances` in float64.
"""

import copy
import importlib.util
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from reid_core.diff_attention import DiffAttention
from schemas.errors import CoreError

#: Queries of a block of the stream.
QUERY_ROWS = 64
#: Pairs of one query that are computed at once. On a CPU their gates (1 MB a core) stay in the cache.
PAIRS_AT_ONCE = {"cpu": 256, "cuda": 2**13}
#: Channels from which 8 bits are enough: rounding errors average out over the channels, and few need no speed.
BYTES_FROM = 1024
#: Pairs that show the range of W1 t(x - y) to the 8-bit form, and the room left above it, in parts of what the largest
#: is above the mean: a hidden value cut off costs more than a coarser step.
RANGE_PAIRS, RANGE_ROOM = 2**10, 0.5
#: Gates are shut where S(4 a^2 x^2) is below this share of S(x^2), that is a below 0.001 or so.
SHUT = 4e-6
#: Shut pairs that are computed at once.
SHUT_AT_ONCE = 2**12
#: What a range is at least: its inverse is a float32 too.
SMALL = 1e-30


@torch.inference_mode()
def attended_distances(
    module: DiffAttention, queries: Tensor, gallery: Tensor, *, rows: int = QUERY_ROWS
) -> Iterator[tuple[slice, Tensor]]:
    """The test distance of every pair as a stream: a slice of the queries and their distances (rows, G) in float32.

    `queries` (Q, D) and `gallery` (G, D) are features on the module's device. Beside them and a float32 copy where
    they are not float32, memory holds two numbers of D/r a feature, for `sub_abs` D bytes more, and one block.
    Raises CoreError for features of another width, on another device, or not finite.
    """
    scorer = _Scorer(module, queries, gallery)
    for start in range(0, len(queries), rows):
        block = slice(start, min(start + rows, len(queries)))
        yield block, scorer.every_pair(block)


@torch.inference_mode()
def shortlist_distances(module: DiffAttention, queries: Tensor, gallery: Tensor, shortlists: Tensor) -> Tensor:
    """Test distances (Q, K) in float32 of each query (Q, D) to its own K rows of the gallery (G, D).

    `shortlists` (Q, K) holds gallery rows, integers. Raises CoreError as `attended_distances` does, and for a
    shortlist that does not fit.
    """
    if shortlists.ndim != 2 or len(shortlists) != len(queries):
        wanted = f"({len(queries)}, K)"
        raise CoreError(f"shortlists of {len(queries)} queries have shape {wanted}, not {tuple(shortlists.shape)}")
    if shortlists.numel() and not 0 <= int(shortlists.min()) <= int(shortlists.max()) < len(gallery):
        raise CoreError(f"a shortlist names rows {int(shortlists.min())} to {int(shortlists.max())} of {len(gallery)}")
    return _Scorer(module, queries, gallery).shortlists(shortlists)


class _Gates(Protocol):
    """tanh(l/2) (k, D) in float32, the caller's to overwrite, of one query and gallery rows; the gate is (1 + .)/2."""

    def __call__(self, query: int, rows: slice | Tensor) -> Tensor: ...


class _Scorer:
    def __init__(self, module: DiffAttention, queries: Tensor, gallery: Tensor) -> None:
        for name, features in (("queries", queries), ("gallery", gallery)):
            if features.ndim != 2 or features.shape[1] != module.dims:
                raise CoreError(f"{name} of shape {tuple(features.shape)} for diff attention of {module.dims} channels")
            if features.device != module.mix.device:
                raise CoreError(f"{name} on {features.device}, but diff attention on {module.mix.device}")
            if not features.sum(dtype=torch.float64).isfinite():
                raise CoreError(f"{name} hold values that are not finite")
        self.module = module
        self.x, self.y = queries.float(), gallery.float()
        self.x_squares = self.x.square().sum(1)
        self.gates = _gates(module, self.x, self.y)
        self.at_once = PAIRS_AT_ONCE[self.x.device.type]
        self.fused = module.settings.transform == "sub_abs" and _has_kernel(module, self.x.device)

    def every_pair(self, block: slice) -> Tensor:
        sums = self.x.new_empty(3, block.stop - block.start, len(self.y))
        if self.fused:
            from reid_core.evaluation.pairs_triton import pair_sums

            assert isinstance(self.gates, _FloatGates)
            parts = self.gates.x_part[block], self.gates.y_part, self.gates.squeeze, self.gates.excite
            pair_sums(self.x[block], self.y, *parts, sums)
            return self._distances(sums, block)
        for start in range(0, len(self.y), self.at_once):  # a part of the gallery stays in the cache for all queries
            part = slice(start, min(start + self.at_once, len(self.y)))
            y = self.y[part]
            for row in range(sums.shape[1]):
                self._sums(block.start + row, part, y, sums[:, row, part])
        return self._distances(sums, block)

    def shortlists(self, shortlists: Tensor) -> Tensor:
        sums = self.x.new_empty(3, *shortlists.shape)
        for query, shortlist in enumerate(shortlists.long()):
            for start in range(0, len(shortlist), self.at_once):
                part = slice(start, min(start + self.at_once, len(shortlist)))
                self._sums(query, shortlist[part], self.y[shortlist[part]], sums[:, query, part])
        return self._distances(sums, slice(None), shortlists.long())

    def _sums(self, query: int, rows: slice | Tensor, y: Tensor, sums: Tensor) -> None:
        """Writes S(v x y), S(v x^2) and S(v y^2) (3, k), where v = 4 a^2."""
        x = self.x[query]
        v = self.gates(query, rows).add_(1).square_()
        torch.mv(v, x.square(), out=sums[1])
        torch.mv(v.mul_(y), x, out=sums[0])
        torch.sum(v.mul_(y), 1, out=sums[2])

    def _distances(self, sums: Tensor, block: slice, shortlists: Tensor | None = None) -> Tensor:
        """Distances (q, k) of a block of queries from their sums; pairs with shut gates are computed anew."""
        distances = _distances(sums)
        shut = (sums[1] < SHUT * self.x_squares[block, None]).nonzero()
        if len(shut):
            exact = copy.deepcopy(self.module).double()
            for part in torch.split(shut, SHUT_AT_ONCE):
                row, column = part.T
                other = column if shortlists is None else shortlists[row, column]
                x, y = self.x[block][row].double(), self.y[other].double()
                distances[row, column] = exact.pair_distances(x, y).float()
        return distances


def _distances(sums: Tensor) -> Tensor:
    """Distances from S(v x y), S(v x^2) and S(v y^2) (3, ...), for any multiple v of a^2."""
    lengths = sums[1].sqrt() * sums[2].sqrt()
    cosine = sums[0] / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
    return (2 - 2 * cosine).clamp(min=0).sqrt()


def _has_kernel(module: DiffAttention, device: torch.device) -> bool:
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    from reid_core.evaluation.pairs_triton import fits

    return fits(module.squeeze.out_features, device)


def _gates(module: DiffAttention, x: Tensor, y: Tensor) -> _Gates:
    if x.device.type == "cuda":
        return _FloatGates(module, x, y, torch.bfloat16)
    has_bytes: bool = torch.cpu.get_capabilities().get("avx512_vnni", False)
    if has_bytes and module.dims >= BYTES_FROM and len(x) and len(y):
        return _ByteGates(module, x, y)
    return _FloatGates(module, x, y, torch.float32)


class _FloatGates:
    def __init__(self, module: DiffAttention, x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
        self.x, self.y, self.transform, self.dtype = x, y, module.settings.transform, dtype
        self.x_part, self.y_part, self.squeeze = _first_layer(module, x, y)
        self.squeeze, self.excite = self.squeeze.to(dtype), (module.excite.weight / 2).to(dtype)

    def __call__(self, query: int, rows: slice | Tensor) -> Tensor:
        hidden = self.x_part[query] + self.y_part[rows]
        if self.transform != "sub":
            transformed = _transformed(self.transform, self.x[query], self.y[rows])
            hidden += transformed.to(self.dtype) @ self.squeeze.T
        return (hidden.relu_().to(self.dtype) @ self.excite.T).float().tanh_()


class _ByteGates:
    """Features, weights and hidden values as bytes, for a set of queries and a gallery that give their ranges.

    A hidden channel has its own range, folded into W2's columns, and a feature's channel its own, folded into W1's;
    then each row of a weight has its own. What rounding a weight does to a pair of middling values is taken back.
    """

    def __init__(self, module: DiffAttention, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.transform = x, y, module.settings.transform
        x_part, y_part, squeeze = _first_layer(module, x, y)
        chosen = torch.linspace(0, len(x) * len(y) - 1, min(RANGE_PAIRS, len(x) * len(y)), dtype=torch.float64).long()
        left, right = chosen // len(y), chosen % len(y)
        hidden = x_part[left] + y_part[right]
        top = x_part.amax(0) + y_part.amax(0)  # nothing of `sub` lies above it
        if self.transform != "sub":
            transformed = _transformed(self.transform, x[left], y[right])
            squeezed = transformed @ squeeze.T
            hidden += squeezed
            top += squeezed.amax(0) + RANGE_ROOM * (squeezed.amax(0) - squeezed.mean(0))
        up = 255 / top.clamp(min=max(top.relu().mean().item() / 8, SMALL))
        self.excite = _Weights.of(module.excite.weight.float() / 2 / up, hidden.relu().mean(0) * up)
        self.x_part, self.y_part, squeeze = x_part * up + 0.5, y_part * up, squeeze * up[:, None]
        if self.transform == "sub_abs":
            range_ = torch.maximum(x.abs().amax(0), y.abs().amax(0)).clamp(min=SMALL) / 127
            self.x_bytes, self.y_bytes = ((side / range_ + 128.5).to(torch.uint8) for side in (x, y))
            self.squeeze_bytes = _Weights.of(squeeze * range_, transformed.mean(0) / range_)
            self.y_part += self.squeeze_bytes.bias
        elif self.transform == "sub_squ":  # 8 bits are too few for squares
            self.squeeze = squeeze

    def __call__(self, query: int, rows: slice | Tensor) -> Tensor:
        if self.transform == "sub":
            hidden = self.x_part[query] + self.y_part[rows]
        elif self.transform == "sub_abs":
            x, y = self.x_bytes[query], self.y_bytes[rows]
            difference = torch.maximum(x, y).sub_(torch.minimum(x, y))
            hidden = self.squeeze_bytes.product(difference, self.x_part[query], "none").add_(self.y_part[rows])
        else:
            transformed = _transformed(self.transform, self.x[query], self.y[rows])
            hidden = torch.addmm(self.x_part[query] + self.y_part[rows], transformed, self.squeeze.T)
        return self.excite.product(hidden.clamp_(0, 255).to(torch.uint8), self.excite.bias, "tanh")


class _Weights(NamedTuple):
    """A weight (n, k) in 8 bits with a scale a row, laid out for oneDNN; `bias` (n,) takes back its mean error."""

    packed: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor

    @classmethod
    def of(cls, weight: Tensor, mean: Tensor) -> "_Weights":
        """`mean` (k,): what the weight meets, in the mean."""
        scales = weight.abs().amax(1).clamp(min=SMALL) / 127
        rounded = (weight / scales[:, None]).round()
        packed = torch.ops.onednn.qlinear_prepack(rounded.to(torch.int8), None)
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        return cls(packed, scales, zeros, (weight - rounded * scales[:, None]) @ mean)

    def product(self, rows: Tensor, bias: Tensor, function: str) -> Tensor:
        """function(rows @ weight.T + bias) in float32 of bytes `rows` (m, k)."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self.packed, self.scales, self.zeros, bias, 1.0, 0, torch.float32, function, [], "none"
        )
        return product


def _first_layer(module: DiffAttention, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """W1 f as a sum: parts of x (Q, D/r) and y (G, D/r), and the weight (D/r, D) of t(x - y), which `sub` needs not."""
    w1, w2, w3 = module.mix.float()
    squeeze = module.squeeze.weight.float()
    of_one = module.bias.float() * squeeze.sum(1)
    if module.settings.transform == "sub":
        w1, w2, w3 = torch.zeros_like(w1), w1 + w2, w3 - w1
    return w2 * (x @ squeeze.T), w3 * (y @ squeeze.T) + of_one, w1 * squeeze


def _transformed(transform: str, x: Tensor, y: Tensor) -> Tensor:
    difference = x - y
    return difference.abs_() if transform == "sub_abs" else difference.square_()
