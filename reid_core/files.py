"""Model directories: `card.json` beside the weights. Nothing is unpickled.

    torch      weights.safetensors, the whole model without its classifier
    openvino   NAME.xml and NAME.bin, and diff_attention.safetensors if a module was trained on it
    onnx       NAME.onnx, and diff_attention.safetensors if a module was trained on it

A feature space (`card.feature_space`) has the files of its base and those of `reid_core.feature_space` beside them.

Importing this module does not load torch.
"""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from reid_core.feature_space import FeatureSpace
from reid_core.feature_space.space import ARRAYS, DESCRIPTION
from reid_core.tensors import MAX_TEXT_BYTES, read_tensors, sha256_of
from schemas.calibration import LevelCalibration
from schemas.cards import ModelCard, ModelConfig, SpaceSource
from schemas.disk import write_whole
from schemas.errors import CoreError, InputError, ModelFileError, UsageError
from schemas.keys import content_hash

if TYPE_CHECKING:
    from reid_core.diff_attention import DiffAttention
    from reid_core.models import ReIDModel

CARD = "card.json"
WEIGHTS = "weights.safetensors"
DIFF_ATTENTION = "diff_attention.safetensors"
#: The files of a feature space.
SPACE = (DESCRIPTION, ARRAYS)


def save_model(
    model: "ReIDModel",
    directory: Path,
    *,
    name: str,
    strategy: Literal["plain", "joint", "separate"] = "plain",
    trained_on: str = "",
    metrics: Mapping[str, float] | None = None,
    calibration: Sequence[LevelCalibration] = (),
    details: Mapping[str, Any] | None = None,
    half: bool = False,
) -> ModelCard:
    """Writes the model's weights and card into `directory`, and returns the card.

    The classifier is left out: its classes are the people of training. `half` stores matrices and kernels as float16;
    they are loaded as float32. Measure metrics and calibration on the loaded model, not on the one before rounding.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for key, tensor in model.state_dict().items():
        if not (key.startswith("neck.") and ".classifier" in key):
            rounded = tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor
            tensors[key] = rounded.detach().to("cpu", memory_format=torch.contiguous_format).clone()
    directory.mkdir(parents=True, exist_ok=True)
    data = save(tensors)
    write_whole(directory / WEIGHTS, data)
    card = ModelCard(
        **dict(model.config),
        name=name,
        engine="torch",
        dims=model.dims,
        strategy=strategy,
        trained_on=trained_on,
        metrics=dict(metrics or {}),
        calibration=tuple(calibration),
        sha256={WEIGHTS: hashlib.sha256(data).hexdigest()},
        details=dict(details or {}),
    )
    write_card(card, directory)
    return card


def save_space(
    space: FeatureSpace,
    base_directory: Path,
    directory: Path,
    *,
    name: str,
    learned_from: str,
    crops: int,
    tracklets: Mapping[str, int],
    basis: Literal["none", "tracklets", "people"] = "none",
) -> ModelCard:
    """Writes a model that is `space` on the model in `base_directory`, with that model's files, and returns the card.

    learned_from: the crops, in words; for the others see `SpaceSource`. A recentered space keeps the base's diff
    attention. Raises ModelFileError for a damaged base.
    """
    base = read_card(base_directory)
    directory.mkdir(parents=True, exist_ok=True)
    for file in base.sha256:
        shutil.copyfile(base_directory / file, directory / file)
    source = SpaceSource(
        base=model_digest(base).hex(),
        dims=base.dims,
        diff_attention=base.diff_attention,
        basis=basis,
        learned_from=learned_from,
        crops=crops,
        tracklets=dict(tracklets),
    )
    card = ModelCard(
        **{field: getattr(base, field) for field in ModelConfig.model_fields if field != "diff_attention"},
        name=name,
        engine=base.engine,
        dims=space.dims_out,
        diff_attention=base.diff_attention if space.recentered else None,
        feature_space=source,
        strategy=base.strategy,
        trained_on=base.trained_on,
        sha256={**base.sha256, **space.save(directory)},
    )
    write_card(card, directory)
    return card


def save_base(directory: Path, out: Path) -> None:
    """Writes the model that the feature space in `directory` is computed from. Raises ModelFileError."""
    base = base_card(read_card(directory))
    out.mkdir(parents=True, exist_ok=True)
    for file in base.sha256:
        shutil.copyfile(directory / file, out / file)
    write_card(base, out)


def write_card(card: ModelCard, directory: Path) -> None:
    """Writes `card` into a model directory, in place of the card that is there."""
    write_whole(directory / CARD, (card.model_dump_json(indent=2) + "\n").encode())


def read_card(directory: Path) -> ModelCard:
    """The card of a model directory. Raises ModelFileError for a bad card and for files that are missing or changed."""
    path = directory / CARD
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise ModelFileError(f"{path}: larger than {MAX_TEXT_BYTES} bytes; not a model card")
        card = ModelCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelFileError(f"{path}: not a model card: {where}: {first['msg']}") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}); a model directory holds card.json") from None
    for name, expected in card.sha256.items():
        file = directory / name
        if Path(name).name != name or file.is_symlink():
            raise ModelFileError(f"{path}: names {name[:80]!r}, which is not a plain file in its folder")
        if sha256_of(file) != expected:
            raise ModelFileError(f"{file}: its SHA-256 is not the one in card.json; get both from their source again")
    needed = {WEIGHTS} if card.engine == "torch" else set()
    if card.engine != "torch" and card.diff_attention is not None:
        needed = {DIFF_ATTENTION}
    if card.feature_space is not None:
        needed |= set(SPACE)
        if model_digest(base_card(card)).hex() != card.feature_space.base:
            raise ModelFileError(f"{path}: its base is another model than the one whose files are here")
    if absent := needed - card.sha256.keys():
        raise ModelFileError(
            f"{path}: states no SHA-256 of {', '.join(sorted(absent))}, which {card.engine} models have"
        )
    return card


def model_digest(card: ModelCard) -> bytes:
    """32 bytes that identify what a model computes: its files, architecture and input, not its name or calibration."""
    files = [part for name in sorted(card.sha256) for part in (name, card.sha256[name])]
    built = (card.engine, card.architecture, card.baseline, str(card.non_local_channels), str(card.dims))
    shape = "" if card.diff_attention is None else card.diff_attention.model_dump_json()
    return content_hash("model", (*built, shape, card.input.model_dump_json(), *files))


def base_card(card: ModelCard) -> ModelCard:
    """The card of the model that computes the raw features: of the base for a feature space, else `card` itself.

    Without metrics and calibrations, which are not the base's.
    """
    if card.feature_space is None:
        return card
    return card.model_copy(
        update={
            "dims": card.feature_space.dims,
            "diff_attention": card.feature_space.diff_attention,
            "feature_space": None,
            "metrics": {},
            "calibration": (),
            "search_calibration": (),
            "operating_point": None,
            "sha256": {name: digest for name, digest in card.sha256.items() if name not in SPACE},
        }
    )


def refuse_space(card: ModelCard, what: str) -> None:
    """Raises InputError for a feature space, which needs to know each picture's camera. what: that cannot be done."""
    if card.feature_space is not None:
        raise InputError(
            f"{card.name} is a feature space, which needs to know the camera of each picture, and {what}; "
            "take the model that it is computed from"
        )


def open_space(directory: Path, card: ModelCard) -> FeatureSpace | None:
    """The feature space in the directory of the model with this card, None if it has none. Raises ModelFileError."""
    if card.feature_space is None:
        return None
    for name in SPACE:
        if sha256_of(directory / name) != card.sha256[name]:
            raise ModelFileError(f"{directory / name}: its SHA-256 is not the one in {CARD}")
    space = FeatureSpace.open(directory)
    if (space.dims, space.dims_out) != (card.feature_space.dims, card.dims):
        raise ModelFileError(f"{directory}: the feature space and {CARD} name different dims")
    return space


def load_model(directory: Path) -> "ReIDModel":
    """The torch model of a model directory, on the CPU, in float32 and eval mode. Raises ModelFileError.

    That of a feature space has its base's diff attention only where the space keeps it.
    """
    from reid_core.models import build_model

    own = read_card(directory)
    card = base_card(own)
    if card.engine != "torch" or card.baseline == "foreign":
        raise ModelFileError(f"{directory}: is a model of the engine {card.engine}; a torch model is needed here")
    try:
        model = build_model(card)
    except (CoreError, UsageError) as error:
        raise ModelFileError(f"{directory / CARD}: {error}") from None
    if model.dims != card.dims:
        raise ModelFileError(f"{directory}: card.json says {card.dims} dims, {card.architecture} has {model.dims}")
    _load_into(model, directory / WEIGHTS)
    if own.diff_attention is None:
        model.diff_attention = None
    return model.eval()


def load_diff_attention(directory: Path, card: ModelCard) -> "DiffAttention | None":
    """The module that was trained on a foreign embedder, in float32 and eval mode; None if its card has none.

    Raises ModelFileError.
    """
    from reid_core.diff_attention import DiffAttention

    if card.diff_attention is None:
        return None
    module = DiffAttention(card.dims, card.diff_attention)
    _load_into(module, directory / DIFF_ATTENTION)
    return module.eval()


def _load_into(module: "ReIDModel | DiffAttention", path: Path) -> None:
    try:
        module.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"{path}: does not fit the model that card.json describes: {reason[:300]}") from None
