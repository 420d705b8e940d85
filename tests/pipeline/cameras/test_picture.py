import numpy as np

from pipeline.cameras.worker import FROZEN_AFTER_S, Picture
from tests.helpers.video_files import walk


def test_a_picture_that_does_not_change_at_all_is_frozen() -> None:
    picture, frame = Picture(), walk(1)[0]
    assert [picture.look(frame, at)[0] for at in (0.0, FROZEN_AFTER_S - 1, FROZEN_AFTER_S)] == [False, False, True]
    noisy = frame.copy()
    noisy[100:200, 100:200] += 1  # a change that nobody sees
    assert picture.look(noisy, FROZEN_AFTER_S + 1) == (False, False)


def test_a_black_picture_is_black_though_it_has_noise() -> None:
    noise = np.random.default_rng(1).integers(10, 22, (240, 320, 3), dtype=np.uint8)
    assert Picture().look(noise, 0.0)[1]
    dim = np.full((240, 320, 3), 12, np.uint8)
    dim[200:, :100] = 90  # a lamp at night
    assert not Picture().look(dim, 0.0)[1]
    assert Picture().look(None, 0.0) == (False, False)
