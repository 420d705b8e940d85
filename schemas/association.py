"""Words of the match decisions and of the identities' history."""

from enum import StrEnum


class Verdict(StrEnum):
    JOIN = "join"
    APART = "apart"
    REVIEW = "review"


class EventKind(StrEnum):
    """What happened to an identity of a unit in a window; those with `other_id` name another of the unit."""

    CREATE = "create"  # it appeared, with children that were in no identity
    ATTACH = "attach"  # it took in children that were in none
    MERGE = "merge"  # it took in another, which ended
    SPLIT = "split"  # it appeared with a part of another; one event for each that it has a part of
    MOVE = "move"  # it was there, and took in a part of another
    RETIRE = "retire"  # it ended, for it had no children left


class PrototypeKind(StrEnum):
    MEAN = "mean"
    MEDOID = "medoid"
