"""Simulated features beside the real ones that they were fitted to: ranks, distances, the shift between cameras.

    URBAN_REID_REAL_SET=DIR python -m benchmarks.simulated_features --model DIR [--seeds 10]

The real set has the form of Market-1501 and two cameras. The model directory holds person-reidentification-retail-0277;
the simulation was fitted to its features of the set's training people. Both columns follow one protocol: the crops of
one camera are the queries, those of the other the gallery. Simulated figures are means over seeds, with their standard
deviation.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from reid_core.datasets import open_dataset
from reid_core.evaluation.ranking import RankingMetrics
from reid_core.files import read_card
from reid_core.serving.local import LocalCore
from schemas.settings import Settings
from synthetic.embedding_city.features import TwoCameras, two_cameras

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model directory")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    if not os.environ.get("URBAN_REID_REAL_SET"):
        parser.error("URBAN_REID_REAL_SET is not set")
    real = figures(read_real(Path(os.environ["URBAN_REID_REAL_SET"]), arguments.model))
    rows = [figures(two_cameras(seed)) for seed in range(arguments.seeds)]
    print(f"{'':<34}{'real':>9}{'simulated':>11}{'deviation':>11}")
    for name, value in real.items():
        column = [row[name] for row in rows]
        print(f"{name:<34}{value:>9.3f}{np.mean(column):>11.3f}{np.std(column):>11.3f}")


def read_real(folder: Path, model: Path) -> TwoCameras:
    """The model's features of the query and gallery of the set in `folder`."""
    dataset, card, core = (
        open_dataset(f"market1501:{folder}"),
        read_card(model),
        LocalCore.open(Settings(), model),
    )
    query, gallery = (dataset.load(part, card.input) for part in ("query", "gallery"))
    return TwoCameras(core.embed(query.pictures), query.identities, core.embed(gallery.pictures), gallery.identities)


def figures(sample: TwoCameras) -> dict[str, float]:
    """Ranks in percent; distances between features of length 1, 0 to 2; lengths of the raw features."""
    metrics = RankingMetrics(sample.gallery_person, np.full(len(sample.gallery), 2))
    query, gallery = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (sample.query, sample.gallery))
    across, within = distances(query, gallery), distances(query, query)
    scores = metrics.update(across, sample.query_person, np.full(len(query), 1)).compute()
    found = {"Rank-1": scores.rank1, "Rank-5": scores.rank5, "mAP": scores.mAP, "mINP": scores.mINP}
    same = sample.query_person[:, None] == sample.gallery_person
    same_side = sample.query_person[:, None] == sample.query_person
    other_crop = ~np.eye(len(query), dtype=bool)
    for name, values in (
        ("one person, other camera", across[same]),
        ("one person, one passage", within[same_side & other_crop]),
        ("two people, other camera", across[~same]),
        ("two people, one camera", within[~same_side]),
    ):
        found |= {f"{name}, {100 * q:g} %": float(np.quantile(values, q)) for q in QUANTILES}
    nearest = np.where(same, 3, across).min(axis=1)
    found |= {f"nearest stranger, {100 * q:g} %": float(np.quantile(nearest, q)) for q in (0.05, 0.5, 0.95)}
    lengths = np.linalg.norm(sample.query, axis=1)
    found |= {f"length, {100 * q:g} %": float(np.quantile(lengths, q)) for q in (0.05, 0.5, 0.95)}
    found["camera shift, length"] = float(np.linalg.norm(sample.query.mean(axis=0) - sample.gallery.mean(axis=0)))
    return found


def distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    squares: np.ndarray = np.maximum(2 - 2 * left.astype(np.float64) @ right.T.astype(np.float64), 0)
    return np.asarray(np.sqrt(squares))


if __name__ == "__main__":
    main()
