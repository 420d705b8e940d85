"""The fast test distances against the module's own form in float64, which tests/reid_core/test_diff_attention.py
holds against the paper.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reid_core.diff_attention import DiffAttention
from reid_core.evaluation import pairs
from reid_core.evaluation.pairs import attended_distances, shortlist_distances
from schemas.cards import DiffAttentionSettings
from schemas.errors import CoreError

TRANSFORMS = ["sub", "sub_squ", "sub_abs"]
FORMS = ["bytes", "floats"]
TOLERANCE = {"bytes": 4e-3, "floats": 1e-4}  # gates far from 0.5, and for bytes few channels: see the benchmark


def module(transform: str, dims: int, reduction: int = 4) -> DiffAttention:
    """A module whose gates differ much between pairs."""
    torch.manual_seed(0)
    made = DiffAttention(dims, DiffAttentionSettings(transform=transform, reduction=reduction))  # type: ignore[arg-type]
    with torch.no_grad():
        made.mix.copy_(torch.tensor([0.8, 0.3, -0.2]))
        made.bias.fill_(0.1)
        made.excite.weight.normal_(std=0.6 / (dims // reduction) ** 0.5)
    return made.eval()


def vectors(rows: int, dims: int, seed: int = 1) -> Tensor:
    return torch.randn(rows, dims, generator=torch.Generator().manual_seed(seed))


def exact(made: DiffAttention, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        found = made.double().distance_matrix(x.double(), y.double(), normalize=True).float()
    made.float()
    return found


def streamed(made: DiffAttention, x: Tensor, y: Tensor, rows: int = 64) -> Tensor:
    blocks = list(attended_distances(made, x, y, rows=rows))
    assert [block for block, _ in blocks] == [
        slice(start, min(start + rows, len(x))) for start in range(0, len(x), rows)
    ]
    return torch.cat([found for _, found in blocks]) if blocks else torch.empty(0, len(y))


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The forms of a CPU with 8-bit products and of one without."""
    name: str = request.param
    has = torch.cpu.get_capabilities().get("avx512_vnni", False)
    if name == "bytes" and not has:
        pytest.skip("this CPU has no AVX-512 VNNI")
    monkeypatch.setattr(pairs, "BYTES_FROM", 1)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": name == "bytes"})
    return name


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    ("dims", "reduction", "queries", "gallery"),
    [(2048, 4, 3, 300), (1280, 8, 5, 40), (250, 4, 7, 33), (37, 5, 1, 70), (3, 1, 4, 5), (256, 256, 4, 1)],
)
def test_every_pair_equals_the_module(
    form: str, transform: str, dims: int, reduction: int, queries: int, gallery: int
) -> None:
    made, x, y = module(transform, dims, reduction), vectors(queries, dims), vectors(gallery, dims, seed=2)
    found = streamed(made, x, y, rows=2)
    assert found.dtype == torch.float32 and found.shape == (queries, gallery)
    tolerance = TOLERANCE[form] * (20 if form == "bytes" and dims < 100 else 1)
    assert (found - exact(made, x, y)).abs().max() <= tolerance


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_shortlists_are_rows_of_the_matrix(form: str, transform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x, y = module(transform, 256), vectors(4, 256), vectors(60, 256, seed=2)
    monkeypatch.setitem(pairs.PAIRS_AT_ONCE, "cpu", 32)
    matrix = streamed(made, x, y)
    shortlists = torch.stack([torch.randperm(60)[:50] for _ in x])
    assert torch.allclose(shortlist_distances(made, x, y, shortlists), matrix.gather(1, shortlists), atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_nothing_in_nothing_out(form: str, transform: str) -> None:
    made, none, some = module(transform, 32), vectors(0, 32), vectors(3, 32)
    assert streamed(made, none, some).shape == (0, 3)
    assert streamed(made, some, none).shape == (3, 0)
    assert shortlist_distances(made, none, some, torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2)
    assert shortlist_distances(made, some, none, torch.empty(3, 0, dtype=torch.int64)).shape == (3, 0)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_without_the_second_layer_the_ranking_is_the_cosine_ranking(form: str, transform: str) -> None:
    made, x, y = module(transform, 128), vectors(4, 128), vectors(50, 128, seed=3)
    torch.nn.init.zeros_(made.excite.weight)
    cosine = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T
    found = streamed(made, x, y)
    assert torch.equal(found.argsort(1), (-cosine).argsort(1))
    assert torch.allclose(found, (2 - 2 * cosine).sqrt(), atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_distances_to_itself_and_to_nobody(form: str, transform: str) -> None:
    made, x = module(transform, 512), vectors(20, 512)
    assert (streamed(made, x, x).diagonal() <= 1e-3).all()  # the root of float32's rounding
    x[3] = 0  # no direction: as the module, no part in common with anybody
    assert torch.allclose(streamed(made, x, x)[3], torch.tensor(2.0).sqrt(), atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_blocks_of_any_size_and_any_order_give_the_same(
    form: str, transform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x, y = module(transform, 64), vectors(9, 64), vectors(50, 64, seed=4)
    whole = streamed(made, x, y)
    monkeypatch.setitem(pairs.PAIRS_AT_ONCE, "cpu", 7)
    assert torch.allclose(streamed(made, x, y, rows=4), whole, atol=1e-5)


def test_memory_is_bounded_by_the_block(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor is larger than the features, a block of distances, or the pairs at once."""
    made, x, y = module("sub_abs", 64), vectors(12, 64), vectors(200, 64, seed=5)
    monkeypatch.setitem(pairs.PAIRS_AT_ONCE, "cpu", 32)
    monkeypatch.setattr(pairs, "RANGE_PAIRS", 150)
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                largest = max(largest, result.numel())
            return result

    with Sizes():
        for _, found in attended_distances(made, x, y, rows=4):
            assert found.shape == (4, 200)
    assert 0 < largest <= y.numel() < 12 * 200 * 64 / 10


def test_features_and_a_module_in_float64_are_taken(form: str) -> None:
    made, x, y = module("sub_abs", 64), vectors(3, 64), vectors(5, 64, seed=6)
    expected = streamed(made, x, y)
    assert torch.equal(streamed(made.double(), x.double(), y.double()), expected)


def test_what_does_not_fit_is_said(form: str) -> None:
    made, x, y = module("sub", 64), vectors(3, 64), vectors(5, 64)
    with pytest.raises(CoreError, match=r"queries of shape \(3, 63\).*64 channels"):
        list(attended_distances(made, x[:, :63], y))
    with pytest.raises(CoreError, match="gallery on meta"):
        list(attended_distances(made, x, y.to("meta")))
    with pytest.raises(CoreError, match="gallery hold values that are not finite"):
        list(attended_distances(made, x, torch.where(y == y.max(), torch.nan, y)))
    for wrong in (torch.zeros(2, 4, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(CoreError, match=r"shape \(3, K\)"):
            shortlist_distances(made, x, y, wrong)
    for outside in (5, -1):
        with pytest.raises(CoreError, match="of 5"):
            shortlist_distances(made, x, y, torch.full((3, 1), outside))


#: Run with TRITON_INTERPRET=1, which Triton reads when it is imported; its interpreter does bfloat16 wrong.
INTERPRETED = """
import torch
from reid_core.evaluation import pairs
from reid_core.evaluation import pairs_triton
from tests.reid_core.evaluation.test_pairs import exact, module, vectors
for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 1e-3)):
    for dims, reduction, queries, gallery in ((40, 3, 3, 70), (128, 4, 2, 64), (70, 2, 1, 5)):
        made, x, y = module("sub_abs", dims, reduction), vectors(queries, dims), vectors(gallery, dims, seed=2)
        with torch.no_grad():
            gates = pairs._FloatGates(made, x, y, dtype)
            sums = torch.full((3, queries, gallery), torch.nan)
            pairs_triton.pair_sums(x, y, gates.x_part, gates.y_part, gates.squeeze, gates.excite, sums)
        error = (pairs._distances(sums) - exact(made, x, y)).abs().max().item()
        assert error <= tolerance, (dtype, dims, error)
print("six cases")
"""


def test_the_kernels_text_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "six cases\n", done.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("dims", "gallery"), [(2048, 300), (250, 33), (8192, 50)])  # 8192: too many for the kernel
def test_on_cuda(transform: str, dims: int, gallery: int) -> None:
    made, x, y = module(transform, dims), vectors(5, dims), vectors(gallery, dims, seed=2)
    expected = exact(made, x, y)
    made.cuda()
    found = streamed(made, x.cuda(), y.cuda(), rows=2)
    assert (found.cpu() - expected).abs().max() <= 4e-3
    shortlists = torch.arange(gallery).repeat(5, 1).cuda()
    assert torch.allclose(shortlist_distances(made, x.cuda(), y.cuda(), shortlists), found, atol=4e-3)  # PyTorch's form


@pytest.mark.parametrize("logit", [-3.0, -8.0, -14.0, -40.0])
def test_gates_that_are_all_but_shut_lose_nothing(form: str, logit: float) -> None:
    made = module("sub_abs", 1024)
    with torch.no_grad():  # W2's own part stays, under a common part that shuts every gate
        made.excite.weight += logit / made.squeeze(vectors(64, 1024).abs()).relu().sum(1).mean()
    x, y = vectors(5, 1024, 1), vectors(40, 1024, 2)
    assert made.gate(x[:, None], y[None]).mean() < 0.15
    assert (streamed(made, x, y).double() - exact(made, x, y)).abs().max() < 2e-3
    shortlists = torch.arange(40).repeat(5, 1)
    assert (shortlist_distances(made, x, y, shortlists).double() - exact(made, x, y)).abs().max() < 2e-3
