"""One Triton kernel for `sub_abs` on CUDA: from features to the three sums of a pair, with no hidden value, gate or
attended feature in memory. `pairs` holds its PyTorch form, and imports this module where CUDA is present only.
"""

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

#: Pairs of a program: one query, so many gallery rows; and channels that it reads at a time.
PAIRS, CHANNELS = 64, 32
#: The largest hidden layer that a program's registers hold, and the shared memory that it then needs.
MOST_HIDDEN, SHARED_BYTES = 512, 139_264


def fits(hidden: int, device: torch.device) -> bool:
    """Whether the kernel runs for a hidden layer of D/r channels on a CUDA device."""
    shared: int = torch.cuda.get_device_properties(device).shared_memory_per_block_optin
    return hidden <= MOST_HIDDEN and shared >= SHARED_BYTES


def pair_sums(
    x: Tensor, y: Tensor, x_part: Tensor, y_part: Tensor, squeeze: Tensor, excite: Tensor, sums: Tensor
) -> None:
    """Writes S(v x y), S(v x^2), S(v y^2), with v = 4 a^2, of all pairs into `sums` (3, Q, G), float32 and contiguous.

    x (Q, D), y (G, D), x_part (Q, H), y_part (G, H): float32, contiguous. W1 f = x_part + y_part + squeeze |x - y|;
    squeeze (H, D) and excite (D, H), which holds W2 / 2, in the products' type, contiguous.
    """
    queries, gallery, hidden = len(x), len(y), squeeze.shape[0]
    if not queries or not gallery:
        return
    _pair_sums[(triton.cdiv(gallery, PAIRS), queries)](
        x, y, x_part, y_part, squeeze, excite, sums, queries, gallery, x.shape[1], hidden,
        pairs=PAIRS, channels=CHANNELS, width=max(16, triton.next_power_of_2(hidden)), num_warps=8, num_stages=2,
    )  # fmt: skip


@triton.jit  # type: ignore[untyped-decorator]
def _pair_sums(  # type: ignore[no-untyped-def]
    x, y, x_part, y_part, squeeze, excite, sums, queries, gallery, dims, hidden,
    pairs: tl.constexpr, channels: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * pairs + tl.arange(0, pairs)  # gallery rows
    query = tl.program_id(1).to(tl.int64)
    here = row < gallery
    row = row.to(tl.int64)
    unit = tl.arange(0, width)
    known = unit < hidden
    x += query * dims
    total = tl.load(y_part + row[:, None] * hidden + unit[None], mask=here[:, None] & known[None], other=0.0)
    total += tl.load(x_part + query * hidden + unit, mask=known, other=0.0)[None]
    for start in range(0, dims, channels):
        channel = start + tl.arange(0, channels)
        inside = channel < dims
        xs = tl.load(x + channel, mask=inside, other=0.0)
        ys = tl.load(y + row[:, None] * dims + channel[None], mask=here[:, None] & inside[None], other=0.0)
        weight = tl.load(squeeze + unit[None] * dims + channel[:, None], mask=known[None] & inside[:, None], other=0.0)
        total += tl.dot(tl.abs(xs[None] - ys).to(weight.dtype), weight, input_precision="ieee")
    active = tl.maximum(total, 0.0).to(excite.dtype.element_ty)
    cross = tl.zeros([pairs], tl.float32)
    x_length = tl.zeros([pairs], tl.float32)
    y_length = tl.zeros([pairs], tl.float32)
    for start in range(0, dims, channels):
        channel = start + tl.arange(0, channels)
        inside = channel < dims
        xs = tl.load(x + channel, mask=inside, other=0.0)[None]
        ys = tl.load(y + row[:, None] * dims + channel[None], mask=here[:, None] & inside[None], other=0.0)
        weight = tl.load(excite + channel[None] * hidden + unit[:, None], mask=known[:, None] & inside[None], other=0.0)
        half = tl.dot(active, weight, input_precision="ieee")  # l / 2
        gate = 2.0 * tl.sigmoid(2.0 * half)
        squared = gate * gate
        cross += tl.sum(squared * xs * ys, 1)
        x_length += tl.sum(squared * xs * xs, 1)
        y_length += tl.sum(squared * ys * ys, 1)
    out = sums + query * gallery + row
    plane = queries.to(tl.int64) * gallery
    tl.store(out, cross, mask=here)
    tl.store(out + plane, x_length, mask=here)
    tl.store(out + 2 * plane, y_length, mask=here)
