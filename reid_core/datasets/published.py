"""Data sets that papers report on, with the counts that their authors state."""

from collections.abc import Sequence

from reid_core.datasets.dataset import Counts, Published, Sample, count

MARKET1501 = Published("Market-1501", Counts(12_936, 751), Counts(3_368, 750), Counts(15_913, 750))
#: The new protocol of Zhong et al., 'Re-ranking Person Re-identification with k-reciprocal Encoding', CVPR 2017.
CUHK03_DETECTED = Published("CUHK03 detected", Counts(7_365, 767), Counts(1_400, 700), Counts(5_332, 700))
CUHK03_LABELED = Published("CUHK03 labeled", Counts(7_368, 767), Counts(1_400, 700), Counts(5_328, 700))
MSMT17 = Published("MSMT17", Counts(32_621, 1_041), Counts(11_659, 3_060), Counts(82_161, 3_060))


def known_by_counts(
    train: Sequence[Sample], query: Sequence[Sample], gallery: Sequence[Sample], distractor: int | None
) -> Published | None:
    """The published data set whose counts at least two of the three splits match exactly, if any.

    A folder in Market-1501's form may hold another data set.
    """
    found = [count(train, None), count(query, distractor), count(gallery, distractor)]
    for known in (MARKET1501, CUHK03_DETECTED, CUHK03_LABELED, MSMT17):
        if sum(a == b for a, b in zip(found, (known.train, known.query, known.gallery), strict=True)) >= 2:
            return known
    return None
