"""A trial of an embedder before it is registered: whether it computes features at all, and one for each picture.

The pictures are rendered people, the only ones that every installation has: the reason why this package depends on
`synthetic`. An embedder that has not seen rendered people passes too, since only repetition is compared.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from reid_core.serving.checks import check_vectors
from schemas.cards import InputConvention
from schemas.errors import ModelFileError
from synthetic.training import training_set

#: Pictures of the trial: more than one padded batch of any engine.
PICTURES = 6
#: How far two features of one picture may differ, and those of different pictures have to, as a share of the largest
#: value. Engines on a CPU repeat themselves bit by bit; a GPU's kernels may not.
TOLERANCE = 1e-4


def rendered_pictures(count: int, convention: InputConvention) -> NDArray[np.uint8]:
    """`count` pictures of rendered people, prepared for a model: uint8 RGB (count, H, W, 3)."""
    people = -(-count // 2)
    return training_set(1, people, 2, (convention.height, convention.width)).pictures[:count]


def try_embedder(
    embed: Callable[[NDArray[np.uint8]], NDArray[np.float32]], dims: int, convention: InputConvention, where: str
) -> None:
    """Embeds rendered people together, again, in reverse order and one at a time.

    `embed`: prepared pictures (N, H, W, 3) to features (N, dims). Raises ModelFileError, beginning with `where`, if a
    picture's feature depends on the run or on the other pictures or if all pictures have one feature; VectorError for
    a feature that the store cannot hold.
    """
    pictures = rendered_pictures(PICTURES, convention)
    features = embed(pictures)
    check_vectors(features, dims, where)
    tolerance = TOLERANCE * np.abs(features).max()
    dependent = "the rows of a batch must not depend on each other"
    backwards = embed(np.ascontiguousarray(pictures[::-1]))[::-1]
    alone = np.concatenate([embed(pictures[row : row + 1]) for row in range(PICTURES)])
    repeated = {
        "in a second run": (embed(pictures), "export it in eval mode, where nothing is random"),
        "in another order": (backwards, dependent),
        "alone": (alone, dependent),
    }
    for how, (found, advice) in repeated.items():
        difference = np.abs(found - features).max()
        if not difference <= tolerance:
            share = difference / np.abs(features).max()
            raise ModelFileError(
                f"{where}: not an embedder: a picture's feature {how} differs by {share:.1g} of the largest value, and "
                f"may differ by {TOLERANCE:g}; {advice}"
            )
    if np.abs(features - features[0]).max() <= tolerance:
        raise ModelFileError(
            f"{where}: not an embedder: it gives {PICTURES} different pictures the same feature; check the file and "
            "its input convention"
        )
