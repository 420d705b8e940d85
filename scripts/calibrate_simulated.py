"""Makes the packaged model of simulated cities: `python -m scripts.calibrate_simulated`, or `make simulated-model`.

Features come with the simulated crops, so the model is only a diff attention module, trained separately (paper,
'Training strategies') on simulated people, and a calibration fitted on simulated cities; its card also holds the
baselines' thresholds from the same cities. The seeds are used nowhere else, so that no city is scored on the data that
its thresholds were chosen on.
"""

import hashlib
import sys
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.accuracy.baselines import BASELINES, LabeledPassages, Passages, search_threshold
from pipeline.association.geometry import unit_geometry
from pipeline.calibration.fit import calibrate
from pipeline.simulation import MODEL, WEIGHTS
from reid_core.diff_attention import DiffAttention
from reid_core.files import DIFF_ATTENTION, write_card
from reid_core.tensors import write_tensors
from reid_core.training.losses import batch_hard_triplet
from reid_core.training.plans import learning_rate, paper_settings
from reid_core.training.sampling import identity_batches
from schemas.arrays import Floats, Ints
from schemas.cards import DiffAttentionSettings, ModelCard
from schemas.settings import AssociationSettings, settings
from scripts.calibrate_demo import write_searches_into_card
from synthetic.embedding_city import EmbeddingCity, EmbeddingCitySettings, embedding_city

#: Seeds of the people that the module is trained on, and of the cities on which thresholds are chosen.
TRAINING_SEED, SEEDS = 9100, (9101, 9102)
#: Of the cities that searches are calibrated on: several, whose people are each other's strangers.
SEARCH_SEEDS = (9101, 9102, 9103, 9104)
_PEOPLE, _EPOCHS, _RATE = 700, 10, 1e-4


def main() -> None:
    pairs, searches = (f"simulated:{','.join(map(str, seeds))}" for seeds in (SEEDS, SEARCH_SEEDS))
    if "--search" in sys.argv[1:]:
        write_searches_into_card(WEIGHTS, searches, _say)
        return
    module = train_module(_say)
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    data = write_tensors(module, WEIGHTS / DIFF_ATTENTION)
    card = ModelCard(
        name=MODEL,
        engine="none",
        dims=module.dims,
        architecture=MODEL,
        baseline="foreign",
        diff_attention=module.settings,
        strategy="separate",
        trained_on=f"{_PEOPLE} people of an embedding-level city, seed {TRAINING_SEED}",
        sha256={DIFF_ATTENTION: hashlib.sha256(data).hexdigest()},
    )
    write_card(card, WEIGHTS)
    fitted = calibrate(settings(), WEIGHTS, pairs, _say)
    f1 = {level.value: round(value, 4) for level, value in fitted.pairwise_f1.items()}
    card = card.model_copy(update={"calibration": fitted.levels, "details": {"calibration_pairwise_f1": f1}})
    write_card(card, WEIGHTS)
    details = card.details | {"baseline_thresholds": baseline_thresholds(_say)}
    write_card(card.model_copy(update={"details": details}), WEIGHTS)
    write_searches_into_card(WEIGHTS, searches, _say)


def train_module(report: Callable[[str], None]) -> DiffAttention:
    """Diff attention trained on frozen simulated features, with the paper's loss and a lower rate, in eval mode."""
    features, people = _crops(embedding_city(EmbeddingCitySettings(cameras=200, seed=TRAINING_SEED)), _PEOPLE)
    plan = paper_settings("separate", "bagtricks")
    torch.manual_seed(TRAINING_SEED)
    module = DiffAttention(features.shape[1], DiffAttentionSettings())
    adam = torch.optim.Adam(module.parameters(), weight_decay=plan.weight_decay)
    every = torch.from_numpy(features)
    for epoch in range(_EPOCHS):
        batches = identity_batches(
            people, plan.identities_per_batch, plan.pictures_per_identity, (TRAINING_SEED, epoch)
        )
        total = 0.0
        for number, rows in enumerate(batches):
            share = (epoch + number / len(batches)) / _EPOCHS
            for group in adam.param_groups:
                group["lr"] = _RATE / plan.learning_rate * learning_rate(plan, share * plan.epochs)
            its = every[torch.from_numpy(rows)]
            distances = module.distance_matrix(its, its, normalize=False)
            loss = plan.triplet_weight * batch_hard_triplet(distances, torch.from_numpy(people[rows]), plan.margin)
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            total += float(loss.detach())
        report(f"diff attention, epoch {epoch + 1} of {_EPOCHS}: loss {total / len(batches):.3f}")
    return module.eval()


def _crops(simulated: EmbeddingCity, most: int) -> tuple[NDArray[np.float32], Ints]:
    """Features (N, D) and people (N,) of one crop per tracklet, of the first `most` people with at least four."""
    features: list[NDArray[np.float32]] = []
    people: list[Ints] = []
    for batch in simulated.batches():
        first = np.unique(batch.track, return_index=True)[1]
        features.append(batch.features[first])
        people.append(batch.person[first])
        if len(np.unique(np.concatenate(people))) > 2 * most:
            break
    whose = np.concatenate(people)
    names, counts = np.unique(whose, return_counts=True)
    chosen = np.isin(whose, names[counts >= 4][:most])
    return np.concatenate(features)[chosen], whose[chosen]


def baseline_thresholds(report: Callable[[str], None]) -> dict[str, list[float]]:
    """The thresholds of each baseline with the best IDF1 at the district, on the cities of the calibration."""
    cities = [_passages(embedding_city(EmbeddingCitySettings(cameras=64, seed=seed))) for seed in SEEDS]
    found = {}
    for name, baseline in BASELINES.items():
        chosen = search_threshold(baseline, cities)
        found[name] = [chosen.threshold]
        report(f"{name}: threshold {chosen.threshold}, district IDF1 {chosen.idf1:.3f}")
    return found


def _passages(simulated: EmbeddingCity) -> LabeledPassages:
    """The city's tracklets as the store would hold them, with their quality-weighted mean features."""
    geometry = unit_geometry(simulated.city, "d1", AssociationSettings())
    parts: list[tuple[Floats, Ints, Ints, Ints, Ints, Ints]] = []
    for batch in simulated.batches():
        _, first, of = np.unique(batch.track, return_index=True, return_inverse=True)
        of = of.reshape(-1)
        weight = np.bincount(of, batch.quality)
        mean = np.zeros((len(first), batch.features.shape[1]))
        np.add.at(mean, of, batch.features * batch.quality[:, None].astype(np.float64))
        start, end = np.full(len(first), np.iinfo(np.int64).max), np.zeros(len(first), np.int64)
        np.minimum.at(start, of, batch.time_us)
        np.maximum.at(end, of, batch.time_us)
        camera, person = batch.camera[first].astype(np.int64), batch.person[first]
        parts.append((mean / weight[:, None], camera, start, end, person, np.bincount(of)))
    mean, camera, start, end, person, crops = (np.concatenate(column) for column in zip(*parts, strict=True))
    passages = Passages(mean.astype(np.float32), camera, start, end, geometry.min_gap)
    return LabeledPassages(passages, person, crops)


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
