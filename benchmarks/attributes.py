"""Attributes of people: time for a crop, and how often two cameras agree on a person.

    python -m benchmarks.attributes DIR market1501:DIR [--people 200] [--seed 0]

DIR: the folder with the model's files (`NAME/FILE` or `FILE`), as of `models get --from`. Of each of `--people` people
of the data set's query and gallery one crop at each of two cameras: agreement is the share of people whose attribute is
on the same side of 0.5 at both, chance the same of different people. Nothing says here which of the two is right.
"""

import argparse
import time

import numpy as np

from benchmarks.home import home
from reid_core.attributes import NAMES, OPENABLE, PersonAttributes, open_attributes
from reid_core.catalog import find_model, keep_files, obtain
from reid_core.datasets import Dataset, open_dataset
from schemas.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files")
    parser.add_argument("dataset")
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    [name] = OPENABLE
    with home() as place:
        settings = Settings(home=place, threads=1, device="cpu")
        with obtain(settings, find_model(name), given.files, None, lambda *_: None) as obtained:
            keep_files(settings.attributes_dir / name, obtained.files)
        recognizer = open_attributes(settings)
        pairs = pairs_of(open_dataset(given.dataset), given.people, given.seed)
        pictures = [picture for pair in pairs for picture in pair]
        recognizer.recognize(pictures[:8])
        begun = time.perf_counter()
        found = recognizer.recognize(pictures)
        seconds = time.perf_counter() - begun
    print(f"{name}: {1000 * seconds / len(pictures):.1f} ms a crop on one thread, {len(pictures)} crops")
    report(found[::2], found[1::2])


def pairs_of(dataset: Dataset, people: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each person a crop at each of two cameras, uint8 RGB."""
    rng = np.random.default_rng(seed)
    by_person: dict[int, dict[int, list[int]]] = {}
    samples = [*dataset.query, *dataset.gallery]
    for number, sample in enumerate(samples):
        if sample.identity != dataset.distractor:
            by_person.setdefault(sample.identity, {}).setdefault(sample.camera, []).append(number)
    crossing = sorted(person for person, cameras in by_person.items() if len(cameras) > 1)
    chosen = rng.permutation(crossing)[:people]
    found = []
    for person in chosen.tolist():
        cameras = by_person[person]
        two = rng.permutation(sorted(cameras))[:2].tolist()
        left, right = (samples[int(rng.choice(cameras[camera]))].read() for camera in two)
        found.append((left, right))
    return found


def report(left: list[PersonAttributes], right: list[PersonAttributes]) -> None:
    others = np.roll(np.arange(len(left)), 1)
    print(f"{'':>16} {'agree':>6} {'chance':>7} {'share':>6}")
    for name in NAMES:
        one, two = (np.array([each.probabilities[name] > 0.5 for each in side]) for side in (left, right))
        share = np.mean([*one, *two])
        print(f"{name:>16} {np.mean(one == two):>6.2f} {share**2 + (1 - share) ** 2:>7.2f} {share:>6.2f}")
    for name in ("top", "bottom"):
        one, two = (np.array([getattr(each, name) for each in side]) for side in (left, right))
        print(f"{name + ' color':>16} {np.mean(one == two):>6.2f} {np.mean(one == two[others]):>7.2f}")


if __name__ == "__main__":
    main()
