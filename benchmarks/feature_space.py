"""What camera means and a basis gain: ranking, means from few or odd crops, time.

    python -m benchmarks.feature_space ranking --dataset market1501:DIR --model FILE --convention JSON [--rerank]
    python -m benchmarks.feature_space means --dataset market1501:DIR --model FILE --convention JSON
    python -m benchmarks.feature_space cost [--dims 256]

`--model` is a model directory, or an .xml or .onnx file, whose convention is JSON such as {"color": "bgr",
"range": 255, "mean": [0, 0, 0], "std": [1, 1, 1]}. Figures are Rank-1 / mAP / mINP in percent; gains in mAP have a 95 %
interval, a paired bootstrap over people. `--held-out` takes, in place of the test people, 100 of the training people in
each of three draws, whose figures are averaged: settings are chosen with it.

ranking: plain; normalized (means of the evaluated pictures' cameras), or by means of the training people at the same
cameras; with a basis from the training people, or a few of them; from their passages (one person at one camera), which
need no label, alone or with mutual neighbors as one person, with all of the people or a few of them at both cameras;
from the evaluated pictures' own passages, as a city teaches itself; a basis alone.

means: normalized by means that the training people's crops teach, whole passages of them until there are so many a
camera, for several strengths; half of a camera's crops being one person's, counted by passages or by crops; and the
gallery at half the brightness, or at night (gray, a quarter of the brightness, noise), with means learned by day, at
that light, and from both.

cost: processor time of a crop and of a pair.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from reid_core.datasets import open_dataset
from reid_core.datasets.dataset import SplitName
from reid_core.datasets.hold_out import hold_out
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.evaluate import features_of, model_directory, rank_features
from reid_core.evaluation.ranking import RankingScores, over_seeds, paired_bootstrap
from reid_core.evaluation.spaces import basis_of, camera_codes
from reid_core.feature_space import Basis, FeatureSpace, learn_basis, learn_means, mutual_neighbors
from reid_core.files import model_digest, read_card
from schemas.arrays import Floats, Ints
from schemas.cards import DiffAttentionSettings, InputConvention
from schemas.settings import settings

DRAWS = 3
STRENGTHS = (0.0, 5.0, 20.0, 100.0)
CROPS = (1, 5, 20, 100, 500)
PEOPLE = (50, 100, 200)
AT_BOTH = (1.0, 0.5, 0.2, 0.05)


@dataclass(frozen=True)
class People:
    """Pictures of people with their raw features, float64 (N, D)."""

    features: Floats
    people: PersonPictures

    @property
    def codes(self) -> list[str]:
        return camera_codes(self.people)

    @property
    def passages(self) -> list[tuple[int, int]]:
        return list(zip(self.people.identities.tolist(), self.people.cameras.tolist(), strict=True))

    def take(self, rows: Ints) -> "People":
        return People(self.features[rows], self.people.select(rows))


@dataclass(frozen=True)
class Trial:
    """What is ranked, and the training people that may teach."""

    query: People
    gallery: People
    train: People

    def rank(self, space: FeatureSpace | None, rerank: bool = False) -> RankingScores:
        left, right = (
            torch.from_numpy(side.features if space is None else space.apply(side.features, side.codes))
            for side in (self.query, self.gallery)
        )
        scores = rank_features(left, right, None, self.query.people, self.gallery.people, rerank=rerank)
        return scores["reranked" if rerank else "plain"]

    def means(self, own: bool = True, cameras: bool = True) -> FeatureSpace:
        """Means of the evaluated pictures' cameras, or of the training people's."""
        sides = (self.query, self.gallery) if own else (self.train,)
        codes = [code if cameras else "" for side in sides for code in side.codes]
        return learn_means(np.concatenate([side.features for side in sides]), codes)

    def basis(self, rows: Ints | None = None, cameras: bool = True) -> Basis:
        """A basis from the training people, or from those at `rows`."""
        taught = self.train if rows is None else self.train.take(rows)
        return basis_of(taught.features, taught.people, cameras)

    @property
    def judged(self) -> People:
        return _joined((self.query, self.gallery))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ranking", "means", "cost"))
    parser.add_argument("--dataset", help="such as market1501:DIR")
    parser.add_argument("--model", type=Path, help="a model directory, or an .xml or .onnx file")
    parser.add_argument("--convention", type=InputConvention.model_validate_json, help="of a file, as JSON")
    parser.add_argument("--held-out", action="store_true", help="100 training people in place of the test people")
    parser.add_argument("--keep", type=Path, help="a folder in which features are kept, and read from the next time")
    parser.add_argument("--rerank", action="store_true", help="ranking: k-reciprocal re-ranking too")
    parser.add_argument("--dims", type=int, default=256, help="cost: width of the features")
    given = parser.parse_args()
    if given.what == "cost":
        cost(given.dims)
        return
    if given.dataset is None or given.model is None:
        parser.error("--dataset and --model are needed")
    with model_directory(given.model, given.convention, settings()) as folder:
        embedder = Embedder(folder, given.dataset, given.keep)
        trials = list(embedder.held_out()) if given.held_out else [embedder.test()]
        if given.what == "ranking":
            ranking(trials, given.rerank)
        else:
            means(trials)
            light(trials, embedder)


class Embedder:
    """The features of a data set's pictures by one model."""

    def __init__(self, folder: Path, dataset: str, keep: Path | None) -> None:
        self.folder, self.dataset, self.keep = folder, open_dataset(dataset), keep
        self.card = read_card(folder)
        self.train = self.split("train")

    def split(self, name: SplitName) -> People:
        people = self.dataset.load(name, self.card.input)
        if self.keep is None:
            return self.embed(people)
        file = self.keep / f"{people.digest()[:16]}-{model_digest(self.card).hex()[:16]}.npy"
        if not file.exists():
            np.save(file, self.embed(people).features)
        return People(np.load(file), people)

    def embed(self, people: PersonPictures) -> People:
        (found,) = features_of(settings(), self.folder, [people])
        return People(found.cpu().double().numpy(), people)

    def test(self) -> Trial:
        query, gallery = self.split("query"), self.split("gallery")
        return Trial(query, gallery.take(np.flatnonzero(gallery.people.identities != JUNK)), self.train)

    def held_out(self) -> Iterator[Trial]:
        rows = {name: row for row, name in enumerate(self.train.people.names)}
        for seed in range(DRAWS):
            parts = (np.array([rows[name] for name in part.names]) for part in hold_out(self.train.people, seed=seed))
            train, query, gallery = (self.train.take(part) for part in parts)
            yield Trial(query, gallery, train)


def ranking(trials: Sequence[Trial], rerank: bool) -> None:
    def few(trial: Trial, people: int) -> Ints:
        known = np.unique(trial.train.people.identities)
        return np.flatnonzero(
            np.isin(trial.train.people.identities, np.random.default_rng(0).permutation(known)[:people])
        )

    rows: dict[str, Sequence[FeatureSpace | None]] = {
        "plain": [None] * len(trials),
        "normalized": [trial.means() for trial in trials],
        "normalized by training people's means": [trial.means(own=False) for trial in trials],
        "normalized, basis": [_with(trial.means(), trial.basis()) for trial in trials],
        **{
            f"normalized, basis from {people} people": [
                _with(trial.means(), trial.basis(few(trial, people))) for trial in trials
            ]
            for people in PEOPLE
        },
        "normalized, basis from passages": [_with(trial.means(), _unlabeled(trial.train, False)) for trial in trials],
        **{
            f"normalized, basis from neighbors, {share:.0%} at both": [
                _with(trial.means(), _unlabeled(_some_at_both(trial.train, share))) for trial in trials
            ]
            for share in AT_BOTH
        },
        "normalized, basis from own passages": [
            _with(trial.means(), _unlabeled(trial.judged, False)) for trial in trials
        ],
        "normalized, basis from own neighbors": [_with(trial.means(), _unlabeled(trial.judged)) for trial in trials],
        "basis alone": [_with(trial.means(cameras=False), trial.basis(cameras=False)) for trial in trials],
    }
    print("| | Rank-1 | mAP | mINP | gain in mAP over plain | over normalized |\n|---|---|---|---|---|---|")
    for again in (False, True) if rerank else (False,):
        scores: dict[str, list[RankingScores]] = {}
        for name, spaces in rows.items():
            scores[name] = [trial.rank(space, again) for trial, space in zip(trials, spaces, strict=True)]
            gains = [
                "" if before == name else _gain(scores[before], scores[name])
                for before in ("plain", "normalized")
                if before in scores
            ]
            print(f"| {name}{', re-ranked' if again else ''} | {_figures(scores[name])} | {' | '.join(gains)} |")


def means(trials: Sequence[Trial]) -> None:
    print(f"plain: {_figures([trial.rank(None) for trial in trials])}")
    print(f"\n| crops a camera | {' | '.join(f'strength {strength:g}' for strength in STRENGTHS)} |")
    print("|---" * (1 + len(STRENGTHS)) + "|")
    for crops in CROPS:
        taught = [(trial, _some(trial.train, crops, draw)) for trial in trials for draw in range(DRAWS)]
        _line(str(crops), [[_learned(part, strength) for _, part in taught] for strength in STRENGTHS], taught)
    for name, by_passages in (("half one person's, by crops", False), ("half one person's, by passages", True)):
        taught = [(trial, _loitering(trial.train, 100, draw)) for trial in trials for draw in range(DRAWS)]
        spaces = [[_learned(part, strength, by_passages) for _, part in taught] for strength in STRENGTHS]
        _line(f"100, {name}", spaces, taught)


def light(trials: Sequence[Trial], embedder: Embedder) -> None:
    """The gallery's camera in another light, with means of 500 crops a camera."""
    print("\n| gallery | Rank-1 | mAP | mINP |\n|---|---|---|---|")
    for light, changed in (("at half the brightness", _half), ("at night", _at_night)):
        scores: dict[str, list[RankingScores]] = {}
        for trial in trials:
            camera = int(trial.gallery.people.cameras[0])
            other = Trial(trial.query, embedder.embed(changed(trial.gallery.people)), trial.train)
            day = _some(trial.train, 500, 0)
            there = day.take(np.flatnonzero(day.people.cameras == camera))
            elsewhere = day.take(np.flatnonzero(day.people.cameras != camera))
            then = embedder.embed(changed(there.people))
            taught: dict[str, Sequence[People] | None] = {
                "plain": None,
                "means by day": [day],
                "means at that light": [elsewhere, then],
                "means of both": [day, then],
            }
            for name, parts in taught.items():
                scores.setdefault(name, []).append(other.rank(None if parts is None else _learned(_joined(parts))))
        for name, found in scores.items():
            print(f"| {light}, {name} | {_figures(found)} |", flush=True)


def cost(dims: int) -> None:
    """Processor time to put a crop into a space, and to compare two as a resolve does, on one thread."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    features, cameras = rng.normal(size=(20_000, dims)).astype(np.float32), [f"{row % 50}" for row in range(20_000)]
    learned = learn_means(features, cameras)
    basis = Basis(rng.normal(size=(dims, dims)))
    for name, space in (("means", learned), ("means and basis", _with(learned, basis))):
        space.apply(features[:100], cameras[:100])
        started = time.process_time()
        space.apply(features, cameras)
        print(f"{dims} dims, {name}: {(time.process_time() - started) / len(features) * 1e6:.1f} us a crop")
    module = DiffAttention(dims, DiffAttentionSettings()).double()
    ways: dict[str, tuple[int, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
        "plain or means": (dims, lambda x, y: (normalize(x) - normalize(y)).norm(dim=1)),
        "means and basis": (basis.dims_out, lambda x, y: (normalize(x) - normalize(y)).norm(dim=1)),
        "diff attention": (dims, module.pair_distances),
    }
    for name, (width, distances) in ways.items():
        x, y = torch.randn(2, 1024, width, dtype=torch.float64)
        with torch.inference_mode():
            distances(x, y)
            started = time.process_time()
            for _ in range(20):
                distances(x, y)
        print(f"{dims} dims, {name}: {(time.process_time() - started) / 20 / len(x) * 1e6:.2f} us a pair")


def _line(name: str, columns: Iterable[Sequence[FeatureSpace]], taught: Sequence[tuple[Trial, People]]) -> None:
    cells = []
    for spaces in columns:
        found = [trial.rank(space) for (trial, _), space in zip(taught, spaces, strict=True)]
        cells.append(" / ".join(f"{over_seeds(found)[metric].mean:.1f}" for metric in ("rank1", "mAP", "mINP")))
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _learned(people: People, strength: float | None = None, passages: bool = True) -> FeatureSpace:
    of_whom = people.passages if passages else None
    if strength is None:
        return learn_means(people.features, people.codes, of_whom)
    return learn_means(people.features, people.codes, of_whom, strength=strength)


def _unlabeled(taught: People, neighbors: bool = True) -> Basis:
    """A basis from passages without labels, mutual neighbors taken for one person or not."""
    applied = learn_means(taught.features, taught.codes).apply(taught.features, taught.codes)
    passages: Ints = np.unique(taught.passages, axis=0, return_inverse=True)[1]
    people = mutual_neighbors(applied, passages.tolist(), taught.codes) if neighbors else passages
    return learn_basis(applied, people.tolist())


def _some_at_both(train: People, share: float) -> People:
    """The training people, of whom this share is seen by all cameras, the others by one of them."""
    people, number = np.unique(train.people.identities, return_inverse=True)
    rng, cameras = np.random.default_rng(0), train.people.cameras
    only = np.where(rng.random(len(people)) < share, -1, rng.choice(np.unique(cameras), len(people)))[number]
    return train.take(np.flatnonzero((only == -1) | (only == cameras)))


def _some(train: People, crops: int, draw: int) -> People:
    """Whole passages of each camera, until there are so many crops of it."""
    rng, rows = np.random.default_rng(draw), []
    for camera in np.unique(train.people.cameras):
        there = np.flatnonzero(train.people.cameras == camera)
        order = rng.permutation(np.unique(train.people.identities[there]))
        found = np.concatenate([there[train.people.identities[there] == person] for person in order])
        rows.append(found[:crops])
    return train.take(np.concatenate(rows))


def _loitering(train: People, crops: int, draw: int) -> People:
    """As `_some`, but the second half of each camera's crops shows one person, whose crops come again and again."""
    parts, rng = [], np.random.default_rng(draw)
    for camera in np.unique(train.people.cameras):
        there = np.flatnonzero(train.people.cameras == camera)
        some = _some(train.take(there), crops // 2, draw)
        others = np.flatnonzero(~np.isin(train.people.identities[there], some.people.identities))
        person = rng.choice(np.unique(train.people.identities[there[others]]))
        own = there[train.people.identities[there] == person]
        parts += [some, train.take(np.resize(own, crops // 2))]
    return _joined(parts)


def _joined(parts: Sequence[People]) -> People:
    people = [part.people for part in parts]
    return People(
        np.concatenate([part.features for part in parts]),
        PersonPictures(
            np.concatenate([part.pictures for part in people]),
            np.concatenate([part.identities for part in people]),
            np.concatenate([part.cameras for part in people]),
        ),
    )


def _half(people: PersonPictures) -> PersonPictures:
    return PersonPictures(people.pictures // 2, people.identities, people.cameras, people.names)


def _at_night(people: PersonPictures) -> PersonPictures:
    """Gray, at a quarter of the brightness, with noise of a standard deviation of 4 of 255."""
    gray = people.pictures.mean(axis=3, keepdims=True) / 4
    noisy = gray + np.random.default_rng(0).normal(scale=4, size=gray.shape)
    pictures = np.repeat(noisy.clip(0, 255).astype(np.uint8), 3, axis=3)
    return PersonPictures(pictures, people.identities, people.cameras, people.names)


def _with(means: FeatureSpace, basis: Basis) -> FeatureSpace:
    return FeatureSpace(means.units, means.means, basis)


def _gain(before: Sequence[RankingScores], after: Sequence[RankingScores]) -> str:
    """With an interval where one draw of people was ranked."""
    if len(before) == 1:
        return str(paired_bootstrap(before, after)["mAP"])
    return f"{np.mean([found.mAP for found in after]) - np.mean([found.mAP for found in before]):+.1f}"


def _figures(scores: Sequence[RankingScores]) -> str:
    return " | ".join(f"{over_seeds(scores)[metric].mean:.1f}" for metric in ("rank1", "mAP", "mINP"))


if __name__ == "__main__":
    main()
