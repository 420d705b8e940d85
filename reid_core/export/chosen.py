"""The engine and precision that a model is registered with: the fastest that it is as good in.

What is allowed follows the gates of exports: float32 in another engine if the features are the same (`PARITY`),
bfloat16 if mAP on labeled pictures falls by at most `MAX_DROP`. Without labeled pictures bfloat16 is not taken.
See docs/decisions/measured-arithmetic.md.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from reid_core.export.export import MAX_DROP, PARITY, Labeled, lowest_cosine, mAP_of
from reid_core.files import model_digest, read_card
from reid_core.serving.conversion import forget_converted
from reid_core.serving.devices import choose_device, has_bfloat16, use_bfloat16
from reid_core.serving.extras import has_openvino, openvino_core
from reid_core.serving.local import LocalCore
from reid_core.serving.trial import rendered_pictures
from reid_core.speed.kept import Forms, is_measured, measured
from reid_core.speed.trial import MARGIN, fastest_first
from schemas.cards import Arithmetic, ModelCard
from schemas.settings import Settings

#: Pictures that a form embeds at a time in a trial.
_PICTURES = 4
#: Pictures whose features two engines must agree on.
_COMPARED = 32


def choose_arithmetic(settings: Settings, directory: Path, labeled: Labeled | None = None) -> Arithmetic | None:
    """What the features of a model directory are to be computed with; None for a model that computes none.

    `labeled`: pictures of people who are in no training data, on which bfloat16 is judged. Settings other than "auto"
    are taken as they are, without a trial. Raises what opening the model raises.
    """
    card = read_card(directory)
    if card.engine == "none":
        return None
    if card.engine == "onnx":
        return Arithmetic(engine="onnx", precision="float32", why="an .onnx file is computed in float32")
    if settings.precision == "auto" and (stated := _stated(card)) is not None:
        return stated
    device = choose_device(settings)
    if not is_measured(settings) or device.type == "cuda":
        engine = card.engine if card.engine != "torch" else "openvino" if settings.engine == "openvino" else "torch"
        on_cuda = device.type == "cuda" and engine == "torch"
        precision = settings.precision if settings.precision != "auto" else "float32"
        if on_cuda and use_bfloat16(settings, device):
            precision = "bfloat16"
        why = "the graphics card's fast form" if on_cuda and settings.precision == "auto" else "as the settings say"
        return Arithmetic(engine=engine, precision=precision, why=why)
    found = _measured(settings, directory, card, labeled)
    if found.engine != "openvino":
        forget_converted(settings, card)
    return found


def _stated(card: ModelCard) -> Arithmetic | None:
    """What an exported file was checked in."""
    exported = card.details.get("export", {}) if card.engine == "openvino" else {}
    precision = {"f32": "float32", "bf16": "bfloat16", "int8": "int8"}.get(exported.get("precision", ""))
    if precision is None:
        return None
    return Arithmetic.model_validate({"engine": "openvino", "precision": precision, "why": "as it was exported"})


def _measured(settings: Settings, directory: Path, card: ModelCard, labeled: Labeled | None) -> Arithmetic:
    size = f"{card.input.height}x{card.input.width}"
    network = f"{card.architecture} {card.baseline}" if card.engine == "torch" else model_digest(card).hex()[:16]
    forms = partial(_forms, settings, directory, card)
    speeds = measured(settings, f"embedding, {network} {size}", forms)
    default = f"{card.engine} float32"
    refused: list[str] = []
    for name in fastest_first(speeds, default):
        if name == default:
            break
        against = _objection(settings, directory, card, name, labeled)
        if against is None:
            why = f"{speeds[name]:.1f} times as fast as {default} here"
            return _arithmetic(name, "; ".join([why, *refused]))
        refused.append(f"{name} ({speeds[name]:.1f} times): {against}")
    return _arithmetic(default, "; ".join([*refused, f"nothing else is allowed and {MARGIN} times as fast here"]))


def _arithmetic(name: str, why: str) -> Arithmetic:
    engine, precision = name.split()
    return Arithmetic.model_validate({"engine": engine, "precision": precision, "why": why[:500]})


def _forced(settings: Settings, name: str) -> Settings:
    engine, precision = name.split()
    return settings.model_copy(update={"engine": engine, "precision": precision, "device": "cpu"})


def _objection(settings: Settings, directory: Path, card: ModelCard, name: str, labeled: Labeled | None) -> str | None:
    """What speaks against a form; None if the model is as good in it."""
    before, after = _forced(settings, f"{card.engine} float32"), _forced(settings, name)
    if name.endswith("float32"):
        pictures = rendered_pictures(_COMPARED, card.input)
        cosine = lowest_cosine(*(LocalCore.open(each, directory).embed(pictures) for each in (after, before)))
        return None if cosine >= PARITY else f"its features differ (cosine {cosine:.5f})"
    if labeled is None:
        return "was not judged on labeled pictures"
    fall = mAP_of(before, directory, labeled) - mAP_of(after, directory, labeled)
    return None if fall <= MAX_DROP else f"costs {fall:.1f} points of mAP on {labeled.source}"


def _forms(settings: Settings, directory: Path, card: ModelCard) -> Forms:
    pictures = rendered_pictures(_PICTURES, card.input)

    def compute(core: LocalCore) -> object:
        return core.embed(pictures)

    found: dict[str, Callable[[], object]] = {}
    for name in _names(card):
        here = _forced(settings, name).model_copy(update={"threads": 1, "batch_size": _PICTURES, "compile": "auto"})
        found[name] = partial(compute, LocalCore.open(here, directory))
    return found


def _names(card: ModelCard) -> Iterator[str]:
    """The forms that this processor has for a model, the usual one first."""
    if card.engine == "torch":
        yield "torch float32"
        if has_bfloat16():
            yield "torch bfloat16"
    if has_openvino():
        yield "openvino float32"
        if "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            yield "openvino bfloat16"
