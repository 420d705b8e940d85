"""The paper's test distance for many pairs, fast: of all queries x gallery as a stream, or of a shortlist per query.

    distance^2 = 2 - 2 S(a^2 x y) / sqrt(S(a^2 x^2) S(a^2 y^2))        a = sigmoid(W2 relu(W1 f))

Notable:

- One query is compared with a block of the gallery at a time, and the block stays in the cache for the next query.
- The linear parts of W1 are computed once per feature instead of once per pair.
- The gate is computed as a tanh: 4 a^2 = (1 + tanh(l/2))^2, and the factor 4 cancels.
- Where a gate is nearly 0, 1 + tanh loses its digits. Such pairs, which a module that collapsed in training gives, are
  computed again in float64.

The device decides how matrix products are computed, never the caller:

    CPU with AVX-512 VNNI   8 bits (four times the rate of float32), |x - y| in 8 bits too, from 1,024 channels on
    CUDA with bfloat16      bfloat16, summed in float32; `sub_abs` as one Triton kernel (`pairs_triton`)
    other                   float32

On a processor a trial may say otherwise from 1,024 channels on (`_cpu_form`): another form that is faster there.

Each form differs from `DiffAttention.distance_matrix` by rounding only; benchmarks/pairs.py measures by how much. These
distances rank; those that decide a match are `DiffAttention.pair_distances` in float64.
"""

import copy
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from reid_core.device_memory import Blocks
from reid_core.diff_attention import DiffAttention
from reid_core.serving.devices import has_bfloat16
from reid_core.speed.kept import Forms, is_measured, measured
from reid_core.speed.trial import fastest_first
from schemas.cards import DiffAttentionSettings
from schemas.errors import CoreError
from schemas.settings import settings

#: Queries of a block of the stream.
QUERY_ROWS = 64
#: Pairs of one query that are computed at once. On a CPU their gates (1 MB per core) stay in the cache.
PAIRS_AT_ONCE = {"cpu": 256, "cuda": 2**13}
#: Fewest channels for the 8-bit form: rounding errors average out over many channels, and few channels are fast anyway.
BYTES_FROM = 1024
#: Pairs from which the 8-bit form takes the range of W1 t(x - y).
RANGE_PAIRS = 2**10
#: Room above that range, as a share of (largest - mean): cutting off a hidden value costs more than a coarser step.
RANGE_ROOM = 0.5
#: A pair is computed again in float64 where S(4 a^2 x^2) is below this share of S(x^2), that is a below about 0.001.
SHUT = 4e-6
#: Pairs that are computed in float64 at once.
SHUT_AT_ONCE = 2**12
#: Features of a trial.
TRIAL_DIMS, TRIAL_QUERIES = 2048, 4
#: Smallest range, so that its inverse is a finite float32.
SMALL = 1e-30


@torch.inference_mode()
def attended_distances(module: DiffAttention, queries: Tensor, gallery: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The test distances of all pairs as a stream: a slice of the queries and their distances (rows, G) in float32.

    `queries` (Q, D) and `gallery` (G, D) are features on the module's device, with any strides. Besides them, and a
    contiguous float32 copy where they are not that, memory holds two numbers of D/r per feature, for `sub_abs` D bytes
    more, and one block. Blocks become smaller where the device's memory is not enough.

    Raises CoreError for features of another width, on another device, or not finite in float32, and OutOfDeviceMemory.
    """
    yield from Blocks(QUERY_ROWS, "query")(len(queries), _Scorer(module, queries, gallery).every_pair)


@torch.inference_mode()
def shortlist_distances(
    module: DiffAttention,
    queries: Tensor,
    gallery: Tensor,
    shortlists: Tensor,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Test distances (Q, K) in float32 of each query (Q, D) to its own K rows of the gallery (G, D).

    `shortlists` (Q, K) holds gallery rows, integers. `progress` is called with (queries done, Q). Raises what
    `attended_distances` raises, and CoreError for shortlists of another shape or with rows that the gallery lacks.
    """
    if shortlists.ndim != 2 or len(shortlists) != len(queries):
        wanted = f"({len(queries)}, K)"
        raise CoreError(f"shortlists of {len(queries)} queries have shape {wanted}, not {tuple(shortlists.shape)}")
    if shortlists.numel() and not 0 <= int(shortlists.min()) <= int(shortlists.max()) < len(gallery):
        raise CoreError(f"a shortlist names rows {int(shortlists.min())} to {int(shortlists.max())} of {len(gallery)}")
    scorer, shortlists = _Scorer(module, queries, gallery), shortlists.long()
    found = torch.empty(shortlists.shape, device=queries.device)
    for block, distances in Blocks(QUERY_ROWS, "query")(
        len(queries), lambda block: scorer.shortlists(block, shortlists[block])
    ):
        found[block] = distances
        if progress is not None:
            progress(block.stop, len(queries))
    return found


class _Gates(Protocol):
    """tanh(l/2) (k, D) of one query and k gallery rows, float32, the caller's to overwrite; the gate is (1 + .)/2."""

    def __call__(self, query: int, rows: slice | Tensor) -> Tensor: ...


class _Scorer:
    def __init__(
        self,
        module: DiffAttention,
        queries: Tensor,
        gallery: Tensor,
        gates: Callable[[DiffAttention, Tensor, Tensor], _Gates] | None = None,
    ) -> None:
        """`gates`: None: those of the fastest form."""
        for name, features in (("queries", queries), ("gallery", gallery)):
            if features.ndim != 2 or features.shape[1] != module.dims:
                raise CoreError(f"{name} of shape {tuple(features.shape)} for diff attention of {module.dims} channels")
            if features.device != module.mix.device:
                raise CoreError(f"{name} on {features.device}, but diff attention on {module.mix.device}")
        self.module = module
        # A transposed or sliced tensor keeps its strides otherwise, and the kernels read rows side by side.
        self.x, self.y = queries.float().contiguous(), gallery.float().contiguous()
        for name, features in (("queries", self.x), ("gallery", self.y)):
            if not torch.linalg.vector_norm(features, dim=1).isfinite().all():
                raise CoreError(f"{name} hold values that are not finite, or too large for float32")
        self.x_squares = self.x.square().sum(1)
        self.gates = (gates or _gates)(module, self.x, self.y)
        self.parts = Blocks(PAIRS_AT_ONCE[self.x.device.type], "pair")
        self.shut_parts = Blocks(SHUT_AT_ONCE, "pair")
        self.fused = module.settings.transform == "sub_abs" and _has_kernel(module, self.x.device)

    def every_pair(self, block: slice) -> Tensor:
        """Distances (q, G) of a block of q queries to the whole gallery."""
        sums = self.x.new_empty(3, block.stop - block.start, len(self.y))
        if not (self.fused and self._fused_sums(block, sums)):

            def fill(part: slice) -> bool:  # a part of the gallery stays in the cache for all queries
                y = self.y[part]
                for row in range(sums.shape[1]):
                    self._sums(block.start + row, part, y, sums[:, row, part])
                return True

            for _ in self.parts(len(self.y), fill):
                pass
        return self._distances(sums, block)

    def shortlists(self, block: slice, shortlists: Tensor) -> Tensor:
        """Distances (q, K) of a block of q queries to their shortlists (q, K)."""
        sums = self.x.new_empty(3, *shortlists.shape)
        for row, shortlist in enumerate(shortlists):

            def fill(part: slice, row: int = row, shortlist: Tensor = shortlist) -> bool:
                self._sums(block.start + row, shortlist[part], self.y[shortlist[part]], sums[:, row, part])
                return True

            for _ in self.parts(len(shortlist), fill):
                pass
        return self._distances(sums, block, shortlists)

    def _sums(self, query: int, rows: slice | Tensor, y: Tensor, sums: Tensor) -> None:
        """Writes S(v x y), S(v x^2) and S(v y^2), where v = 4 a^2, into `sums` (3, k)."""
        x = self.x[query]
        v = self.gates(query, rows).add_(1).square_()
        torch.mv(v, x.square(), out=sums[1])
        torch.mv(v.mul_(y), x, out=sums[0])
        torch.sum(v.mul_(y), 1, out=sums[2])

    def _fused_sums(self, block: slice, sums: Tensor) -> bool:
        from reid_core.evaluation.pairs_triton import pair_sums

        gates = self.gates
        assert isinstance(gates, _FloatGates)
        self.fused = pair_sums(
            self.x[block], self.y, gates.x_part[block], gates.y_part, gates.squeeze, gates.excite, sums
        )
        return self.fused

    def _distances(self, sums: Tensor, block: slice, shortlists: Tensor | None = None) -> Tensor:
        """Distances (q, k) of a block of queries from their sums; pairs with shut gates are computed in float64."""
        distances = _distances(sums)
        shut = (sums[1] < SHUT * self.x_squares[block, None]).nonzero()
        if len(shut):
            exact = copy.deepcopy(self.module).double()

            def again(part: slice) -> Tensor:
                row, column = shut[part].T
                other = column if shortlists is None else shortlists[row, column]
                x, y = self.x[block][row].double(), self.y[other].double()
                return exact.pair_distances(x, y).float()

            for part, found in self.shut_parts(len(shut), again):
                row, column = shut[part].T
                distances[row, column] = found
        return distances


def _distances(sums: Tensor) -> Tensor:
    """Distances from S(v x y), S(v x^2) and S(v y^2) (3, ...), for any multiple v of a^2."""
    lengths = sums[1].sqrt() * sums[2].sqrt()
    cosine = sums[0] / lengths.clamp(min=torch.finfo(lengths.dtype).tiny)
    return (2 - 2 * cosine).clamp(min=0).sqrt()


def _has_kernel(module: DiffAttention, device: torch.device) -> bool:
    if device.type != "cuda" or not _has_bfloat16() or importlib.util.find_spec("triton") is None:
        return False
    from reid_core.evaluation.pairs_triton import MOST_HIDDEN

    return module.squeeze.out_features <= MOST_HIDDEN


def _has_bfloat16() -> bool:
    """Whether the CUDA device computes in bfloat16; older ones emulate it, more slowly than float32."""
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _gates(module: DiffAttention, x: Tensor, y: Tensor) -> _Gates:
    if x.device.type == "cuda":
        return _FloatGates(module, x, y, torch.bfloat16 if _has_bfloat16() else torch.float32)
    if module.dims < BYTES_FROM or not len(x) or not len(y):
        return _FloatGates(module, x, y, torch.float32)
    return _CPU_FORMS[_cpu_form(module.settings)](module, x, y)


def _cpu_form(shape: DiffAttentionSettings) -> str:
    """The name of the form that is fastest on this processor, by a trial unless settings force a precision."""
    default = "int8" if torch.cpu.get_capabilities().get("avx512_vnni", False) else "float32"
    if not is_measured(settings()):
        return default
    forms = [default, *(("float32",) if default == "int8" else ()), *(("bfloat16",) if has_bfloat16() else ())]
    found = measured(settings(), f"pairs, {shape.transform}", partial(_trial_forms, shape, forms))
    return fastest_first(found, default)[0]


def _trial_forms(shape: DiffAttentionSettings, names: Sequence[str]) -> Forms:
    """Random features and a module of random weights, compared in each form."""
    numbers = torch.Generator().manual_seed(0)
    x, y = (torch.randn(count, TRIAL_DIMS, generator=numbers) for count in (TRIAL_QUERIES, PAIRS_AT_ONCE["cpu"]))
    state = torch.get_rng_state()
    module = DiffAttention(TRIAL_DIMS, shape).eval()
    torch.set_rng_state(state)  # a trial changes nothing that is random afterwards
    scorers = {name: _Scorer(module, x, y, _CPU_FORMS[name]) for name in names}

    def compute(scorer: _Scorer) -> object:
        with torch.inference_mode():
            return scorer.every_pair(slice(0, len(x)))

    return {name: partial(compute, scorer) for name, scorer in scorers.items()}


class _FloatGates:
    """Gates in a floating-point type. All tensors are contiguous, as the Triton kernel needs them."""

    def __init__(self, module: DiffAttention, x: Tensor, y: Tensor, dtype: torch.dtype) -> None:
        self.x, self.y, self.transform, self.dtype = x, y, module.settings.transform, dtype
        self.x_part, self.y_part, squeeze = (part.contiguous() for part in _first_layer(module, x, y))
        self.squeeze = squeeze.to(dtype)
        self.excite = (module.excite.weight / 2).to(dtype).contiguous()

    def __call__(self, query: int, rows: slice | Tensor) -> Tensor:
        hidden = self.x_part[query] + self.y_part[rows]
        if self.transform != "sub":
            transformed = _transformed(self.transform, self.x[query], self.y[rows])
            hidden += transformed.to(self.dtype) @ self.squeeze.T
        return (hidden.relu_().to(self.dtype) @ self.excite.T).float().tanh_()


class _ByteGates:
    """Gates in 8 bits: features, weights and hidden values as bytes, in ranges taken from these queries and gallery.

    Each hidden channel has its own range, folded into the columns of W2, and each channel of a feature its own, folded
    into the columns of W1; then each row of a weight has its own scale. The mean error of rounding a weight, on pairs
    with average values, is subtracted.
    """

    def __init__(self, module: DiffAttention, x: Tensor, y: Tensor) -> None:
        self.x, self.y, self.transform = x, y, module.settings.transform
        x_part, y_part, squeeze = _first_layer(module, x, y)
        chosen = torch.linspace(0, len(x) * len(y) - 1, min(RANGE_PAIRS, len(x) * len(y)), dtype=torch.float64).long()
        left, right = chosen // len(y), chosen % len(y)
        hidden = x_part[left] + y_part[right]
        top = x_part.amax(0) + y_part.amax(0)  # the largest hidden value; for `sub` exactly
        if self.transform != "sub":
            transformed = _transformed(self.transform, x[left], y[right])
            squeezed = transformed @ squeeze.T
            hidden += squeezed
            top += squeezed.amax(0) + RANGE_ROOM * (squeezed.amax(0) - squeezed.mean(0))
        up = 255 / top.clamp(min=max(top.relu().mean().item() / 8, SMALL))
        self.excite = ByteWeights.of(module.excite.weight.float() / 2 / up, hidden.relu().mean(0) * up)
        self.x_part, self.y_part, squeeze = x_part * up + 0.5, y_part * up, squeeze * up[:, None]
        if self.transform == "sub_abs":
            range_ = torch.maximum(x.abs().amax(0), y.abs().amax(0)).clamp(min=SMALL) / 127
            self.x_bytes, self.y_bytes = ((side / range_ + 128.5).to(torch.uint8) for side in (x, y))
            self.squeeze_bytes = ByteWeights.of(squeeze * range_, transformed.mean(0) / range_)
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


class ByteWeights(NamedTuple):
    """A weight (n, k) in 8 bits with a scale per row, laid out for oneDNN; `bias` (n,) corrects its mean error."""

    packed: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor

    @classmethod
    def of(cls, weight: Tensor, mean: Tensor) -> "ByteWeights":
        """`mean` (k,): the average of the values that the weight is multiplied with."""
        scales = weight.abs().amax(1).clamp(min=SMALL) / 127
        rounded = (weight / scales[:, None]).round()
        packed = torch.ops.onednn.qlinear_prepack(rounded.to(torch.int8).contiguous(), None)  # it ignores strides
        zeros = torch.zeros(len(weight), dtype=torch.int64)
        return cls(packed, scales, zeros, (weight - rounded * scales[:, None]) @ mean)

    def product(self, rows: Tensor, bias: Tensor, function: str) -> Tensor:
        """function(rows @ weight.T + bias) in float32 of bytes `rows` (m, k)."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self.packed, self.scales, self.zeros, bias, 1.0, 0, torch.float32, function, [], "none"
        )
        return product


_CPU_FORMS: dict[str, Callable[[DiffAttention, Tensor, Tensor], _Gates]] = {
    "float32": partial(_FloatGates, dtype=torch.float32),
    "bfloat16": partial(_FloatGates, dtype=torch.bfloat16),
    "int8": _ByteGates,
}


def _first_layer(module: DiffAttention, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """W1 f as a sum: the parts of x (Q, D/r) and of y (G, D/r), and the weight (D/r, D) of t(x - y), 0 for `sub`."""
    w1, w2, w3 = module.mix.float()
    squeeze = module.squeeze.weight.float()
    of_one = module.bias.float() * squeeze.sum(1)
    if module.settings.transform == "sub":
        w1, w2, w3 = torch.zeros_like(w1), w1 + w2, w3 - w1
    return w2 * (x @ squeeze.T), w3 * (y @ squeeze.T) + of_one, w1 * squeeze


def _transformed(transform: str, x: Tensor, y: Tensor) -> Tensor:
    difference = x - y
    return difference.abs_() if transform == "sub_abs" else difference.square_()
