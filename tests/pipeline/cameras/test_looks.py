"""How often the machine looked, of the times it was asked to."""

from pipeline.cameras.outages import Outages
from pipeline.cameras.running import Running
from pipeline.cameras.worker import Report
from schemas.feeds import Feed


def running_after(*reports: tuple[float, Report]) -> Running:
    camera = "d1/s1/b1/c1"
    running = Running(Feed(camera=camera, address="/videos/a.mp4"), None, Outages(camera))
    for now_s, running.report in reports:
        running.count(now_s)
    return running


def test_looks_are_counted_over_half_a_minute_and_more() -> None:
    first, last = Report("up", looks=100, missed=10), Report("up", looks=160, missed=50)
    assert running_after((0, first), (40, last)).looks_and_missed() == (60, 40)
    assert running_after((0, first), (20, last)).looks_and_missed() == (0, 0)


def test_a_file_that_is_taken_in_makes_no_looks_any_more() -> None:
    first, last = Report("up", looks=100), Report("up", looks=400)
    assert running_after((0, first), (40, last), (42, Report("ended"))).looks_and_missed() == (0, 0)
