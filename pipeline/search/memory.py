"""How much memory a search may take for prototypes, and what is said where a unit does not fit."""

import psutil

from schemas.errors import InputError
from schemas.settings import Settings

#: Share of the machine's memory, where no setting says how much.
_SHARE = 0.5


def most_bytes(settings: Settings) -> int:
    """Bytes of prototypes that are kept in this process, of all units together."""
    if settings.search_memory_mb is not None:
        return settings.search_memory_mb * 1_000_000
    return int(psutil.virtual_memory().total * _SHARE)


def check_fits(unit: str, prototypes: int, dims: int, most: int) -> None:
    """Raises InputError where so many prototypes of so many channels, in half precision, are more than `most` bytes."""
    needed = prototypes * dims * 2
    if needed > most:
        raise InputError(
            f"{unit} has {prototypes:,} prototypes of {dims} channels, {needed / 1e6:,.0f} MB, and a search may keep "
            f"{most / 1e6:,.0f} MB in memory: search a part of {unit}, or have URBAN_REID_SEARCH_MEMORY_MB raised"
        )
