"""Exports a model directory to safetensors, ONNX or OpenVINO IR, and refuses a result that is not the same model.

| precision | the file holds                      | requirement                                                        |
|-----------|-------------------------------------|--------------------------------------------------------------------|
| f32       | float32                             | cosine to the model's features >= 0.9999, in batches of 1, 7, 32   |
| bf16      | float32, run in bfloat16 (OpenVINO) | the same, run in float32; with labeled pictures mAP as for int8    |
| int8      | int8 (OpenVINO)                     | mAP on labeled pictures at most 0.5 points lower                   |

Distances after f32 are the same, so the card keeps its calibration and metrics; after bf16 and int8 it loses them.
ONNX and OpenVINO files are measured on the CPU.
"""

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from reid_core.datasets.person_pictures import PersonPictures
from reid_core.evaluation.evaluate import evaluate
from reid_core.export.quantize import quantized
from reid_core.files import (
    DIFF_ATTENTION,
    load_diff_attention,
    load_model,
    model_digest,
    read_card,
    refuse_space,
    save_model,
    write_card,
)
from reid_core.preprocessing import normalized
from reid_core.serving.conversion import ANY_BATCH, as_openvino, example
from reid_core.serving.engines import ONNX_INPUT, RT_INPUT, RT_PRECISION, engine_of, weights_of
from reid_core.serving.extras import load_extra, openvino_core
from reid_core.serving.foreign import ForeignEmbedder, model_file
from reid_core.serving.local import LocalCore
from reid_core.serving.trial import rendered_pictures
from reid_core.tensors import sha256_of, write_tensors
from schemas.cards import InputConvention, ModelCard
from schemas.errors import CoreError, InputError, UsageError
from schemas.settings import Settings

if TYPE_CHECKING:
    from reid_core.models import ReIDModel

Format = Literal["safetensors", "onnx", "openvino"]
Precision = Literal["f32", "bf16", "int8"]
Pictures = NDArray[np.uint8]

#: Lowest cosine between a picture's features before and after the export.
PARITY = 0.9999
PARITY_BATCHES = (1, 7, 32)
#: Points of mAP that int8 and bf16 may lose.
MAX_DROP = 0.5

_FILES = {"onnx": "model.onnx", "openvino": "model.xml"}


@dataclass(frozen=True)
class Labeled:
    """Labeled pictures of people who are in no training data, to measure mAP on; `source` describes them in words."""

    source: str
    query: PersonPictures
    gallery: PersonPictures


@dataclass(frozen=True)
class Exported:
    """The card of an exported model, and what was measured on it.

    cosines: lowest cosine to the model's float32 features by batch size, of the file run in float32, or of the int8
    file for int8. execution_cosine: the same at the precision that the file runs at. mAP: (before, after) in percent,
    by attended distances if the model has diff attention; None without labeled pictures.
    """

    card: ModelCard
    cosines: dict[int, float]
    execution_cosine: float
    mAP: tuple[float, float] | None = None


def export_model(
    settings: Settings,
    source: Path,
    out: Path,
    to: Format,
    *,
    precision: Precision = "f32",
    calibration: Pictures | None = None,
    labeled: Labeled | None = None,
) -> Exported:
    """Exports the model directory `source` to the new directory `out` in the format `to`, whole or not at all.

    `calibration`: prepared pictures, uint8 RGB (N, H, W, 3), for int8. A torch model can be exported to every format,
    an OpenVINO or ONNX model only to OpenVINO. Raises UsageError for a combination that is not supported, InputError if
    `out` exists and for a feature space, ModelFileError, and CoreError if an extra is missing, if this processor cannot
    run the file as it would be used, or, with the figures, if the result is not the same model.
    """
    card = read_card(source)
    refuse_space(card, "cannot be exported")
    refuse_combination(card, to, precision, calibration is not None, labeled is not None)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists already; give the name of a new folder")
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None
    try:
        written = _write_files(source, card, partial, to, precision, calibration)
        shown = _parity_pictures(card.input, calibration, labeled)
        exported = _checked(settings, source, card, partial, written, precision, shown, labeled)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return exported


def computes_bfloat16() -> bool:
    """Whether OpenVINO runs a bfloat16 file in bfloat16 on this processor."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def refuse_combination(card: ModelCard, to: Format, precision: Precision, calibrated: bool, labeled: bool) -> None:
    """Raises UsageError for what `export_model` does not support, CoreError for what it cannot measure here.

    `calibrated`, `labeled`: whether pictures are given to calibrate on and to measure mAP on.
    """
    if card.engine == "none":
        raise UsageError(f"model {card.name} has no network; its features are ingested with the crops")
    if card.engine != "torch" and to != "openvino":
        raise UsageError(f"model {card.name} is for the engine {card.engine}, and can be exported only to openvino")
    if precision != "f32" and to != "openvino":
        raise UsageError(
            f"{precision} is for openvino; a {to} file holds float32"
            + (", which URBAN_REID_PRECISION rounds when it runs" if to == "safetensors" else "")
        )
    if precision == "int8" and not (calibrated and labeled):
        raise UsageError("int8 needs pictures to calibrate on and labeled ones to measure its loss of mAP")
    if precision == "bf16" and not computes_bfloat16():
        raise CoreError(
            "this processor has no bfloat16: OpenVINO would run the file in float32 here, and the loss could not be "
            "measured; export it on a processor that has bfloat16, or as f32"
        )


def _write_files(
    source: Path, card: ModelCard, out: Path, to: Format, precision: Precision, calibration: Pictures | None
) -> ModelCard:
    """Writes the files and a card without measurements."""
    torch_model = load_model(source) if card.engine == "torch" else None
    name = f"{card.name}-{to}-{precision}"[-64:].lstrip("._-")
    if to == "safetensors":
        assert torch_model is not None
        hashes = save_model(torch_model, out, name=name).sha256
        return _card(card, name, "torch", hashes, out)
    if to == "onnx":
        assert torch_model is not None
        _write_onnx(torch_model, card.input, out / _FILES["onnx"])
    else:
        write_openvino(
            torch_model or model_file(source, card), card.input, out / _FILES["openvino"], precision, calibration
        )
    attention = torch_model.diff_attention if torch_model else load_diff_attention(source, card)
    if attention is not None:
        write_tensors(attention, out / DIFF_ATTENTION)
    hashes = {path.name: sha256_of(path) for path in sorted(out.iterdir())}
    return _card(card, name, to, hashes, out)


def _card(card: ModelCard, name: str, engine: str, hashes: dict[str, str], out: Path) -> ModelCard:
    written = ModelCard(**{**dict(card), "name": name, "engine": engine, "sha256": hashes, "arithmetic": None})
    write_card(written, out)
    return written


def _write_onnx(model: "ReIDModel", convention: InputConvention, file: Path) -> None:
    load_extra("onnxscript", extra="onnx")
    program = torch.onnx.export(
        model,
        (example(convention),),
        input_names=["images"],
        output_names=["features"],
        dynamic_shapes=ANY_BATCH,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props[ONNX_INPUT] = convention.model_dump_json()
    program.save(file, external_data=False)


def write_openvino(
    source: "ReIDModel | Path",
    convention: InputConvention,
    out: Path,
    precision: Precision,
    calibration: Pictures | None = None,
) -> None:
    """Writes `out`, an .xml with its .bin, from a torch model in eval mode or from an IR or ONNX file.

    A torch model's IR has an open batch size. int8 needs `calibration`.
    """
    openvino = load_extra("openvino")
    if isinstance(source, Path):
        weights = (str(weights_of(source)),) if engine_of(source) == "openvino" else ()
        graph = openvino_core().read_model(str(source), *weights)
    else:
        graph = as_openvino(source, convention)
    if precision == "int8":
        assert calibration is not None
        graph = quantized(graph, calibration, convention)
    graph.set_rt_info("bf16" if precision == "bf16" else "f32", RT_PRECISION)
    graph.set_rt_info(convention.model_dump_json(), RT_INPUT)
    openvino.save_model(graph, str(out), compress_to_fp16=False)


def _checked(
    settings: Settings,
    source: Path,
    card: ModelCard,
    out: Path,
    written: ModelCard,
    precision: Precision,
    pictures: Pictures,
    labeled: Labeled | None,
) -> Exported:
    """Measures what was written, and completes its card. Raises CoreError if it is not the same model."""
    before = settings.model_copy(update={"precision": "float32", "engine": "torch"})
    here = settings if written.engine == "torch" else settings.model_copy(update={"device": "cpu"})
    float32, as_stated = (here.model_copy(update={"precision": value}) for value in ("float32", "auto"))
    expected = _embedder(source, card, before, len(pictures))(pictures)
    cosines = {
        size: lowest_cosine(_embedder(out, written, float32, size)(pictures[:size]), expected[:size])
        for size in PARITY_BATCHES
    }
    if precision != "int8" and not all(cosine >= PARITY for cosine in cosines.values()):
        found = ", ".join(f"{cosine:.6f} in a batch of {size}" for size, cosine in cosines.items())
        raise CoreError(
            f"model {card.name} as {written.engine}: its features are not the same: lowest cosine {found}, required "
            f"is {PARITY}; nothing was written"
        )
    execution = lowest_cosine(LocalCore.open(as_stated, out).embed(pictures), expected)
    scores = None
    if labeled is not None:
        scores = (mAP_of(before, source, labeled), mAP_of(as_stated, out, labeled))
        if precision != "f32" and scores[0] - scores[1] > MAX_DROP:
            better = "calibrate on pictures that look more like these, or " if precision == "int8" else ""
            raise CoreError(
                f"model {card.name} as {precision}: mAP falls from {scores[0]:.2f} to {scores[1]:.2f} on "
                f"{labeled.source}, and may fall by {MAX_DROP}; {better}export it as f32"
            )
    measured: dict[str, Any] = {
        "from": card.name,
        "from_digest": model_digest(card).hex(),
        "precision": precision,
        "cosines": {str(size): cosine for size, cosine in cosines.items()},
        "execution_cosine": execution,
    }
    if labeled is not None and scores is not None:
        measured["mAP"] = {"on": labeled.source, "before": scores[0], "after": scores[1]}
    changes: dict[str, Any] = {"details": {**card.details, "export": measured}}
    if precision != "f32" and execution < PARITY:
        changes |= {"calibration": (), "operating_point": None, "metrics": {}}
    final = ModelCard(**{**dict(written), **changes})
    write_card(final, out)
    return Exported(final, cosines, execution, scores)


def _embedder(
    directory: Path, card: ModelCard, settings: Settings, batch_size: int
) -> Callable[[Pictures], NDArray[np.float32]]:
    """Computes a model's features in batches of `batch_size` if its file takes them, a torch model's on the CPU."""
    if card.engine != "torch":
        return ForeignEmbedder.open(model_file(directory, card), card.input, settings, batch_size)
    model = load_model(directory)

    @torch.inference_mode()
    def embed(pictures: Pictures) -> NDArray[np.float32]:
        features: NDArray[np.float32] = model(normalized(torch.from_numpy(pictures), card.input)).numpy()
        return features

    return embed


def lowest_cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The lowest cosine between rows of two arrays (n, D); NaN if a feature holds NaN."""
    x, y = found.astype(np.float64), expected.astype(np.float64)
    cosines = (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return float(cosines.min())


def mAP_of(settings: Settings, directory: Path, labeled: Labeled) -> float:
    scores = evaluate(settings, directory, labeled.query, labeled.gallery)
    return scores.get("attended", scores["plain"]).mAP


def _parity_pictures(convention: InputConvention, calibration: Pictures | None, labeled: Labeled | None) -> Pictures:
    """Pictures for the largest batch of the parity check: the user's if enough are given, otherwise rendered ones."""
    count = max(PARITY_BATCHES)
    for given in (calibration, None if labeled is None else labeled.query.pictures):
        if given is not None and len(given) >= count:
            return given[:: len(given) // count][:count]
    return rendered_pictures(count, convention)
