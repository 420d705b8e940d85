"""Ranking metrics: rank-k, mAP and mINP, in percent (paper, 'Metrics and protocols').

For each query the gallery is sorted by distance. Junk (identity -1) and the gallery's pictures of the query's own
identity *and* camera do not count, neither for nor against. A query with no match left is skipped and named.
Pictures at equal distance are ranked against the model: wrong ones first. So a feature that says nothing scores
nothing, and no result depends on the order of the gallery.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reid_core.data import JUNK, PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.files import load_diff_attention, load_model, read_card
from reid_core.local import LocalCore
from schemas.errors import VectorError
from schemas.settings import Settings

#: Queries whose distances to the whole gallery are held at a time.
QUERY_BLOCK = 256

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RankingScores:
    """Means over the scored queries, in percent. `skipped` holds the identities of queries with no match, by query."""

    rank_1: float
    rank_5: float
    rank_10: float
    mAP: float
    mINP: float
    queries: int
    skipped: tuple[int, ...] = ()

    def __str__(self) -> str:
        text = f"Rank-1 {self.rank_1:.1f}  Rank-5 {self.rank_5:.1f}  mAP {self.mAP:.1f}  mINP {self.mINP:.1f}"
        return f"{text}  ({self.queries} queries, {len(self.skipped)} skipped)"


@dataclass
class RankingMetrics:
    """Collects blocks of queries, so that no more than one block's distances is ever held."""

    gallery_identities: Ints  # (G,)
    gallery_cameras: Ints  # (G,)
    same_camera: bool = False  # whether matches from the query's own camera count
    _ranks: list[Ints] = field(default_factory=list, init=False)
    _skipped: list[int] = field(default_factory=list, init=False)

    def update(self, distances: NDArray[np.floating], identities: Ints, cameras: Ints) -> "RankingMetrics":
        """Adds q queries: `distances` (q, G) small = alike, `identities` and `cameras` (q,).

        Raises VectorError where a distance is no number: it would sort last without a word.
        """
        assert distances.shape == (len(identities), len(self.gallery_identities))
        if np.isnan(distances).any():
            raise VectorError("a distance between query and gallery is NaN: the model or a picture's feature is broken")
        for row, identity, camera in zip(distances, identities, cameras, strict=True):
            same = self.gallery_identities == identity
            ignored = self.gallery_identities == JUNK
            if not self.same_camera:
                ignored |= same & (self.gallery_cameras == camera)
            matches = np.sort(row[same & ~ignored])
            if identity == JUNK or not len(matches):
                self._skipped.append(int(identity))
                continue
            wrong = np.sort(row[~same & ~ignored])
            # Rank of the k-th match, from 1: the k matches up to it, and the wrong ones no farther than it.
            self._ranks.append(np.arange(1, len(matches) + 1) + np.searchsorted(wrong, matches, side="right"))
        return self

    def compute(self) -> RankingScores:
        """The scores so far; all 0 where no query could be scored."""
        if not self._ranks:
            return RankingScores(0.0, 0.0, 0.0, 0.0, 0.0, 0, tuple(self._skipped))
        first = np.array([ranks[0] for ranks in self._ranks])
        precisions = [np.mean(np.arange(1, len(ranks) + 1) / ranks) for ranks in self._ranks]
        rank_1, rank_5, rank_10 = (100 * float(np.mean(first <= k)) for k in (1, 5, 10))
        return RankingScores(
            rank_1,
            rank_5,
            rank_10,
            mAP=100 * float(np.mean(precisions)),
            mINP=100 * float(np.mean([len(ranks) / ranks[-1] for ranks in self._ranks])),
            queries=len(self._ranks),
            skipped=tuple(self._skipped),
        )


def evaluate(
    settings: Settings, model_directory: Path, query: PersonPictures, gallery: PersonPictures
) -> dict[str, RankingScores]:
    """Scores of a model directory by "plain" distances and, where it has diff attention, by "attended" ones.

    The core embeds as it does in the city; the distances are those of the paper's test, query first, in float64.
    Raises what opening the core raises.
    """
    core = LocalCore.open(settings, model_directory)
    left, right = (torch.from_numpy(core.embed(people.pictures)).double() for people in (query, gallery))
    attention = load_attention(model_directory)
    scores = {"plain": rank(left, right, None, query, gallery)}
    if attention is not None:
        scores["attended"] = rank(left, right, attention, query, gallery)
    return scores


@torch.inference_mode()
def rank(
    left: Tensor, right: Tensor, attention: DiffAttention | None, query: PersonPictures, gallery: PersonPictures
) -> RankingScores:
    """Scores of post-BN features, float64 `left` (Q, D) and `right` (G, D) on one device, in blocks of queries."""
    metrics = RankingMetrics(gallery.identities, gallery.cameras)
    unit_right = F.normalize(right)
    for start in range(0, len(left), QUERY_BLOCK):
        rows = slice(start, start + QUERY_BLOCK)
        if attention is None:
            distances = (2 - 2 * F.normalize(left[rows]) @ unit_right.T).clamp(min=0).sqrt()
        else:
            distances = attention.distance_matrix(left[rows], right, normalize=True)
        metrics.update(distances.cpu().numpy(), query.identities[rows], query.cameras[rows])
    return metrics.compute()


def load_attention(model_directory: Path) -> DiffAttention | None:
    """A model directory's diff attention in float64, None where it has none."""
    card = read_card(model_directory)
    own = load_model(model_directory).diff_attention if card.engine == "torch" else None
    found = own or load_diff_attention(model_directory, card)
    return None if found is None else found.double().eval()
