"""Diff attention: every form of the distance against the formulas of the paper, written out plainly here."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from reid_core import diff_attention
from reid_core.diff_attention import DiffAttention
from schemas.cards import DiffAttentionSettings

TRANSFORMS = {"sub": lambda d: d, "sub_squ": lambda d: d * d, "sub_abs": lambda d: d.abs()}


def module(transform: str, dims: int = 24, reduction: int = 4, seed: int = 0) -> DiffAttention:
    """A module in float64 that is far from its gentle start."""
    torch.manual_seed(seed)
    made = DiffAttention(dims, DiffAttentionSettings(transform=transform, reduction=reduction)).double()  # type: ignore[arg-type]
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
    """(m, n) distances from x' and y' that are built, pair by pair."""
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
def test_every_form_equals_the_plain_one(transform: str, normalize: bool, seed: int, scale: float) -> None:
    made = module(transform, seed=seed)
    x, y = vectors(5, seed=seed, scale=scale), vectors(7, seed=seed + 1, scale=scale)
    expected = plain_distances(made, x, y, normalize)
    with torch.no_grad():
        attended = made(x[:5], y[:5])
        pairs = made.pair_distances(x, y[:5], normalize=normalize)
        matrix = made.distance_matrix(x, y, normalize=normalize)
    for row in range(5):
        for found, wanted in zip(attended, written_out(made, x[row], y[row]), strict=True):
            assert torch.allclose(found[row], wanted, rtol=1e-12)
    assert torch.allclose(pairs, expected[:, :5].diagonal(), rtol=1e-9, atol=1e-9 * scale)
    assert torch.allclose(matrix, expected, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("block", [1, 24, 60, 100, 24 * 7, 24 * 15, 10**6])
def test_blocks_of_any_size_give_the_same(
    transform: str, normalize: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x, y = module(transform), vectors(11, seed=3), vectors(7, seed=4)
    whole = made.distance_matrix(x, y, normalize=normalize)
    rows = made.pair_distances(x[:7], y, normalize=normalize)
    monkeypatch.setattr(diff_attention, "BLOCK_VALUES", block)
    assert torch.allclose(made.distance_matrix(x, y, normalize=normalize), whole, rtol=1e-12)
    assert torch.allclose(made.pair_distances(x[:7], y, normalize=normalize), rows, rtol=1e-12)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_nothing_in_nothing_out(transform: str) -> None:
    made, none, some = module(transform), vectors(0), vectors(3)
    for normalize in (False, True):
        assert made.pair_distances(none, none, normalize=normalize).shape == (0,)
        assert made.distance_matrix(none, some, normalize=normalize).shape == (0, 3)
        assert made.distance_matrix(some, none, normalize=normalize).shape == (3, 0)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_distance_to_itself_is_zero_and_test_distances_lie_in_0_to_2(transform: str) -> None:
    made, x = module(transform), vectors(50, seed=5)
    for normalize in (False, True):
        assert not made.pair_distances(x, x, normalize=normalize).any()
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
def test_the_distance_is_not_symmetric_and_keeps_the_order(transform: str) -> None:
    made, x, y = module(transform), vectors(10, seed=8), vectors(10, seed=9)
    forth, back = (made.pair_distances(a, b, normalize=True) for a, b in ((x, y), (y, x)))
    assert ((forth - back).abs() > 1e-6).sum() >= 5  # where no hidden channel is active, the gate is 0.5 both ways
    # With w2 = w3 and a transform that forgets the sign, both orders are one.
    with torch.no_grad():
        made.mix[2] = made.mix[1]
    forth, back = (made.pair_distances(a, b, normalize=True) for a, b in ((x, y), (y, x)))
    assert torch.allclose(forth, back) == (transform != "sub")


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_training_has_right_gradients_and_none_at_zero_distance(transform: str) -> None:
    made, x, y = module(transform, dims=8, reduction=2), vectors(3, 8, seed=10), vectors(4, 8, seed=11)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: made.distance_matrix(a, b, normalize=False), (x, y))
    made.distance_matrix(x, x, normalize=False).diagonal().sum().backward()
    assert x.grad is not None and not x.grad.any()
    for parameter in made.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_fresh_module_is_near_the_plain_metric_and_all_of_it_learns(transform: str) -> None:
    torch.manual_seed(0)
    made = DiffAttention(256, DiffAttentionSettings(transform=transform))  # type: ignore[arg-type]
    x, y = vectors(30, 256).float(), vectors(30, 256, seed=2).float()  # as after a BatchNorm: unit variance
    gate = made.gate(x, y)
    assert 0.005 < gate.std().item() < 0.1 and abs(gate.mean().item() - 0.5) < 0.02
    made.distance_matrix(x, y, normalize=False).sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_memory_is_bounded_by_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_attention, "BLOCK_VALUES", 24 * 100)
    made = module("sub_abs")
    sizes: list[int] = []
    made.excite.register_forward_hook(lambda *call: sizes.append(call[2].numel()))
    with torch.no_grad():
        made.distance_matrix(vectors(60), vectors(70), normalize=True)
        made.pair_distances(vectors(500), vectors(500), normalize=True)
    assert len(sizes) > 2 and max(sizes) <= 24 * 100
