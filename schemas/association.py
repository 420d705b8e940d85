"""Values of match decisions and of the history of identities."""

from enum import StrEnum


class Verdict(StrEnum):
    """Result of a match decision: joined, kept apart, or left to a person."""

    JOIN = "join"
    APART = "apart"
    REVIEW = "review"


class EventKind(StrEnum):
    """What happened to an identity in a window. MERGE, SPLIT and MOVE also name another identity of the unit."""

    CREATE = "create"  # new, with children that were in no identity
    ATTACH = "attach"  # received children that were in no identity
    MERGE = "merge"  # received all of another identity, which ended
    SPLIT = "split"  # new, with a part of another identity; one event for each such identity
    MOVE = "move"  # received a part of another identity
    RETIRE = "retire"  # ended, because it had no children left


class PrototypeKind(StrEnum):
    """How a prototype was computed from its identity's features."""

    MEAN = "mean"
    MEDOID = "medoid"
