"""Attributes of people: what somebody wears and carries, by name, from a picture of the person."""

from reid_core.attributes.colors import color_name
from reid_core.attributes.recognizer import (
    OPENABLE,
    AttributeRecognizer,
    PersonAttributes,
    attribute_models,
    open_attributes,
)
from schemas.attributes import NAMES

__all__ = [
    "NAMES",
    "OPENABLE",
    "AttributeRecognizer",
    "PersonAttributes",
    "attribute_models",
    "color_name",
    "open_attributes",
]
