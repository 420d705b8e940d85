"""Numbers from outside the program."""

from typing import Annotated

from pydantic import BeforeValidator, FiniteFloat


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):  # which pydantic would take for 1 or 0
        raise ValueError(f"{str(value).lower()} is not a number")
    return value


#: A finite number.
Number = Annotated[FiniteFloat, BeforeValidator(_no_truth_value)]
