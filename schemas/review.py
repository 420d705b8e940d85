"""What reviewers say of two passages, and how they came to be asked."""

from enum import StrEnum


class Said(StrEnum):
    """What one reviewer says of two passages."""

    SAME = "same"
    DIFFERENT = "different"
    UNSURE = "unsure"


class Way(StrEnum):
    """How somebody came to answer."""

    DECISION = "decision"  # a match decision that was left to a person
    HIT = "hit"  # of a search
    PAIR = "pair"  # two passages that they named
    SECOND = "second"  # another reviewer's pair, without seeing that answer
    MERGE = "merge"  # two identities by hand
    SPLIT = "split"  # passages taken out of an identity by hand


#: These are about groups: nobody looked at each of their pairs.
BY_HAND = frozenset({Way.MERGE, Way.SPLIT})
