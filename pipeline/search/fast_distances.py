"""One probe against very many stored vectors: cosines of all, and attended distances of a shortlist, in float32.

Differs from `ReIDCore.distances` by rounding only (1e-6). It needs the model's module in this process, so a process
that answers many searches has it, and a command that answers one does not. Both orders of a pair share the product of
W1 with |x - y|.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from schemas.arrays import Floats, Ints, Singles

if TYPE_CHECKING:
    from reid_core.diff_attention import DiffAttention

#: Vectors that a thread converts and compares at once: they stay in its cache.
_SCANNED, _SCORED = 4096, 256
#: Threads that compare, each with one thread of torch: blocks are small.
THREADS = 2


class FastDistances:
    """The distances of one model. Safe for threads."""

    def __init__(self, module: "DiffAttention | None") -> None:
        """module: the model's diff attention, float32 in eval mode; None: Euclidean distances of normalized rows."""
        self._module = module
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="distances")

    def cosines(self, feature: Floats, vectors: NDArray[np.float16], inverse_lengths: Singles) -> Singles:
        """(n,) Cosine of the feature (D,) to each vector (n, D), whose inverse lengths (n,) are known."""
        found = np.empty(len(vectors), np.float32)
        probe = torch.from_numpy(np.asarray(feature / np.linalg.norm(feature), np.float32))
        stored, out = torch.from_numpy(vectors), torch.from_numpy(found)

        def scan(start: int, end: int) -> None:
            buffer = torch.empty(_SCANNED, vectors.shape[1])
            for at in range(start, end, _SCANNED):
                rows = slice(at, min(at + _SCANNED, end))
                block = buffer[: rows.stop - rows.start]
                torch.mv(block.copy_(stored[rows]), probe, out=out[rows])

        self._share(len(vectors), scan)
        found *= inverse_lengths
        return found

    def distances(self, feature: Floats, vectors: NDArray[np.float16], rows: Ints) -> Floats:
        """(r,) Symmetric distances of the feature (D,) to these rows of the vectors (n, D), in 0..2."""
        found = np.empty(len(rows), np.float32)
        stored, of, out = torch.from_numpy(vectors), torch.from_numpy(rows), torch.from_numpy(found)
        against = self._against(torch.from_numpy(np.asarray(feature, np.float32)))

        def score(start: int, end: int) -> None:
            for at in range(start, end, _SCORED):
                part = slice(at, min(at + _SCORED, end))
                out[part] = against(stored[of[part]].float())

        self._share(len(rows), score)
        return found.astype(np.float64)

    def _share(self, n: int, work: Callable[[int, int], None]) -> None:
        """Calls `work` with shares of 0..n, one a thread."""

        def quietly(start: int, end: int) -> None:
            with torch.inference_mode():
                work(start, end)

        edges = np.linspace(0, n, THREADS + 1).astype(int).tolist()
        for done in [self._threads.submit(quietly, a, b) for a, b in pairwise(edges)]:
            done.result()

    def _against(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """A function of vectors (r, D) that returns their distances (r,) to x (D,)."""
        module = self._module
        if module is None:
            unit = x / x.norm()
            return lambda y: _distance(y @ unit / y.norm(dim=1))
        with torch.inference_mode():
            w1, w2, w3 = module.mix.tolist()
            squeeze, excite = module.squeeze.weight, module.excite.weight
            bias = float(module.bias) * squeeze.sum(1)
            of_x, x_squared = squeeze @ x, x.square()
        odd = module.settings.transform == "sub"  # t(x - y) = -t(y - x); else the same in both orders

        def against(y: Tensor) -> Tensor:
            of_y = y @ squeeze.T
            mixed = w1 * (of_x - of_y) if odd else w1 * (module._transform(x - y) @ squeeze.T)
            both = [mixed + w2 * of_x + w3 * of_y + bias, (-mixed if odd else mixed) + w2 * of_y + w3 * of_x + bias]
            first, second = (_gated(hidden, excite, x, x_squared, y) for hidden in both)
            return (first + second) / 2

        return against


def _gated(hidden: Tensor, excite: Tensor, x: Tensor, x_squared: Tensor, y: Tensor) -> Tensor:
    """As `DiffAttention.pair_distances`, of hidden values (r, D/r) before their ReLU."""
    gate = (hidden.relu_() @ excite.T).sigmoid_().square_()
    gated = gate * y
    lengths = (gate @ x_squared) * torch.einsum("rd,rd->r", gated, y)
    return _distance(gated @ x / lengths.clamp(min=torch.finfo(gate.dtype).tiny).sqrt())


def _distance(cosine: Tensor) -> Tensor:
    return (2 - 2 * cosine).clamp(min=0).sqrt()
