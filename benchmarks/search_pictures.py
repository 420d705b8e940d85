"""What further pictures of a person do to a search, and pictures of whom it is not: simulated people, by rank.

    python -m benchmarks.search_pictures [--people 4000] [--searches 100]

Each person has 1 to 4 passages by two cameras in the gallery, in one identity or, every other person who is not
searched for, in two. Those who are have three pictures by other cameras to search with. Several pictures count as the
mean of their features (`pipeline.search.probe`), beside the mean and the smallest of their distances.

A search with one picture whose first hit is wrong is made again without that hit ("left out alone"), and once more.
"not this one": beside that, the likelihood ratio of each identity is multiplied by 1 - p, where p is the probability,
by look, that it is the person of the hit that was wrong. Rank is that of the person's identity, the first is 1.
"""

import argparse
from collections import defaultdict

import numpy as np
import torch

from pipeline.search.fast_distances import FastDistances
from pipeline.search.likelihood import DistanceCounts, Reference, look_ratios
from pipeline.search.posterior import Evidence, posterior
from pipeline.simulation import WEIGHTS
from reid_core.files import load_diff_attention, read_card
from schemas.arrays import Floats, Singles
from schemas.levels import Level
from synthetic.embedding_city.features import DIMS, draw_person, kinds, retail_0277

_SEED, _PICTURES, _AGAIN = 31, 3, 2
#: An identity is never ruled out by look.
_MOST = 0.999


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=4000)
    parser.add_argument("--searches", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    gallery = People(arguments.people, arguments.searches)
    ranks: dict[str, list[int]] = defaultdict(list)
    for person, pictures in enumerate(gallery.pictures):
        distances = np.stack([gallery.distances(picture) for picture in pictures])
        ranks["one picture"].append(rank(distances[0], person))
        for many in (2, 3):
            ranks[f"{many}, mean of features"].append(rank(gallery.distances(pictures[:many].mean(axis=0)), person))
            ranks[f"{many}, mean of distances"].append(rank(distances[:many].mean(axis=0), person))
            ranks[f"{many}, smallest distance"].append(rank(distances[:many].min(axis=0), person))
        if rank(distances[0], person) > 1:
            ratios = gallery.ratios(distances[0])
            ranks["first hit wrong"].append(rank(-ratios, person))
            lowered, left_out = ratios.copy(), ratios.copy()
            for time in range(1, _AGAIN + 1):
                wrong = int(np.argmax(lowered))
                if wrong == person:
                    break
                other = gallery.ratios(gallery.distances(gallery.v[gallery.first[wrong]].astype(np.float64)))
                same = posterior(Evidence.of(other), gallery.calibration).each(other, other)
                lowered += np.log1p(-np.minimum(same, _MOST))
                lowered[wrong] = -np.inf
                if (first := int(np.argmax(left_out))) != person:
                    left_out[first] = -np.inf
                ranks[f"not this one, {time}"].append(rank(-lowered, person))
                ranks[f"left out alone, {time}"].append(rank(-left_out, person))
    for name, found in ranks.items():
        every = np.array(found)
        print(
            f"{name:<24} searches {len(every):4}  first {np.mean(every == 1):.3f}  in ten {np.mean(every <= 10):.3f}  "
            f"mean log2 rank {np.log2(every).mean():.2f}"
        )


def rank(distance: Floats, person: int) -> int:
    return int((distance < distance[person]).sum()) + 1


class People:
    def __init__(self, people: int, searches: int) -> None:
        model, clothes, rng = retail_0277(), kinds(_SEED), np.random.default_rng(_SEED)
        shifts = rng.standard_normal((2 + _PICTURES, DIMS), np.float32) * model.camera
        axes: list[Singles] = []
        self.pictures: list[Floats] = []
        for person in range(people):
            passages = int(rng.choice([1, 2, 3, 4], p=[0.3, 0.3, 0.2, 0.2]))
            asked = np.arange(_PICTURES) + 2 if person < searches else np.arange(0)
            view = np.concatenate([np.arange(passages) % 2, asked])
            seen, _ = model.draw(rng, draw_person(rng, clothes), len(shifts), view, np.ones(len(view), np.int64))
            seen += shifts[view]
            parts = [seen[:passages]] if person < searches else np.array_split(seen[:passages], 1 + person % 2)
            for own in parts:  # every other person has two identities, where the pipeline could not join their passages
                if len(own):
                    axes.append(own if len(own) == 1 else np.concatenate([own.mean(axis=0, keepdims=True), own]))
            if len(asked):
                self.pictures.append(model.features(seen[passages:]).astype(np.float64))
        self.v = model.features(np.concatenate(axes)).astype(np.float16)
        self.counts = np.array([len(one) for one in axes])
        self.first = np.cumsum(self.counts) - self.counts
        card = read_card(WEIGHTS)
        self.calibration = next(one for one in card.search_calibration if one.level is Level.DISTRICT)
        self._fast = FastDistances(load_diff_attention(WEIGHTS, card))

    def distances(self, feature: Floats) -> Floats:
        """(n,) To each identity."""
        every = self._fast.distances(feature, self.v, np.arange(len(self.v)))
        return np.asarray(np.minimum.reduceat(every, self.first), np.float64)

    def ratios(self, distance: Floats) -> Floats:
        """(n,) Log likelihood ratios."""
        reference = Reference.of(DistanceCounts.of(distance, self.counts), self.calibration)
        return look_ratios(self.calibration, reference.standardized(distance, self.counts), self.counts)


if __name__ == "__main__":
    main()
