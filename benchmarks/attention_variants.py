"""What diff attention adds to features that agree across cameras, and what its rivals do; on frozen embedders.

    python -m benchmarks.attention_variants --dataset market1501:DIR --convention JSON [--held-out] MODEL ...

MODEL: a model directory, or an .xml or .onnx file, whose convention is JSON such as {"color": "bgr", "range": 255,
"mean": [0, 0, 0], "std": [1, 1, 1]}. Prints Rank-1 / mAP / mINP of each way to compare the pictures of the test people,
and differences in mAP with their intervals over people. What is learned is learned from the training people.
`--held-out` judges on seven parts of the training people instead, each with the others to learn from: settings were
chosen there. `--crops K` compares means of K crops of a person at one camera, as the city compares tracklets. Gates
have `--seeds` seeds, other ways none.

- plain, normalized: a camera's mean is that of the crops that are judged.
- basis, length kept: without and with a constant channel beside the basis (`reid_core.feature_space`).
- PLDA: log-odds of one person against two, each normally distributed (Ioffe 2006).
- Sub, Sub+Squ, Sub+Abs: the paper's module, trained separately on the test distance.
- gate from 1: the same with the gate exp(W2 relu(W1 |x - y|)), which begins as 1 and has D/16 hidden channels.
- weights: one gate for all pairs, trained as the others are. What a gate is worth is what it gains over this.
- whitened: the basis's directions, all with the same weight.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from reid_core.datasets import open_dataset
from reid_core.datasets.person_pictures import JUNK
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.evaluate import features_of, model_directory
from reid_core.evaluation.ranking import RankingMetrics, RankingScores, over_seeds, paired_bootstrap
from reid_core.feature_space import Basis, learn_basis, learn_means
from reid_core.files import read_card
from reid_core.training.losses import batch_hard_triplet
from reid_core.training.sampling import identity_batches
from schemas.arrays import Bools, Floats, Ints
from schemas.cards import DiffAttentionSettings, InputConvention
from schemas.settings import settings

#: Parts of the training people of which each is held out once.
PARTS = 7
#: The ridge of PLDA and of whitened features, in parts of the mean variance within a person.
RIDGE = 0.5
#: Training of gates: epochs, people in a batch and pictures of each.
EPOCHS, PEOPLE, PICTURES = 2, 16, 4


class Side(NamedTuple):
    """Features of crops or of tracklets, who they show, and their cameras."""

    features: Floats  # (N, D)
    people: Ints  # (N,)
    cameras: Ints  # (N,)

    def select(self, rows: Bools) -> "Side":
        return Side(self.features[rows], self.people[rows], self.cameras[rows])


class Task(NamedTuple):
    """Whom to learn from, and who is looked for among whom."""

    taught: Side
    query: Side
    gallery: Side


class Way(NamedTuple):
    """Features of each crop in a space, and how two are compared there: likenesses (Q, G), large = alike."""

    space: Callable[[Task], Task]
    alike: Callable[[Task, int], Floats]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--convention", type=InputConvention.model_validate_json, help="of files, as JSON")
    parser.add_argument("--held-out", action="store_true", help="judge on training people")
    parser.add_argument("--crops", type=int, default=1, help="of which a prototype is the mean")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ways", help="a part of a name: only ways with it in their names, and those without a gate")
    given = parser.parse_args()
    for model in given.models:
        whole = embedded(model, given.convention, given.dataset)
        tasks = list(held_out(whole.taught)) if given.held_out else [whole]
        judged = "held-out training people" if given.held_out else "test people"
        print(f"\n{model.stem}, {judged}, {given.crops} crop(s)\n")
        print("| | Rank-1 | mAP | mINP | mAP less plain | less basis | less own without gate |\n" + "|---" * 7 + "|")
        scores = {name: judge(WAYS[name], tasks, given.crops, 1) for name in SPACES}
        for name, way in WAYS.items():
            if given.ways is None or given.ways in name or name in SPACES:
                if name not in scores:
                    scores[name] = judge(way, tasks, given.crops, given.seeds)
                print(row(name, scores), flush=True)


def row(name: str, scores: Mapping[str, Sequence[RankingScores]]) -> str:
    """A line of the table; `scores`: of each way so far, one a seed."""
    found = scores[name]
    space = name.partition(" + ")[0]
    spread = over_seeds(found)
    cells = [name, *(str(spread[metric]) for metric in ("rank1", "mAP", "mINP"))]
    others = ("plain", "basis", space)
    cells += ["" if other == name else str(paired_bootstrap(scores[other], found)["mAP"]) for other in others]
    return f"| {' | '.join(cells)} |"


def judge(way: Way, tasks: Sequence[Task], crops: int, seeds: int) -> list[RankingScores]:
    """The scores of each seed over all queries of all tasks, each compared with the gallery of its own task."""
    placed = [Task(*(prototypes(side, crops) for side in way.space(task))) for task in tasks]
    gallery = [task.gallery for task in placed]
    ends = np.cumsum([len(side.people) for side in gallery])
    found = []
    for seed in range(seeds):
        metrics = RankingMetrics(
            np.concatenate([side.people for side in gallery]), np.concatenate([side.cameras for side in gallery])
        )
        for task, end in zip(placed, ends, strict=True):
            alike = way.alike(task, seed)
            distances = np.full((len(alike), ends[-1]), np.inf)
            distances[:, end - alike.shape[1] : end] = -alike
            metrics.update(distances, task.query.people, task.query.cameras)
        found.append(metrics.compute())
    return found


# Who is judged


def embedded(model: Path, convention: InputConvention | None, source: str) -> Task:
    """The embedder's features of the data set: its training people, queries and gallery."""
    with model_directory(model, convention, settings()) as directory:
        dataset, card = open_dataset(source), read_card(directory)
        people = [dataset.load(split, card.input) for split in ("train", "query", "gallery")]
        people = [side.select(np.flatnonzero(side.identities != JUNK)) for side in people]
        features = features_of(settings(), directory, people)
    found = zip(features, people, strict=True)
    return Task(*(Side(rows.cpu().double().numpy(), side.identities, side.cameras) for rows, side in found))


def held_out(taught: Side) -> Iterator[Task]:
    """Each part of the people once: those at the first camera are looked for among those at the others."""
    people = np.random.default_rng(0).permutation(np.unique(taught.people))
    for part in np.array_split(people, PARTS):
        judged = np.isin(taught.people, part)
        first = taught.cameras == taught.cameras.min()
        yield Task(taught.select(~judged), taught.select(judged & first), taught.select(judged & ~first))


def prototypes(side: Side, crops: int) -> Side:
    """Means of `crops` crops of one person at one camera; what is left over is left out, unless it is all there is."""
    if crops == 1:
        return side
    rng = np.random.default_rng(0)
    keys = np.unique(np.stack([side.people, side.cameras], 1), axis=0)
    groups = []
    for person, camera in keys:
        rows = rng.permutation(np.flatnonzero((side.people == person) & (side.cameras == camera)))
        groups += [rows[start : start + crops] for start in range(0, max(1, len(rows) - crops + 1), crops)]
    first = np.array([group[0] for group in groups])
    means = np.stack([side.features[group].mean(axis=0) for group in groups])
    return Side(means, side.people[first], side.cameras[first])


# Spaces


def plain(task: Task) -> Task:
    return Task(*(side._replace(features=unit(side.features)) for side in task))


def placed(task: Task, basis: Basis | None) -> Task:
    """In a space of each camera's mean: those of the crops to learn from, and of the crops that are judged."""
    judged = Side(*(np.concatenate(part) for part in zip(task.query, task.gallery, strict=True)))
    means = [learn_means(side.features, codes(side)) for side in (task.taught, judged)]
    spaces = [replace(found, basis=basis) for found in (means[0], means[1], means[1])]
    applied = zip(spaces, task, strict=True)
    return Task(*(side._replace(features=space.apply(side.features, codes(side))) for space, side in applied))


def normalized(task: Task) -> Task:
    return placed(task, None)


def with_length(task: Task) -> Task:
    taught = normalized(task).taught
    return placed(task, learn_basis(taught.features, taught.people.tolist()))


def in_basis(task: Task) -> Task:
    taught = normalized(task).taught
    return placed(task, replace(learn_basis(taught.features, taught.people.tolist()), length_kept=False))


def whitened(task: Task) -> Task:
    """One person's features spread alike in all directions, which are those that people's means spread in."""
    centered = normalized(task)
    within, between = covariances(centered.taught)
    variance, axes = np.linalg.eigh(within)
    whitening = (axes * variance**-0.5) @ axes.T
    turned = whitening @ np.linalg.eigh(whitening @ between @ whitening)[1]
    return plain(Task(*(side._replace(features=side.features @ turned) for side in centered)))


def covariances(side: Side) -> tuple[Floats, Floats]:
    """Those within persons, with the ridge, and between them, both (D, D)."""
    _, numbers, counts = np.unique(side.people, return_inverse=True, return_counts=True)
    means = np.zeros((len(counts), side.features.shape[1]))
    np.add.at(means, numbers, side.features)
    means /= counts[:, None]
    rest = side.features - means[numbers]
    within = rest.T @ rest / (len(rest) - len(counts))
    variance, axes = np.linalg.eigh(np.cov(means.T) - within * np.mean(1 / counts))
    ridge = RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    return within + ridge, (axes * variance.clip(min=0)) @ axes.T


def codes(side: Side) -> list[str]:
    return list(map(str, side.cameras.tolist()))


def unit(features: Floats) -> Floats:
    found: Floats = features / np.linalg.norm(features, axis=1, keepdims=True)
    return found


# Comparisons


def cosine(task: Task, _: int) -> Floats:
    found: Floats = unit(task.query.features) @ unit(task.gallery.features).T
    return found


def plda(task: Task, _: int) -> Floats:
    """Log-odds, less what depends on no picture: x'Ax + y'Ay + 2 x'Gy with x = m + e, m from B, e from W."""
    within, between = covariances(task.taught)
    total = np.linalg.inv(within + between)
    inner = np.linalg.inv(within + between - between @ total @ between)
    own, cross = total - inner, total @ between @ inner
    x, y = task.query.features, task.gallery.features
    found: Floats = 2 * x @ cross @ y.T + ((x @ own) * x).sum(1)[:, None] + ((y @ own) * y).sum(1)
    return found


#: Test distances (m, n) of x (m, D), the queries, and y (n, D); and what is trained.
Gate = tuple[Callable[[Tensor, Tensor], Tensor], Iterable[nn.Parameter]]


def from_one(dims: int) -> Gate:
    """Gate exp(W2 relu(W1 |x - y|)), 1 at the start."""
    squeeze, excite = nn.Linear(dims, dims // 16), nn.Linear(dims // 16, dims)
    nn.init.zeros_(excite.weight)
    nn.init.zeros_(excite.bias)
    inner = nn.Sequential(squeeze, nn.ReLU(), excite)
    return lambda x, y: gated_distances(torch.exp(inner((x[:, None] - y[None]).abs())), x, y), inner.parameters()


def weights(dims: int) -> Gate:
    """One gate for all pairs, 1 at the start."""
    logarithms = nn.Parameter(torch.zeros(dims))
    return lambda x, y: gated_distances(torch.exp(logarithms).expand(len(x), len(y), -1), x, y), [logarithms]


def paper(transform: str) -> Callable[[int], Gate]:
    """The paper's module."""

    def made(dims: int) -> Gate:
        module = DiffAttention(dims, DiffAttentionSettings.model_validate({"transform": transform}))
        return partial(module.distance_matrix, normalize=True), module.parameters()

    return made


def gated_distances(gate: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The test distances (m, n) of x (m, D) and y (n, D) for gates (m, n, D)."""
    squared = gate.square()
    cross = (squared * x[:, None] * y[None]).sum(-1)
    lengths = (squared * x.square()[:, None]).sum(-1) * (squared * y.square()[None]).sum(-1)
    return (2 - 2 * cross / lengths.sqrt()).clamp(min=1e-6).sqrt()


def trained(make: Callable[[int], Gate], rate: float) -> Callable[[Task, int], Floats]:
    """Compares by a gate that was trained on the people to learn from, with the paper's loss and batches."""

    def alike(task: Task, seed: int) -> Floats:
        torch.manual_seed(seed)
        # Channels of unit variance, as those of the features that the module was made for.
        scale = task.taught.features.shape[1] ** 0.5
        taught, query, gallery = (torch.from_numpy(scale * unit(side.features)).float() for side in task)
        distances_of, parameters = make(taught.shape[1])
        adam = torch.optim.Adam(parameters, lr=rate)
        labels = torch.from_numpy(task.taught.people)
        batches = [
            batch
            for epoch in range(EPOCHS)
            for batch in identity_batches(task.taught.people, PEOPLE, PICTURES, (seed, epoch))
        ]
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(batches))
        for batch in batches:
            rows = taught[batch]
            adam.zero_grad()
            loss = 10 * batch_hard_triplet(distances_of(rows, rows), labels[batch], None)
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            schedule.step()
        with torch.inference_mode():
            found = [distances_of(part, gallery) for part in torch.split(query, 16)]
        distances: Floats = torch.cat(found).double().numpy()
        return -distances

    return alike


#: Ways without a gate, by name.
SPACES = {
    "plain": Way(plain, cosine),
    "normalized": Way(normalized, cosine),
    "whitened": Way(whitened, cosine),
    "basis": Way(in_basis, cosine),
    "length kept": Way(with_length, cosine),
    "PLDA": Way(normalized, plda),
}
#: All, in the order of the table; those with a gate begin with the name of their space.
WAYS = SPACES | {
    "basis + Sub": Way(in_basis, trained(paper("sub"), 3e-4)),
    "basis + Sub+Squ": Way(in_basis, trained(paper("sub_squ"), 3e-4)),
    "basis + Sub+Abs": Way(in_basis, trained(paper("sub_abs"), 3e-4)),
    "basis + gate from 1": Way(in_basis, trained(from_one, 1e-4)),
    "basis + weights": Way(in_basis, trained(weights, 1e-2)),
    "length kept + Sub": Way(with_length, trained(paper("sub"), 3e-4)),
    "length kept + gate from 1": Way(with_length, trained(from_one, 1e-4)),
    "whitened + Sub": Way(whitened, trained(paper("sub"), 3e-4)),
    "whitened + weights": Way(whitened, trained(weights, 1e-2)),
    "normalized + Sub": Way(normalized, trained(paper("sub"), 3e-4)),
}


if __name__ == "__main__":
    main()
