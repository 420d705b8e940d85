"""The choice of a form, with a clock that the test sets."""

from collections.abc import Callable, Sequence

import pytest

from reid_core.speed import trial
from reid_core.speed.trial import MARGIN, fastest_first, speeds


class Clock:
    """Forms that take the seconds they are told to, one number a call, the last for all further ones."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def form(self, name: str, seconds: Sequence[float]) -> Callable[[], object]:
        left = list(seconds)

        def compute() -> object:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return None

        return compute


def measured(**seconds: Sequence[float]) -> tuple[dict[str, float], Clock]:
    clock = Clock()
    return speeds({name: clock.form(name, took) for name, took in seconds.items()}, clock), clock


@pytest.mark.parametrize(
    ("plain", "other", "chosen"),
    [
        ([0.1], [0.05], "other"),
        ([0.1], [0.1 / MARGIN + 0.001], "plain"),  # faster, but by less than a trial errs
        ([0.1], [0.2], "plain"),
        ([0.1], [5.0, 0.05], "other"),  # the first call compiles or loads
        ([0.1], [0.05, 0.05, 0.9, 0.05, 0.05], "other"),  # one disturbed round
        ([0.1, 0.1, 0.9, 0.1], [0.1], "plain"),
        ([0.1, 0.1, 0.2, 0.4, 0.8], [0.05, 0.05, 0.1, 0.2, 0.4], "other"),  # the machine becomes slower
    ],
)
def test_the_faster_form_is_taken_in_spite_of_noise(
    plain: Sequence[float], other: Sequence[float], chosen: str
) -> None:
    found, _ = measured(plain=plain, other=other)
    assert found["plain"] == 1
    assert fastest_first(found, "plain")[0] == chosen


def test_the_fastest_of_several_comes_first_and_the_usual_one_last() -> None:
    found, _ = measured(usual=[0.4], slower=[0.8], faster=[0.2], fastest=[0.1], equal=[0.4])
    assert fastest_first(found, "usual") == ["fastest", "faster", "usual"]
    assert fastest_first(found, "fastest") == ["fastest"]


def test_forms_take_turns_backwards_every_other_round_and_end_within_a_second() -> None:
    _, clock = measured(a=[0.01], b=[0.01])
    assert clock.calls[:8] == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert len(clock.calls) == 2 * (1 + trial.MOST_ROUNDS)
    _, clock = measured(a=[1.0], b=[1.0])
    assert len(clock.calls) == 2 * (1 + trial.FEWEST_ROUNDS)


def test_a_single_form_is_not_measured() -> None:
    found, clock = measured(only=[1.0])
    assert found == {"only": 1} and clock.calls == []
