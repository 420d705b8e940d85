"""Text from outside the program: what may be stored, and how it is shown."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator


def storable(text: str) -> str:
    """Returns `text`. Raises ValueError for what the database cannot store: NUL and unpaired surrogates."""
    if "\x00" in text:
        raise ValueError("holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (an unpaired surrogate)") from None
    return text


def _one_line(text: str) -> str:
    """Returns `text`. Raises ValueError as `storable`, and for control characters such as line ends."""
    for character in storable(text):
        if unicodedata.category(character) in ("Cc", "Zl", "Zp"):
            raise ValueError(f"holds the control character U+{ord(character):04X}")
    return text


#: Bidirectional classes of characters that change the direction of writing, and so can make two names look alike.
_TURNS = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))


def one_line(text: object) -> str:
    """The text of an object on one line: white space, control characters and changes of direction become one space."""
    kept = (
        " " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(c) in _TURNS else c
        for c in str(text)
    )
    return " ".join("".join(kept).split())


def said(text: str) -> str:
    """Returns `text`: marks it as one that pages show, so that `scripts/texts.py` collects it for translators."""
    return text


def chance(probability: float) -> str:
    """A probability as people say it: 37%. Neither 0% nor 100%, which would be certain: under 1%, over 99%."""
    if probability < 0.01:
        return said("under 1%")
    if probability > 0.99:
        return said("over 99%")
    return f"{probability:.0%}"


#: A name for people to read; stored as given, escaped where it is shown.
Text = Annotated[str, AfterValidator(storable)]
#: A name for programs to compare, such as a track's.
Line = Annotated[str, AfterValidator(_one_line)]


def byte_size(count: float) -> str:
    """A number of bytes as people write it: 3.2 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
