"""Scores of a model on pictures of people: plain distances and, where it has diff attention, attended ones; re-ranked
where asked for.
"""

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.distances import attended, plain, reciprocal_codes
from reid_core.evaluation.ranking import RankingMetrics, RankingScores
from reid_core.evaluation.rerank import ReRanking
from reid_core.evaluation.verification import PairCounts
from reid_core.files import load_diff_attention, load_model, read_card, write_card
from reid_core.serving.devices import choose_device
from reid_core.serving.foreign import foreign_card, foreign_files
from reid_core.serving.local import LocalCore
from schemas.cards import InputConvention
from schemas.errors import InputError
from schemas.settings import Settings

#: Hears what is being done, how much of it is done, and how much there is; 0 where that is not known.
Progress = Callable[[str, int, int], None]

#: Pictures embedded between two calls of `Progress`: some full batches of the core.
_EMBEDDED = 16


def evaluate(
    settings: Settings,
    model_directory: Path,
    query: PersonPictures,
    gallery: PersonPictures,
    *,
    top: int | None = None,
    rerank: bool = False,
    flip: bool = False,
    progress: Progress | None = None,
) -> dict[str, RankingScores]:
    """Scores of a model directory on the device of `settings`; see `rank_features`.

    The core embeds as it does in the city. `flip`: a picture's feature is the mean of its own and its mirror image's.
    Raises what opening the core raises, and VectorError.
    """
    gallery = gallery.select(gallery.identities != JUNK)
    left, right = features_of(settings, model_directory, (query, gallery), flip=flip, progress=progress)
    attention = load_attention(model_directory)
    return rank_features(left, right, attention, query, gallery, top=top, rerank=rerank, progress=progress)


def features_of(
    settings: Settings,
    model_directory: Path,
    sides: Sequence[PersonPictures],
    *,
    flip: bool = False,
    progress: Progress | None = None,
) -> list[Tensor]:
    """The features (N, D) of each side's N pictures, on the device of `settings`; see `evaluate`."""
    core = LocalCore.open(settings, model_directory)
    device = choose_device(settings)
    return [torch.from_numpy(_embed(core, side.pictures, flip, progress)).to(device) for side in sides]


@torch.inference_mode()
def rank_features(
    left: Tensor,
    right: Tensor,
    attention: DiffAttention | None,
    query: PersonPictures,
    gallery: PersonPictures,
    *,
    top: int | None = None,
    rerank: bool = False,
    progress: Progress | None = None,
) -> dict[str, RankingScores]:
    """Scores by "plain" distances and, with diff attention, by "attended" ones; "reranked" is on top of the last.

    left, right: raw post-BN features (Q, D) and (G, D) on one device, and their labels in `query` and `gallery`, which
    holds no junk, so that junk is nobody's neighbor. Plain distances are float64; attended ones are the paper's test
    distances, query first, as `pairs.py` computes them. `top`: attended distances for that many nearest by plain
    distance only, else for every pair. `RankingScores.pairs` is kept where every distance is of one kind.
    """
    assert (gallery.identities != JUNK).all()
    streams = {"plain": plain(left, right)}
    if attention is not None:
        attention = attention.to(left.device).eval()
        streams["attended"] = attended(attention, left, right, top)
    best = list(streams)[-1]
    codes = None
    if rerank:
        if progress is not None:
            progress("looking for neighbors", 0, 0)
        codes = reciprocal_codes(attention, left, right, ReRanking())
    scores = {}
    for name, stream in streams.items():
        metrics, again = (RankingMetrics(gallery.identities, gallery.cameras) for _ in range(2))
        people = np.union1d(query.identities, gallery.identities)
        of_one_kind = name == "plain" or top is None
        pairs = PairCounts(gallery.identities, gallery.cameras, people) if of_one_kind else None
        for rows, found in stream:
            distances = found.cpu().numpy()
            asked = query.identities[rows], query.cameras[rows]
            metrics.update(distances, *asked)
            if pairs is not None:
                pairs.update(distances, *asked)
            if codes is not None and name == best:
                again.update(codes.distances(rows, distances.astype(np.float64) ** 2 / 2), *asked)
            if progress is not None:
                progress(f"ranking, {name}", rows.stop, len(query))
        scores[name] = replace(metrics.compute(), pairs=pairs)
        if codes is not None and name == best:
            scores["reranked"] = again.compute()
    return scores


@contextmanager
def model_directory(model: Path, convention: InputConvention | None, settings: Settings) -> Iterator[Path]:
    """`model` where it is a model directory; else one around a copy of an OpenVINO .xml or .onnx file, for as long.

    Raises InputError for what is neither, ModelFileError and CoreError for a file that is no embedder.
    """
    if model.is_dir():
        if convention is not None:
            raise InputError(f"{model}: a model directory's card has its input convention; give none")
        yield model
        return
    if not model.is_file():
        raise InputError(f"{model}: no such file or model directory")
    name = re.sub(r"[^A-Za-z0-9._-]", "-", model.stem)[:64]
    card = foreign_card(model, name, convention or InputConvention(), settings)
    with tempfile.TemporaryDirectory(prefix="urban-reid-") as folder:
        for file in foreign_files(model):
            shutil.copy(file, folder)
        write_card(card, Path(folder))
        yield Path(folder)


def load_attention(model_directory: Path) -> DiffAttention | None:
    """A model directory's diff attention, None where it has none."""
    card = read_card(model_directory)
    own = load_model(model_directory).diff_attention if card.engine == "torch" else None
    found = own or load_diff_attention(model_directory, card)
    return None if found is None else found.eval()


def _embed(core: LocalCore, pictures: NDArray[np.uint8], flip: bool, progress: Progress | None) -> NDArray[np.float32]:
    features = np.empty((len(pictures), core.card.dims), np.float32)
    step = _EMBEDDED * core.batch_size
    for start in range(0, len(pictures), step):
        part = pictures[start : start + step]
        here = slice(start, start + len(part))
        features[here] = core.embed(part)
        if flip:
            features[here] = (features[here] + core.embed(np.ascontiguousarray(part[:, :, ::-1]))) / 2
        if progress is not None:
            progress("embedding", start + len(part), len(pictures))
    return features
