"""One Triton kernel for `sub_abs` on CUDA: from features to the three sums of each pair.

No hidden value, gate or attended feature is written to memory. `pairs` holds the same computation in PyTorch, and
imports this module only where CUDA is present.
"""

from typing import NamedTuple

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

#: The largest hidden layer (D/r channels) that the registers of a program hold.
MOST_HIDDEN = 512


class Tile(NamedTuple):
    """What one program computes: `pairs` gallery rows of one query, reading `channels` at a time.

    `stages`: how many reads of the weights are in flight; each needs shared memory.
    """

    pairs: int
    channels: int
    stages: int


#: In the order in which they are tried; the first that fits into the device's shared memory is used. With 512 hidden
#: channels in bfloat16 the first needs 136 KB on an H100 or B200, which have 227 KB, and 104 KB on other cards: more
#: than the 99 KB of an A10, L4 or RTX. The second needs 96 KB there. Up to 256 hidden channels the first fits all.
TILES = (Tile(64, 32, 2), Tile(64, 32, 1), Tile(32, 32, 1))


def pair_sums(
    x: Tensor, y: Tensor, x_part: Tensor, y_part: Tensor, squeeze: Tensor, excite: Tensor, sums: Tensor
) -> bool:
    """Writes S(v x y), S(v x^2), S(v y^2), with v = 4 a^2, of all pairs into `sums` (3, Q, G), float32.

    x (Q, D), y (G, D), x_part (Q, H) and y_part (G, H) are float32. W1 f = x_part + y_part + squeeze |x - y|; squeeze
    (H, D) and excite (D, H), which holds W2 / 2, have one type, in which products are computed. All are contiguous.
    Returns False, with nothing written, where no tile fits into the device's shared memory.
    """
    queries, gallery, hidden = len(x), len(y), squeeze.shape[0]
    assert all(tensor.is_contiguous() for tensor in (x, y, x_part, y_part, squeeze, excite, sums))
    assert all(tensor.dtype == torch.float32 for tensor in (x, y, x_part, y_part, sums))
    assert squeeze.dtype == excite.dtype and sums.shape == (3, queries, gallery)
    if not queries or not gallery:
        return True
    for tile in TILES:
        try:
            _pair_sums[(triton.cdiv(gallery, tile.pairs), queries)](
                x, y, x_part, y_part, squeeze, excite, sums, queries, gallery, x.shape[1], hidden,
                pairs=tile.pairs, channels=tile.channels, width=width_of(hidden),
                num_warps=8, num_stages=tile.stages, enable_fp_fusion=True,
            )  # fmt: skip
        except triton.OutOfResources:
            continue
        return True
    return False


def width_of(hidden: int) -> int:
    """The hidden layer's size as the kernel has it: a power of 2, at least 16."""
    return max(16, int(triton.next_power_of_2(hidden)))


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
