"""What programs that `import reid_core` use: an opened model, and its evaluation on a data set.

`reid_core/__init__.py` offers these names without loading torch; this module loads it.
"""

import copy
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.datasets import Dataset, open_dataset
from reid_core.datasets.dataset import in_threads
from reid_core.datasets.person_pictures import JUNK, PersonPictures
from reid_core.decoding import read_picture
from reid_core.diff_attention import DiffAttention
from reid_core.evaluation.distances import plain as plain_distances
from reid_core.evaluation.evaluate import load_attention, rank_features
from reid_core.evaluation.ranking import RankingScores
from reid_core.evaluation.spaces import Labeled, evaluated_spaces
from reid_core.feature_space import Basis, FeatureSpace
from reid_core.files import read_card, refuse_space
from reid_core.preprocessing import prepare
from reid_core.serving.checks import check_vectors
from reid_core.serving.devices import choose_device
from reid_core.serving.foreign import ForeignEmbedder, foreign_card
from reid_core.serving.local import LocalCore
from schemas.cards import InputConvention, ModelCard
from schemas.errors import InputError, UsageError
from schemas.settings import Settings, settings

Device = Literal["auto", "cpu", "cuda"]
Picture = str | os.PathLike[str] | NDArray[np.uint8]
"""A picture file (JPEG, PNG, WebP, BMP), or its pixels, uint8 RGB (h, w, 3) of any size."""

#: Pictures that are decoded and held at a time.
_HELD = 256


class Model:
    """An opened model: pictures to features, features to distances. Made by `open_model`.

    card: what the model's card says: name, `dims` (D), input size, metrics, operating point.
    diff_attention: the module that attends to the difference of two features, float32; None where the model has none.

    Safe to call from several threads, which then wait for each other.
    """

    def __init__(self, core: LocalCore, diff_attention: DiffAttention | None, device: torch.device) -> None:
        self.card: ModelCard = core.card
        self.diff_attention = diff_attention
        self._core = core
        self._device = device
        self._exact = None if diff_attention is None else copy.deepcopy(diff_attention).cpu().double()

    def __repr__(self) -> str:
        distances = "plain" if self.diff_attention is None else "attended"
        return (
            f"Model({self.card.name!r}, {self.card.architecture}, {self.card.dims} dims, {distances} distances, "
            f"{self._device})"
        )

    def embed(self, pictures: Iterable[Picture], *, flip: bool = False) -> NDArray[np.float32]:
        """Features of pictures of people, float32 (N, D), one row a picture, in their order; not normalized.

        `pictures`: files and arrays, mixed as you like; each shows one person, cut out. They are decoded and resized
        here, a few hundred at a time, so that any number fits into memory. A picture's feature does not depend on the
        other pictures. `flip`: the mean of the feature of each picture and that of its mirror image.

        Raises PictureError for a file that cannot be decoded, InputError for an array of another shape or type,
        VectorError where the model gives NaN or zero, and OutOfDeviceMemory.

            features = model.embed(["door-1.jpg", "door-2.jpg"])    # (2, D)
        """
        if isinstance(pictures, str | os.PathLike) or (isinstance(pictures, np.ndarray) and pictures.ndim == 3):
            raise InputError("embed takes several pictures: write model.embed([picture]) for a single one")
        found = [np.empty((0, self.card.dims), np.float32)]
        remaining = enumerate(pictures)
        while held := list(islice(remaining, _HELD)):
            with in_threads(lambda numbered: prepare(_pixels(*numbered), self.card.input), held) as prepared:
                found.append(self._embed_prepared(np.stack(list(prepared)), flip))
        return np.concatenate(found)

    def distances(
        self, queries: NDArray[np.floating], gallery: NDArray[np.floating], *, plain: bool = False
    ) -> NDArray[np.float64]:
        """Distances of each query to each gallery feature, float64 (m, n) in 0..2, small = alike.

        queries, gallery: features (m, D) and (n, D) as `embed` returns them, not normalized.
        plain: the Euclidean distance of the L2-normalized features also where the model has diff attention. Without
        it a model with diff attention gives attended distances: the same after both features were multiplied by the
        gate of their pair (paper, 'Diff attention module'). Attended distances are not symmetric, since the gate sees
        which side is the query: the mean of both orders is `(d(x, y) + d(y, x).T) / 2`.

        Raises VectorError for vectors of another width, NaN, and rows of zeros.

            near = model.distances(features[:1], features[1:]).argmin()
        """
        sides = []
        for name, side in (("queries", queries), ("gallery", gallery)):
            check_vectors(np.asarray(side), self.card.dims, name)
            sides.append(torch.from_numpy(np.array(side, np.float64)))
        left, right = sides
        with torch.inference_mode():
            if self._exact is not None and not plain:
                found: NDArray[np.float64] = self._exact.distance_matrix(left, right, normalize=True).numpy()
                return found
            blocks = [block.numpy() for _, block in plain_distances(left, right)]
        return np.concatenate(blocks) if blocks else np.empty((0, len(right)))

    def _embed_prepared(self, pictures: NDArray[np.uint8], flip: bool) -> NDArray[np.float32]:
        features = self._core.embed(pictures)
        if flip:
            features = (features + self._core.embed(np.ascontiguousarray(pictures[:, :, ::-1]))) / np.float32(2)
        return features

    def _features_of(self, people: PersonPictures, flip: bool) -> torch.Tensor:
        return torch.from_numpy(self._embed_prepared(people.pictures, flip)).to(self._device)


def open_model(
    source: str | os.PathLike[str], *, convention: InputConvention | None = None, device: Device | None = None
) -> Model:
    """The model in a model directory (`card.json` beside its weights), or in an OpenVINO .xml or ONNX file.

    convention: how an .xml or .onnx file wants its pictures. Each field that the file does not state has to be set. A
    model directory states its own. device: "auto" (CUDA where there is a GPU), "cpu" or "cuda"; None takes
    `URBAN_REID_DEVICE`, which is "auto" unless set, as the other settings of the environment are taken (precision,
    batch size, threads).

    Raises InputError if there is no such file or folder, for a feature space, or if a file's convention is stated
    nowhere; ModelFileError or VectorError for a file that is no embedder or was changed; CoreError if an extra
    ('openvino', 'onnx') or the GPU is missing.

        model = reid_core.open_model(reid_core.DEMO_MODEL)
        convention = InputConvention(color="bgr", range=255, mean=(0, 0, 0), std=(1, 1, 1))
        model = reid_core.open_model("embedder.onnx", convention=convention)
    """
    path = Path(source)
    ours = _on(device)
    if path.is_dir():
        if convention is not None:
            raise InputError(f"{path}: a model directory's card has its input convention; give none")
        refuse_space(read_card(path), "is applied by a city")
        return Model(LocalCore.open(ours, path), load_attention(path), choose_device(ours))
    if not path.is_file():
        raise InputError(f"{path}: no such file or model directory")
    card = foreign_card(path, None, convention, ours)
    embedder = ForeignEmbedder.open(path, card.input, ours)
    return Model(LocalCore(card, embedder, None, batch_size=embedder.batch_size), None, choose_device(ours))


def evaluate(
    model: Model,
    data: Dataset | str,
    *,
    normalize: Literal["cameras"] | None = None,
    basis: Literal["train"] | FeatureSpace | None = None,
    top: int | None = None,
    rerank: bool = False,
    flip: bool = False,
) -> dict[str, RankingScores]:
    """How well `model` ranks the gallery of `data` for each of its queries: Rank-1/5/10, mAP and mINP in percent.

    data: what `open_dataset` returned, or the name that it takes.
    normalize: "cameras" also ranks with each camera's mean taken off, that of its queries and gallery pictures; no
        label is used.
    basis: also ranks in a basis, on top of `normalize` if asked for: "train" learns it from the data set's training
        people, a `FeatureSpace` has its own.
    top: attended distances for each query's `top` nearest by plain distance only, where every pair would take long.
    rerank: k-reciprocal re-ranking too. flip: features are means over each picture and its mirror image.

    Returns scores by "plain" distances; by "attended" ones where the model has diff attention; by plain ones of
    "normalized" features and of those in the "basis"; and "reranked" ones, by the last of these.
    Pictures of the query's own person and camera do not count, and junk does not (Market-1501's protocol).

    Raises InputError for a data set without query or gallery or, with "train", without training people that a basis can
    be learned from, and what `open_dataset` and `Model.embed` raise.

        print(reid_core.evaluate(model, "market1501:Market-1501", normalize="cameras")["normalized"])
    """
    data = open_dataset(data) if isinstance(data, str) else data
    if not data.query or not data.gallery:
        raise InputError(
            f"{data.source}: {len(data.query)} queries and {len(data.gallery)} gallery pictures; both are needed"
        )
    query, gallery = data.load("query", model.card.input), data.load("gallery", model.card.input)
    gallery = gallery.select(gallery.identities != JUNK)
    left, right = (model._features_of(side, flip) for side in (query, gallery))
    taught: Basis | Labeled | None = None
    if basis == "train":
        people = data.load("train", model.card.input)
        taught = Labeled(model._features_of(people, flip), people)
    elif basis is not None:
        taught = basis.basis
        if taught is None:
            raise InputError("this feature space has no basis: learn one with learn_basis")
    spaces = evaluated_spaces(Labeled(left, query), Labeled(right, gallery), normalize is not None, taught)
    return rank_features(left, right, model.diff_attention, query, gallery, spaces=spaces, top=top, rerank=rerank)


def _pixels(number: int, picture: Picture) -> NDArray[np.uint8]:
    if isinstance(picture, str | os.PathLike):
        return read_picture(Path(picture))
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise InputError(
            f"picture {number} is an array of {picture.dtype} {picture.shape}; pixels are uint8 RGB (h, w, 3)"
        )
    return picture


def _on(device: Device | None) -> Settings:
    if device is None:
        return settings()
    if device not in get_args(Device):
        raise UsageError(f"device {device!r}: write one of {', '.join(get_args(Device))}")
    return settings().model_copy(update={"device": device})
