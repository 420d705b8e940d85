"""The engine and precision in which a registered model's features are computed: those in its card, and no other."""

from schemas.cards import ModelCard
from schemas.errors import CoreError
from schemas.settings import Settings


def with_arithmetic(settings: Settings, card: ModelCard) -> Settings:
    """Settings with the engine and precision of the card in place of "auto"."""
    if card.arithmetic is None:
        return settings
    ours: dict[str, str] = {"engine": card.arithmetic.engine, "precision": card.arithmetic.precision}
    if ours["precision"] == "int8":  # of a file whose layers are int8 themselves; the others stay float32
        ours["precision"] = "float32"
    if card.engine != "torch":
        del ours["engine"]  # a file has one engine
    return settings.model_copy(
        update={name: value for name, value in ours.items() if getattr(settings, name) == "auto"}
    )


def check_arithmetic(settings: Settings, card: ModelCard) -> None:
    """Raises CoreError where settings force another engine or precision than a registered model's features have.

    Distances between features of two precisions are not those that the model was calibrated on.
    """
    kept = with_arithmetic(settings.model_copy(update={"engine": "auto", "precision": "auto"}), card)
    for name in ("engine", "precision"):
        forced, of_card = getattr(settings, name), getattr(kept, name)
        if "auto" not in (forced, of_card) and forced != of_card:
            raise CoreError(
                f"model {card.name}: its features here are {card.arithmetic}, and URBAN_REID_{name.upper()}={forced} "
                "would mix them with others",
                do="unset it, or export the model, register that and promote it",
            )
