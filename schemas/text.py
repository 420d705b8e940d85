"""Text from outside: what may be stored as it was given, and what is refused at the door."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator


def storable(text: str) -> str:
    """`text` itself. Raises ValueError for what no database text can hold: NUL and half characters."""
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (an unpaired surrogate)") from None
    return text


def _one_line(text: str) -> str:
    """`text` itself. Raises ValueError for control characters too, line ends among them."""
    for character in storable(text):
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise ValueError(f"holds the control character U+{ord(character):04X}")
    return text


#: Characters that turn the direction of writing; they can make one name look like another.
_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


def one_line(text: object) -> str:
    """Its text for showing, on one line: white space runs, control characters and turns of direction as one space."""
    kept = (
        " " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in _TURNS else c
        for c in str(text)
    )
    return " ".join("".join(kept).split())


#: Names for people to read; kept as given, escaped where they are shown.
Text = Annotated[str, AfterValidator(storable)]
#: Names for programs to compare, such as a track's.
Line = Annotated[str, AfterValidator(_one_line)]
