"""The folders of registered models, `models/NAME` in the data directory: copied in, moved and removed as a whole.

The rows of the database decide which models there are. A folder without a row is harmless, and the next
registration replaces it; a row without a folder would be a broken model. So a folder is there before its row is
committed, and it is removed after that. Names that begin with a dot are temporary.
"""

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from reid_core.files import SPACE, model_digest, read_card, write_card
from schemas.cards import InputConvention, ModelCard
from schemas.errors import HomeError, InputError, ModelFileError
from schemas.settings import Settings

#: Pictures in one padded batch of the trial of a torch model.
_TRIAL_BATCH = 4


@contextmanager
def copied_model(
    settings: Settings, source: Path, name: str, convention: InputConvention | None
) -> Iterator[tuple[Path, ModelCard]]:
    """A temporary folder in this home with a model's files and its card under `name`, after a trial of the model.

    `source`: a model directory, or an OpenVINO .xml or .onnx file, whose `convention` is given as far as the file does
    not state it. Raises InputError, ModelFileError, VectorError, CoreError and HomeError.
    """
    from reid_core.serving.foreign import foreign_card, foreign_files
    from reid_core.serving.local import LocalCore
    from reid_core.serving.trial import try_embedder

    if source.is_dir():
        if convention is not None:
            raise InputError(f"{source}: a model directory's card states its input convention; give none")
        card = read_card(source).model_copy(update={"arithmetic": None})  # another home's
        core = LocalCore.open(settings.model_copy(update={"batch_size": _TRIAL_BATCH, "compile": "auto"}), source)
        if card.engine != "none":
            try_embedder(core.embed, card.raw_dims, card.input, str(source))
        files = _files_here(settings, source, card)
    else:
        if not source.is_file():
            raise InputError(f"{source}: no such file or model directory")
        card = foreign_card(source, name, convention, settings)
        files = foreign_files(source)
    with _copy(settings, files, card.model_copy(update={"name": name})) as folder:
        yield folder, read_card(folder)


@contextmanager
def renamed_model(settings: Settings, directory: Path, name: str) -> Iterator[Path]:
    """A temporary folder in this home with a copy of the model in `directory` under another name.

    Raises ModelFileError for a damaged model, and HomeError.
    """
    card = read_card(directory).model_copy(update={"name": name})
    with _copy(settings, [directory / file for file in card.sha256], card) as folder:
        yield folder


def is_whole(directory: Path, digest: bytes) -> bool:
    """Whether the model of this digest is in `directory`, undamaged."""
    try:
        return model_digest(read_card(directory)) == digest
    except ModelFileError:
        return False


def move_into_place(folder: Path, place: Path) -> None:
    """Renames `folder` to `place`, whose content it replaces. Raises HomeError."""
    try:
        take_away(place)
        folder.rename(place)
    except OSError as error:
        raise HomeError(f"{place}: cannot keep the model there: {error.strerror}") from None


def take_away(place: Path) -> None:
    """Removes a folder, if it is there, so that no other process finds a part of it. Raises OSError."""
    if place.is_symlink() or place.is_dir():
        removed = place.with_name(f".{place.name}.{uuid.uuid4().hex}")
        place.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def _files_here(settings: Settings, source: Path, card: ModelCard) -> list[Path]:
    """The files of the model in `source`; those of a feature space's base where that is registered, from its folder."""
    base = None
    if card.feature_space is not None:
        folders = sorted(settings.models_dir.glob("[!.]*/"))
        base = next((one for one in folders if is_whole(one, bytes.fromhex(card.feature_space.base))), None)
    return [source / file if base is None or file in SPACE else base / file for file in card.sha256]


def _keep(settings: Settings, file: Path, to: Path) -> None:
    """A second name for a file that a model here has already, as files of models never change; else a copy."""
    if file.is_relative_to(settings.models_dir):
        with suppress(OSError):  # a file system without links
            os.link(file, to)
            return
    shutil.copyfile(file, to)


@contextmanager
def _copy(settings: Settings, files: Iterable[Path], card: ModelCard) -> Iterator[Path]:
    folder = settings.models_dir / f".{card.name}.{uuid.uuid4().hex}"
    try:
        try:
            settings.models_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700)
            for file in files:
                _keep(settings, file, folder / file.name)
            write_card(card, folder)
        except OSError as error:
            raise HomeError(f"{folder.parent}: cannot keep the model there: {error.strerror}") from None
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
