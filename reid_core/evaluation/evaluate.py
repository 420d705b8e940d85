"""Scores of a model on pictures of people: by plain distances, by attended ones, and by plain ones in feature spaces.

Features are computed as in the city. What ranks is float64 (plain) or rounded as `pairs` says (attended); float32
products are never rounded to TF32 (`devices.choose_device`), so that scores of two machines can be compared.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.device_memory import out_of_memory_names
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.distances import Stream, attended, plain, reciprocal_codes
from reid_core.evaluation.ranking import RankingMetrics, RankingScores
from reid_core.evaluation.rerank import ReciprocalCodes, ReRanking
from reid_core.evaluation.spaces import Labeled, camera_codes, evaluated_spaces
from reid_core.evaluation.verification import PairCounts
from reid_core.feature_space import Basis, FeatureSpace
from reid_core.files import load_diff_attention, load_model, read_card, write_card
from reid_core.progress import Progress
from reid_core.serving.by_camera import core_of_camera
from reid_core.serving.devices import choose_device
from reid_core.serving.foreign import foreign_card, foreign_files
from reid_core.serving.local import LocalCore
from schemas.cards import InputConvention
from schemas.errors import InputError
from schemas.settings import Settings

#: Batches of the core between two reports of progress.
_BATCHES = 16


def evaluate(
    settings: Settings,
    model_directory: Path,
    query: PersonPictures,
    gallery: PersonPictures,
    *,
    normalize: bool = False,
    basis: Basis | PersonPictures | None = None,
    top: int | None = None,
    rerank: bool = False,
    flip: bool = False,
    known_cameras: bool = True,
    progress: Progress | None = None,
) -> dict[str, RankingScores]:
    """Scores of a model directory on the device of `settings`; see `rank_features` for the scores and for `top`.

    `normalize`, `basis`: see `evaluated_spaces`; `basis` may be the labeled people that teach it. `flip`: a picture's
    feature is the mean of its own and its mirror image's. `known_cameras`: a method that looks at the camera (CBN,
    TransReID) knows each picture's; else features are those of a city, where it knows none. Raises what opening the
    core raises, VectorError and OutOfDeviceMemory.
    """
    gallery = gallery.select(gallery.identities != JUNK)
    sides = (query, gallery, *([basis] if isinstance(basis, PersonPictures) else ()))
    left, right, *teaching = features_of(
        settings, model_directory, sides, flip=flip, known_cameras=known_cameras, progress=progress
    )
    of_basis = Labeled(teaching[0], basis) if isinstance(basis, PersonPictures) else basis
    spaces = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), normalize, of_basis)
    attention = load_attention(model_directory)
    return rank_features(
        left, right, attention, query, gallery, spaces=spaces, top=top, rerank=rerank, progress=progress
    )


def features_of(
    settings: Settings,
    model_directory: Path,
    sides: Sequence[PersonPictures],
    *,
    flip: bool = False,
    known_cameras: bool = True,
    progress: Progress | None = None,
) -> list[Tensor]:
    """The features (N, D) of each side's N pictures, on the device of `settings`; see `evaluate`."""
    device = choose_device(settings)
    card = read_card(model_directory)
    if known_cameras and card.engine == "torch" and card.baseline in ("cbn", "transreid"):
        found = _embed_by_camera(settings, model_directory, sides, flip, progress)
    else:
        core = LocalCore.open(settings, model_directory)
        found = [_embed(core, side.pictures, flip, progress) for side in sides]
    features = [torch.from_numpy(side) for side in found]
    with out_of_memory_names(f"the features of {sum(map(len, sides))} pictures"):
        return [side.to(device) for side in features]


@torch.inference_mode()
def rank_features(
    left: Tensor,
    right: Tensor,
    attention: DiffAttention | None,
    query: PersonPictures,
    gallery: PersonPictures,
    *,
    spaces: Mapping[str, FeatureSpace] | None = None,
    top: int | None = None,
    rerank: bool = False,
    progress: Progress | None = None,
) -> dict[str, RankingScores]:
    """Scores by "plain" distances, with diff attention by "attended" ones, and by plain ones in each of `spaces`.

    "reranked" re-ranks the last of them. A data set's camera 3 has the code "3" in a space.

    left, right: raw post-BN features (Q, D) and (G, D) on one device; `query` and `gallery` hold their labels. The
    gallery has no junk, which would be a neighbor in re-ranking. Plain distances are float64; attended ones are the
    paper's test distances, query first, as `pairs` computes them. `top`: attended distances for each query's `top`
    nearest by plain distance only, else for every pair. `RankingScores.pairs` is kept where all distances are of one
    kind.

    Raises VectorError where a distance is NaN, CoreError for features that are not finite, and OutOfDeviceMemory.
    """
    assert (gallery.identities != JUNK).all()
    with out_of_memory_names(f"ranking {len(gallery)} gallery pictures for {len(query)} queries"):
        streams = {"plain": plain(left, right)}
        best: tuple[DiffAttention | None, Tensor, Tensor] = None, left, right
        if attention is not None:
            attention = attention.to(left.device).eval()
            streams["attended"] = attended(attention, left, right, top, progress)
            best = attention, left, right
        for name, space in (spaces or {}).items():
            best = None, _applied(space, left, query), _applied(space, right, gallery)
            streams[name] = plain(best[1], best[2])
        last = list(streams)[-1]
        codes = reciprocal_codes(*best, ReRanking(), progress) if rerank else None
        scores = {}
        for name, stream in streams.items():
            people = np.union1d(query.identities, gallery.identities)
            of_one_kind = name != "attended" or top is None
            pairs = PairCounts(gallery.identities, gallery.cameras, people) if of_one_kind else None
            step = None if progress is None else partial(progress, f"ranking, {name}")
            ranked, reranked = _score(stream, query, gallery, pairs, codes if name == last else None, step)
            scores[name] = ranked
            if reranked is not None:
                scores["reranked"] = reranked
    return scores


def _applied(space: FeatureSpace, features: Tensor, people: PersonPictures) -> Tensor:
    return torch.from_numpy(space.apply(features.cpu().numpy(), camera_codes(people))).to(features)


def _score(
    stream: Stream,
    query: PersonPictures,
    gallery: PersonPictures,
    pairs: PairCounts | None,
    codes: ReciprocalCodes | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[RankingScores, RankingScores | None]:
    """Scores by the distances of a stream, which go into `pairs` too, and by the same re-ranked where `codes` are."""
    ranked, reranked = (RankingMetrics(gallery.identities, gallery.cameras) for _ in range(2))
    for rows, found in stream:
        distances = found.cpu().numpy()
        labels = query.identities[rows], query.cameras[rows]
        ranked.update(distances, *labels)
        if pairs is not None:
            pairs.update(distances, *labels)
        if codes is not None:
            reranked.update(codes.distances(rows, distances.astype(np.float64) ** 2 / 2), *labels)
        if progress is not None:
            progress(rows.stop, len(query))
    return replace(ranked.compute(), pairs=pairs), None if codes is None else reranked.compute()


@contextmanager
def model_directory(model: Path, convention: InputConvention | None, settings: Settings) -> Iterator[Path]:
    """`model` if it is a model directory; else a temporary one with a copy of the OpenVINO .xml or .onnx file.

    Raises InputError for anything else, ModelFileError and CoreError for a file that is no embedder.
    """
    if model.is_dir():
        if convention is not None:
            raise InputError(f"{model}: a model directory's card has its input convention; give none")
        yield model
        return
    if not model.is_file():
        raise InputError(f"{model}: no such file or model directory")
    card = foreign_card(model, None, convention, settings)
    with tempfile.TemporaryDirectory(prefix="urban-reid-") as folder:
        for file in foreign_files(model):
            shutil.copy(file, folder)
        write_card(card, Path(folder))
        yield Path(folder)


def load_attention(model_directory: Path) -> DiffAttention | None:
    """The diff attention of a model directory, in eval mode; None if it has none. Raises ModelFileError."""
    card = read_card(model_directory)
    own = load_model(model_directory).diff_attention if card.engine == "torch" else None
    found = own or load_diff_attention(model_directory, card)
    return None if found is None else found.eval()


def _embed_by_camera(
    settings: Settings, directory: Path, sides: Sequence[PersonPictures], flip: bool, progress: Progress | None
) -> list[NDArray[np.float32]]:
    """As `_embed`, of each side, each camera's pictures with a core of that camera."""
    dims = read_card(directory).dims
    found = [np.empty((len(side), dims), np.float32) for side in sides]
    for camera in sorted({camera for side in sides for camera in side.cameras.tolist()}):
        chosen = [side.pictures[side.cameras == camera] for side in sides]
        core = core_of_camera(settings, directory, camera, np.concatenate(chosen))
        for features, side, pictures in zip(found, sides, chosen, strict=True):
            if len(pictures):
                features[side.cameras == camera] = _embed(core, pictures, flip, progress)
    return found


def _embed(core: LocalCore, pictures: NDArray[np.uint8], flip: bool, progress: Progress | None) -> NDArray[np.float32]:
    features = np.empty((len(pictures), core.card.raw_dims), np.float32)
    step = _BATCHES * core.batch_size
    for start in range(0, len(pictures), step):
        part = pictures[start : start + step]
        here = slice(start, start + len(part))
        features[here] = core.embed(part)
        if flip:
            features[here] = (features[here] + core.embed(np.ascontiguousarray(part[:, :, ::-1]))) / 2
        if progress is not None:
            progress("embedding", start + len(part), len(pictures))
    return features
