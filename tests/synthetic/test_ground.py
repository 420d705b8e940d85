import itertools
import math

import numpy as np
import pytest

from synthetic.ground import FASTEST_M_S, SEEN_WITHIN_M, SLOWEST_M_S, draw_journeys, lay_out


@pytest.mark.parametrize("cameras", [2, 8, 40])
def test_people_walk_at_one_speed_or_stand(cameras: int) -> None:
    plan = lay_out(np.random.default_rng(1), cameras)
    for seed in range(30):
        journeys = draw_journeys(np.random.default_rng(seed), plan, 1500)
        for before, after in itertools.pairwise(journeys):
            assert after.times[0] > before.times[-1]
        for journey in journeys:
            steps = zip(itertools.pairwise(journey.times), itertools.pairwise(journey.points), strict=True)
            for (start, end), (here, there) in steps:
                assert end > start
                speed = math.dist(here, there) / (end - start)
                assert speed == 0 or SLOWEST_M_S - 1e-9 <= speed <= FASTEST_M_S + 1e-9


@pytest.mark.parametrize("cameras", [2, 8, 40, 64])
def test_views_overlap_only_where_the_city_file_says_so(cameras: int) -> None:
    plan = lay_out(np.random.default_rng(cameras), cameras)
    overlaps = {unit.code: unit.overlaps for unit in plan.city.cameras()}
    for one, other in itertools.combinations(plan.spots(), 2):
        assert (math.dist(one.at, other.at) < 2 * SEEN_WITHIN_M) == (other.code in overlaps[one.code])
