"""From a data set's name on the command line, such as `cuhk03:DIR`, to the data set."""

from dataclasses import replace
from pathlib import Path

from reid_core.datasets.dataset import Dataset
from reid_core.datasets.market1501 import open_market1501
from schemas.errors import InputError

LAYOUTS = {"market1501": open_market1501}


def open_dataset(source: str) -> Dataset:
    """The data set that `source` names: `market1501:DIR`."""
    kind, _, what = source.partition(":")
    if kind not in LAYOUTS or not what:
        raise InputError(f"{source[:80]!r}: write LAYOUT:DIR with one of the layouts {', '.join(LAYOUTS)}")
    found = LAYOUTS[kind](Path(what), source)
    if found.wrong:
        raise InputError(f"{what}: {len(found.wrong)} names cannot be used: {'; '.join(found.wrong[:10])}")
    return replace(found, wrong=())
