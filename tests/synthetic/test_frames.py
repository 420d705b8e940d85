import numpy as np

from synthetic.frames import MOST_PEOPLE, labeled_frames


def test_frames_are_the_seed_s_and_their_people_lie_within() -> None:
    frames = list(labeled_frames(3, 6, 240, 320))
    again = list(labeled_frames(3, 6, 240, 320))
    assert any(len(found.boxes) for found in frames)
    for found, same in zip(frames, again, strict=True):
        assert found.frame.shape == (240, 320, 3) and np.array_equal(found.frame, same.frame)
        assert np.array_equal(found.boxes, same.boxes) and len(found.boxes) == len(found.visible) <= MOST_PEOPLE
        assert (found.visible >= 0).all() and (found.visible <= 1).all()
        left, top, width, height = found.boxes.T
        assert (left >= 0).all() and (top >= 0).all() and (left + width <= 320).all() and (top + height <= 240).all()
        assert (height > 1.5 * width).mean() > 0.8 if len(height) else True
    assert not np.array_equal(frames[0].frame, next(iter(labeled_frames(4, 1, 240, 320))).frame)


def test_who_stands_behind_is_covered() -> None:
    """Of two people at least one is whole, and a covered one has a larger one in front."""
    for found in labeled_frames(5, 10, 240, 320):
        if len(found.boxes):
            assert found.visible[-1] == 1.0  # the nearest is drawn last
