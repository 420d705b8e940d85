"""How fast answers in the order of the queue mend a city, beside answers in other orders.

    python -m benchmarks.review_order [--seeds 11,12] [--cameras 40] [--hours 4] [--rounds 8] [--answers 20]

Each seed is a simulated city in a home of its own. In each round of an order somebody who knows the truth answers so
many of the pairs that wait, the first ones by that order, and the city is resolved: `queue`, `random`, and `uncertain`,
nearest to even odds first. Prints the district's pairwise F1 after each round, and what it gained in their mean: where
an order has answered all that waits, every other one gets as far, later. Between orders all answers are undone, and the
city has the decisions that it had.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Sequence

from sqlalchemy import text

from benchmarks.cities import fill, seeds_of, simulated
from benchmarks.home import home
from pipeline.accuracy.labeled import labeled_tracklets
from pipeline.accuracy.scorecard import agreement_by_level
from pipeline.city.decision_digest import decision_digest
from pipeline.registry import ModelRow
from pipeline.resolve import resolve_unit, units_within
from pipeline.review.answers import answer, undo
from pipeline.review.queue import Item, read_queue
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.errors import InputError
from schemas.levels import Level
from schemas.review import Said
from schemas.settings import Settings

_WHO = "truth"
_PROBABILITY = text("SELECT id, probability FROM match_decision WHERE verdict = 'review'")

#: Sorts what waits; a fresh one for each order and city.
Order = Callable[[Store, Sequence[Item]], list[Item]]


def _queue(_: Store, items: Sequence[Item]) -> list[Item]:
    return list(items)


def _random(seed: int) -> Order:
    draw = random.Random(seed)  # nosec B311
    return lambda _, items: draw.sample(items, len(items))


def _uncertain(store: Store, items: Sequence[Item]) -> list[Item]:
    with store.begin() as connection:
        sure = {row.id: abs(row.probability - 0.5) for row in connection.execute(_PROBABILITY)}
    return sorted(items, key=lambda item: (sure[int(item.ref[1:])], item.ref))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="11,12")
    parser.add_argument("--cameras", type=int, default=40)
    parser.add_argument("--hours", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--answers", type=int, default=20, help="in each round")
    arguments = parser.parse_args()
    gains: dict[str, list[float]] = {}
    for seed in seeds_of(arguments.seeds):
        with home() as path, Store.open(Settings(home=path, database_url=None), "benchmark") as store:
            city = City(store, fill(store, simulated(arguments.cameras, arguments.hours, seed)))
            city.resolve()
            orders = {"queue": _queue, "random": _random(seed), "uncertain": _uncertain}
            for name, order in orders.items():
                curve, told = city.reviewed(order, arguments.rounds, arguments.answers)
                gains.setdefault(name, []).append(statistics.mean(curve[1:]) - curve[0])
                shown = " ".join(f"{value:.4f}" for value in curve)
                print(f"seed {seed} {name:10} {told:4} answers  F1 {shown}", flush=True)
    for name, values in gains.items():
        print(f"{name:10} F1 +{statistics.mean(values):.4f} in the mean of the rounds", flush=True)


class City:
    """A city, and whoever knows who everybody is."""

    def __init__(self, store: Store, model: ModelRow) -> None:
        self.store, self.model = store, model
        self.core: ReIDCore = open_core(store.settings, model.directory(store.settings))

    def resolve(self) -> None:
        settings = self.store.settings.association
        for code in units_within(self.store, "d1"):
            resolve_unit(self.store, self.core, self.model, code, settings=settings)

    def f1(self) -> float:
        labeled = labeled_tracklets(self.store, "d1", self.model.id)
        return agreement_by_level(labeled, {})[Level.DISTRICT.value]["pairwise_f1"]

    def reviewed(self, order: Order, rounds: int, answers: int) -> tuple[list[float], int]:
        """F1 before and after each round, and how many answers were taken. All are undone at the end."""
        labeled = labeled_tracklets(self.store, "d1", self.model.id)
        truth = dict(zip(labeled.key, labeled.truth.tolist(), strict=True))
        before = self._digest()
        curve, given = [self.f1()], []
        for _ in range(rounds):
            with self.store.signed_in() as connection:
                items = read_queue(connection, "d1", _WHO, most=1_000_000).items
            for item in order(self.store, items)[:answers]:
                a, b = item.left.passage.key, item.right.passage.key
                said = Said.SAME if truth[a] == truth[b] else Said.DIFFERENT
                try:
                    told = answer(self.store, a.hex(), b.hex(), said, reviewer=_WHO, reason="known", way=item.way)
                except InputError:  # the truth against what clocks of cameras say
                    continue
                given.append(told.id)
            self.resolve()
            curve.append(self.f1())
        for one in given:
            undo(self.store, str(one), reviewer=_WHO, reason="the next order")
        self.resolve()
        if self._digest() != before:
            raise AssertionError("answers that are undone have left something")
        return curve, len(given)

    def _digest(self) -> str:
        with self.store.begin() as connection:
            return decision_digest(connection)


if __name__ == "__main__":
    main()
