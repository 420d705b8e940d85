"""Diff attention: every form of the distance against the paper's formulas, written out here."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from reid_core import diff_attention, training_distances
from reid_core.diff_attention import DiffAttention
from schemas.cards import DiffAttentionSettings

TRANSFORMS = {"sub": lambda d: d, "sub_squ": lambda d: d * d, "sub_abs": lambda d: d.abs()}


def module(transform: str, dims: int = 24, reduction: int = 4, seed: int = 0) -> DiffAttention:
    """A module in float64 whose weights are far from their initialization."""
    torch.manual_seed(seed)
    made = DiffAttention(dims, DiffAttentionSettings(transform=transform, reduction=reduction)).double()
    with torch.no_grad():
        made.mix.copy_(torch.randn(3))
        made.bias.copy_(torch.randn(()))
        made.excite.weight.normal_(std=0.5)
    return made


def vectors(rows: int, dims: int = 24, seed: int = 1, scale: float = 1.0) -> Tensor:
    return torch.randn(rows, dims, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def written_out(made: DiffAttention, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """x', y' of one pair of vectors (D,), with a 1x1 convolution over the stack (diff, x, y) as in the paper."""
    stack = torch.stack([TRANSFORMS[made.settings.transform](x - y), x, y])  # (3, D)
    mixed = torch.nn.functional.conv1d(stack[None], made.mix[None, :, None], made.bias[None])[0, 0]  # (D,)
    hidden = torch.relu(made.squeeze.weight @ mixed)
    gate = 1 / (1 + torch.exp(-(made.excite.weight @ hidden)))
    return gate * x, gate * y


def plain_distances(made: DiffAttention, x: Tensor, y: Tensor, normalize: bool) -> Tensor:
    """Distances (m, n) from x' and y', pair by pair."""
    table = torch.zeros(len(x), len(y), dtype=torch.float64)
    for row in range(len(x)):
        for column in range(len(y)):
            a, b = written_out(made, x[row], y[column])
            if normalize:
                a, b = a / a.norm(), b / b.norm()
            table[row, column] = (a - b).norm()
    return table


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("normalize", [False, True])
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 30.0]))
@hypothesis_settings(max_examples=15, deadline=None)
def test_every_form_equals_the_formulas(transform: str, normalize: bool, seed: int, scale: float) -> None:
    made = module(transform, seed=seed)
    x, y = vectors(5, seed=seed, scale=scale), vectors(7, seed=seed + 1, scale=scale)
    expected = plain_distances(made, x, y, normalize)
    with torch.no_grad():
        attended = made(x[:5], y[:5])
        pairs = made.pair_distances(x, y[:5])
        matrix = made.distance_matrix(x, y, normalize=normalize)
    for row in range(5):
        for found, wanted in zip(attended, written_out(made, x[row], y[row]), strict=True):
            assert torch.allclose(found[row], wanted, rtol=1e-12)
    if normalize:
        assert torch.allclose(pairs, expected[:, :5].diagonal(), rtol=1e-9, atol=1e-9 * scale)
    assert torch.allclose(matrix, expected, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("block", [1, 24, 60, 100, 24 * 7, 24 * 15, 10**6])
def test_blocks_of_any_size_give_the_same(transform: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x, y = module(transform), vectors(7, seed=3), vectors(7, seed=4)
    rows = made.pair_distances(x, y)
    monkeypatch.setattr(diff_attention, "BLOCK_VALUES", block)
    assert torch.allclose(made.pair_distances(x, y), rows, rtol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_empty_inputs_give_empty_outputs(transform: str) -> None:
    made, none, some = module(transform), vectors(0), vectors(3)
    assert made.pair_distances(none, none).shape == (0,)
    for normalize in (False, True):
        assert made.distance_matrix(none, some, normalize=normalize).shape == (0, 3)
        assert made.distance_matrix(some, none, normalize=normalize).shape == (3, 0)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_distance_to_itself_is_zero_and_test_distances_lie_in_0_to_2(transform: str) -> None:
    made, x = module(transform), vectors(50, seed=5)
    assert not made.pair_distances(x, x).any()
    for normalize in (False, True):
        assert not made.distance_matrix(x, x.clone(), normalize=normalize).diagonal().any()
        assert not made.distance_matrix(x, x, normalize=normalize).diagonal().any()
    assert (made.distance_matrix(x, -x, normalize=True) <= 2).all()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_without_the_second_layer_the_ranking_is_the_cosine_ranking(transform: str) -> None:
    made, x, y = module(transform), vectors(20, seed=6), vectors(300, seed=7)
    torch.nn.init.zeros_(made.excite.weight)
    assert (made.gate(x, y[:20]) == 0.5).all()
    cosine = torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T
    distances = made.distance_matrix(x, y, normalize=True)
    assert torch.equal(distances.argsort(dim=1), (-cosine).argsort(dim=1))
    assert torch.allclose(distances, (2 - 2 * cosine).sqrt())


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_the_distance_depends_on_the_order(transform: str) -> None:
    made, x, y = module(transform), vectors(10, seed=8), vectors(10, seed=9)
    forth, back = (made.pair_distances(a, b) for a, b in ((x, y), (y, x)))
    assert ((forth - back).abs() > 1e-6).sum() >= 5  # where no hidden channel is active, the gate is 0.5 both ways
    # With w2 = w3 and a symmetric transform, both orders are equal.
    with torch.no_grad():
        made.mix[2] = made.mix[1]
    forth, back = (made.pair_distances(a, b) for a, b in ((x, y), (y, x)))
    assert torch.allclose(forth, back) == (transform != "sub")


def plain_training_distances(made: DiffAttention, x: Tensor, y: Tensor, normalize: bool) -> Tensor:
    """Distances (m, n) from x' and y', whose gradient is autograd's."""
    left, right = made(x.repeat_interleave(len(y), 0), y.repeat(len(x), 1))
    if normalize:
        left, right = (torch.nn.functional.normalize(side, dim=1) for side in (left, right))
    squared: Tensor = (left - right).square().sum(1).view(len(x), len(y))
    return squared.clamp(min=1e-12).sqrt() * (squared > 1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("mined", [False, True])  # all distances have a gradient, or a few of them
@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_training_distances_and_their_gradients_equal_autograds(
    transform: str, normalize: bool, same: bool, mined: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(training_distances.BLOCK_VALUES, "cpu", block)
    made, x, y = module(transform), vectors(9, seed=12), vectors(6, seed=13)
    weights = vectors(9, 9 if same else 6, seed=14)
    if mined:
        weights = weights.where(weights.abs() > 1.5, 0)
    found: list[list[Tensor]] = []
    for distances in (plain_training_distances, DiffAttention.distance_matrix):
        a = x.clone().requires_grad_()
        b = a if same else y.clone().requires_grad_()
        matrix = distances(made, a, b, normalize=normalize)
        made.zero_grad()
        (matrix * weights).sum().backward()  # type: ignore[no-untyped-call]
        found.append([matrix, *(tensor.grad for tensor in (a, b, *made.parameters()) if tensor.grad is not None)])
    assert len(found[0]) == 1 + 2 + 4
    for wanted, ours in zip(*found, strict=True):
        assert torch.allclose(ours, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("normalize", [False, True])
def test_training_gradients_equal_finite_differences(transform: str, normalize: bool) -> None:
    made, x, y = module(transform, dims=8, reduction=2), vectors(3, 8, seed=10), vectors(4, 8, seed=11)
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, y, *made.parameters())]

    def of_two(a: Tensor, b: Tensor, *parameters: Tensor) -> Tensor:
        weights = training_distances.Weights(transform, *parameters)
        return training_distances.training_distances(a, b, weights, normalize=normalize)

    def of_one(a: Tensor, *parameters: Tensor) -> Tensor:
        return of_two(a, a, *parameters)[~torch.eye(3, dtype=torch.bool)]

    assert torch.autograd.gradcheck(of_two, leaves)
    assert torch.autograd.gradcheck(of_one, [leaves[0], *leaves[2:]])


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_training_under_autocast_rounds_only_the_products(transform: str) -> None:
    made, x = module(transform, dims=64), vectors(8, 64).float()
    made.float()
    with torch.no_grad():
        made.excite.weight.mul_(0.1)
    grads = []
    for enabled in (False, True):
        made.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            distances = made.distance_matrix(x, x, normalize=False)
        assert distances.dtype == torch.float32
        distances.sum().backward()  # type: ignore[no-untyped-call]
        grads.append([distances.detach(), made.squeeze.weight.grad, made.excite.weight.grad])
    for exact, rounded in zip(*grads, strict=True):
        assert exact is not None and rounded is not None
        assert 0 < (exact - rounded).abs().max() <= 0.02 * exact.abs().max()


def test_training_distances_on_features_without_gradient() -> None:
    made, x = module("sub_abs"), vectors(6)
    distances = made.distance_matrix(x, x, normalize=False)
    assert torch.allclose(distances, made.distance_matrix(x, x.clone(), normalize=False), rtol=1e-12)
    assert not torch.allclose(distances, distances.T)
    distances.sum().backward()  # type: ignore[no-untyped-call]
    assert made.mix.grad is not None and made.mix.grad.all()


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("normalize", [False, True])
def test_training_has_no_gradient_at_zero_distance(transform: str, normalize: bool) -> None:
    made, x = module(transform, dims=8, reduction=2), vectors(3, 8, seed=10).requires_grad_()
    for other in (x, x.clone()):
        made.distance_matrix(x, other, normalize=normalize).diagonal().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and not x.grad.any()
    for parameter in made.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_fresh_module_is_near_the_plain_metric_and_has_gradients_everywhere(transform: str) -> None:
    torch.manual_seed(0)
    made = DiffAttention(256, DiffAttentionSettings(transform=transform))
    x, y = vectors(30, 256).float(), vectors(30, 256, seed=2).float()  # as after a BatchNorm: unit variance
    gate = made.gate(x, y)
    assert 0.005 < gate.std().item() < 0.1 and abs(gate.mean().item() - 0.5) < 0.02
    made.distance_matrix(x, y, normalize=False).sum().backward()  # type: ignore[no-untyped-call]
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_attention, "BLOCK_VALUES", 24 * 100)
    made = module("sub_abs")
    sizes: list[int] = []
    made.excite.register_forward_hook(lambda *call: sizes.append(call[2].numel()))
    with torch.no_grad():
        made.pair_distances(vectors(500), vectors(500))
    assert len(sizes) > 2 and max(sizes) <= 24 * 100


@pytest.mark.parametrize("normalize", [False, True])
def test_memory_of_all_pairs_is_bounded_by_the_block(normalize: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training_distances.BLOCK_VALUES, "cpu", 24 * 100)
    block, sizes = training_distances._Pairs._block, []

    def measured(*call: Any) -> Any:
        found = block(*call)
        sizes.append(found.gate.numel())
        return found

    monkeypatch.setattr(training_distances._Pairs, "_block", measured)
    x = vectors(60).requires_grad_()
    for other in (x, vectors(70)):
        module("sub_abs").distance_matrix(x, other, normalize=normalize).sum().backward()  # type: ignore[no-untyped-call]
    assert len(sizes) > 4 and max(sizes) <= 24 * 100
