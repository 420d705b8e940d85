"""Words of the match decisions and of the identities' history."""

from enum import StrEnum


class Verdict(StrEnum):
    JOIN = "join"
    APART = "apart"
    REVIEW = "review"


class EventKind(StrEnum):
    CREATE = "create"
    ATTACH = "attach"
    MERGE = "merge"
    SPLIT = "split"


class PrototypeKind(StrEnum):
    MEAN = "mean"
    MEDOID = "medoid"
