"""Scores of a model on pictures of people: plain and, where it has diff attention, attended distances."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reid_core.data import PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.files import load_diff_attention, load_model, read_card
from reid_core.local import LocalCore
from reid_core.ranking import RankingMetrics, RankingScores
from schemas.settings import Settings

#: Queries whose distances to the whole gallery are held at a time.
QUERY_BLOCK = 256


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
