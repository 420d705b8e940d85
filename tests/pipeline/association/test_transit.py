import numpy as np

from pipeline.association.transit import EDGES_S, MOST, fit


def test_says_nothing_before_anything_was_joined() -> None:
    model = fit(2, [], horizon_s=900)
    np.testing.assert_allclose(
        model.log_odds(np.array([0, 1]), np.array([1, 1]), np.array([5.0, 700.0])), 0, atol=1e-12
    )


def test_usual_times_speak_for_and_unusual_ones_against() -> None:
    thirty = int(np.digitize(30.0, EDGES_S))
    model = fit(3, [(0, 1, thirty, 40)], horizon_s=900)
    pair = (np.array([0, 1, 0]), np.array([1, 0, 1]), np.array([30.0, 30.0, 600.0]))
    usual, back, unusual = model.log_odds(*pair)
    assert 0.5 < usual == back <= MOST
    assert -MOST <= unusual < -0.5


def test_a_new_route_leans_on_the_others() -> None:
    thirty = int(np.digitize(30.0, EDGES_S))
    model = fit(3, [(0, 1, thirty, 40)], horizon_s=900)
    known, new = model.log_odds(np.array([0, 1]), np.array([1, 2]), np.array([30.0, 30.0]))
    assert 0 < new <= known
