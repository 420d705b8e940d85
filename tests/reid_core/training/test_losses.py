import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from reid_core.training.losses import CenterLoss, batch_hard_triplet, circle_loss, weighted_regularized_triplet

IDENTITIES = torch.tensor([7, 7, 7, 3, 3, 9, 9, 9])


@pytest.fixture
def distances() -> Tensor:
    """A matrix that is not symmetric, as attended distances are, in float64."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(len(IDENTITIES), len(IDENTITIES), generator=generator, dtype=torch.float64) * 4


def naive_sets(row: int) -> tuple[list[int], list[int]]:
    n = range(len(IDENTITIES))
    positives = [j for j in n if j != row and IDENTITIES[j] == IDENTITIES[row]]
    return positives, [j for j in n if IDENTITIES[j] != IDENTITIES[row]]


def naive_batch_hard(distances: Tensor, margin: float | None) -> float:
    terms = []
    for i, row in enumerate(distances.tolist()):
        positives, negatives = naive_sets(i)
        gap = max(row[j] for j in positives) - min(row[j] for j in negatives)
        terms.append(math.log(1 + math.exp(gap)) if margin is None else max(0.0, gap + margin))
    return sum(terms) / len(terms)


def naive_weighted(distances: Tensor) -> float:
    terms = []
    for i, row in enumerate(distances.tolist()):
        positives, negatives = naive_sets(i)
        p = sum(math.exp(row[j]) for j in positives)
        n = sum(math.exp(-row[j]) for j in negatives)
        d_p = sum(math.exp(row[j]) / p * row[j] for j in positives)
        d_n = sum(math.exp(-row[j]) / n * row[j] for j in negatives)
        terms.append(math.log(1 + math.exp(d_p - d_n)))
    return sum(terms) / len(terms)


def naive_circle(similarities: Tensor, weights: Tensor, margin: float, gamma: float) -> Tensor:
    """The paper's sum; the similarities from which the weights are computed are a separate argument."""
    terms = []
    for i in range(len(IDENTITIES)):
        positives, negatives = naive_sets(i)
        near = [
            gamma * max(0.0, 1 + margin - weights[i, j].item()) * (similarities[i, j] - 1 + margin) for j in positives
        ]
        far = [gamma * max(0.0, weights[i, j].item() + margin) * (similarities[i, j] - margin) for j in negatives]
        terms.append(torch.log1p(sum(torch.exp(f) for f in far) * sum(torch.exp(-n) for n in near)))  # type: ignore[arg-type]
    return torch.stack(terms).mean()


@pytest.fixture
def cosines() -> Tensor:
    """Cosines of random directions in three dimensions, so that some are beyond every margin."""
    generator = torch.Generator().manual_seed(2)
    features = F.normalize(torch.randn(len(IDENTITIES), 3, generator=generator, dtype=torch.float64))
    return features @ features.T


@pytest.mark.parametrize("margin", [0.3, 0.0, 2.5, None])
def test_batch_hard_equals_the_naive_loop(distances: Tensor, margin: float | None) -> None:
    assert batch_hard_triplet(distances, IDENTITIES, margin).item() == pytest.approx(
        naive_batch_hard(distances, margin)
    )


def test_weighted_equals_the_naive_loop(distances: Tensor) -> None:
    assert weighted_regularized_triplet(distances, IDENTITIES).item() == pytest.approx(naive_weighted(distances))


@pytest.mark.parametrize(("margin", "gamma"), [(0.25, 1.0), (0.25, 128.0), (0.4, 80.0)])
def test_circle_and_its_gradient_equal_the_naive_loop(cosines: Tensor, margin: float, gamma: float) -> None:
    held = cosines.clone()
    ours, theirs = cosines.clone().requires_grad_(), cosines.clone().requires_grad_()
    loss, expected = (
        circle_loss(ours, IDENTITIES, margin=margin, gamma=gamma),
        naive_circle(theirs, held, margin, gamma),
    )
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(torch.autograd.grad(loss, ours), torch.autograd.grad(expected, theirs))
    # The gradient of the reference itself, at a scale that finite differences resolve.
    assert torch.autograd.gradcheck(lambda s: naive_circle(s, held, margin, 2.0), theirs)


def test_circles_gradient_equals_the_papers(cosines: Tensor) -> None:
    """In closed form, where no weight is clipped: exponents are gamma (s_n^2 - m^2) and gamma ((1 - s_p)^2 - m^2)."""
    margin, gamma = 0.25, 2.0
    similarities = (cosines * 0.2 + 0.3).requires_grad_()
    (gradient,) = torch.autograd.grad(circle_loss(similarities, IDENTITIES, margin=margin, gamma=gamma), similarities)
    expected = torch.zeros_like(gradient)
    for i, row in enumerate(similarities.tolist()):
        positives, negatives = naive_sets(i)
        far = {j: math.exp(gamma * (row[j] ** 2 - margin**2)) for j in negatives}
        near = {j: math.exp(gamma * ((1 - row[j]) ** 2 - margin**2)) for j in positives}
        z = 1 - 1 / (1 + sum(far.values()) * sum(near.values()))
        for j in negatives:
            expected[i, j] = z * far[j] / sum(far.values()) * gamma * (row[j] + margin) / len(IDENTITIES)
        for j in positives:
            expected[i, j] = z * near[j] / sum(near.values()) * gamma * (row[j] - 1 - margin) / len(IDENTITIES)
    torch.testing.assert_close(gradient, expected)


def test_circle_at_the_optimum_and_far_from_it() -> None:
    same = IDENTITIES[:, None] == IDENTITIES[None]
    best = torch.where(same, 1.0, 0.0)
    assert circle_loss(best, IDENTITIES).item() < 1e-4
    worst = (1 - 2 * best).requires_grad_()  # positives are opposite, negatives equal
    loss = circle_loss(worst, IDENTITIES)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite() and loss.item() > 300 and worst.grad is not None and worst.grad.isfinite().all()


def test_cross_entropy_with_label_smoothing_equals_the_papers() -> None:
    """torch's cross-entropy, which training uses: 0.9 + 0.1 / C on the label, 0.1 / C on each other class."""
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 4, 4, 2])
    terms = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = math.log(sum(math.exp(value) for value in row))
        terms += [-sum((0.1 / 5 + 0.9 * (k == label)) * (row[k] - total) for k in range(5))]
    loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert loss.item() == pytest.approx(sum(terms) / 4)
    assert torch.autograd.gradcheck(lambda x: F.cross_entropy(x, labels, label_smoothing=0.1), logits)


def test_the_distance_to_itself_does_not_count(distances: Tensor) -> None:
    other = distances.clone().fill_diagonal_(100)
    assert batch_hard_triplet(distances, IDENTITIES, 0.3) == batch_hard_triplet(other, IDENTITIES, 0.3)
    assert weighted_regularized_triplet(distances, IDENTITIES) == weighted_regularized_triplet(other, IDENTITIES)
    assert circle_loss(distances / 4, IDENTITIES) == circle_loss(other / 4, IDENTITIES)


def test_large_distances_stay_finite(distances: Tensor) -> None:
    far = (distances.float() * 1000).requires_grad_()
    loss = weighted_regularized_triplet(far, IDENTITIES) + batch_hard_triplet(far, IDENTITIES, None)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite() and far.grad is not None and far.grad.isfinite().all()


def test_gradients(distances: Tensor) -> None:
    distances.requires_grad_()
    assert torch.autograd.gradcheck(lambda d: batch_hard_triplet(d, IDENTITIES, None), distances)
    assert torch.autograd.gradcheck(lambda d: batch_hard_triplet(d, IDENTITIES, 0.3), distances)
    assert torch.autograd.gradcheck(lambda d: weighted_regularized_triplet(d, IDENTITIES), distances)


def test_the_loss_falls_when_positives_come_nearer(distances: Tensor) -> None:
    same = IDENTITIES[:, None] == IDENTITIES[None]
    nearer = torch.where(same, distances - 0.5, distances)
    assert batch_hard_triplet(nearer, IDENTITIES, None) < batch_hard_triplet(distances, IDENTITIES, None)
    # The weights of the weighted loss stay the same, since all positives move by the same amount.
    assert weighted_regularized_triplet(nearer, IDENTITIES) < weighted_regularized_triplet(distances, IDENTITIES)


def test_a_batch_without_positives_is_an_error(distances: Tensor) -> None:
    with pytest.raises(AssertionError, match="positive and a negative"):
        batch_hard_triplet(distances[:2, :2], torch.tensor([1, 2]), 0.3)
    with pytest.raises(AssertionError, match="positive and a negative"):
        circle_loss(distances[:2, :2], torch.tensor([1, 1]))


def test_center_loss_equals_the_naive_loop() -> None:
    torch.manual_seed(0)
    loss = CenterLoss(3, 5).double()
    features = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 2, 2, 1])
    expected = sum(
        sum((features[i, k].item() - loss.centers[labels[i], k].item()) ** 2 for k in range(5)) for i in range(4)
    )
    assert loss(features, labels).item() == pytest.approx(expected / 4)
    assert torch.autograd.gradcheck(lambda x, c: torch.func.functional_call(loss, {"centers": c}, (x, labels)), (
        features, loss.centers.detach().clone().requires_grad_(),
    ))  # fmt: skip


def test_the_centers_step_does_not_depend_on_the_weight() -> None:
    features, labels = torch.ones(2, 3), torch.tensor([0, 1])
    stepped = []
    for weight in (5e-4, 1.0):
        loss = CenterLoss(2, 3)
        torch.nn.init.zeros_(loss.centers)
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)
        (weight * loss(features, labels)).backward()
        loss.undo_weight(weight)
        optimizer.step()
        stepped.append(loss.centers.detach())
    torch.testing.assert_close(stepped[0], stepped[1])
    # d/dc of mean |f - c|^2 over two pictures is -(f - c), times 0.5.
    torch.testing.assert_close(stepped[1], torch.full((2, 3), 0.5))
