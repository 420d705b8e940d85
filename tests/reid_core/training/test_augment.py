import numpy as np
import pytest
import torch

from reid_core.preprocessing import normalized
from reid_core.training.augment import augment, erasing_mask, flip_and_crop
from schemas.cards import InputConvention

SMALL = InputConvention(height=64, width=32)


@pytest.fixture
def pictures() -> torch.Tensor:
    """Values from 1 to 255, so that 0 is padding."""
    return torch.randint(1, 256, (40, 64, 32, 3), dtype=torch.uint8, generator=seeded(9))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_crop_is_a_window_of_its_padded_picture(pictures: torch.Tensor) -> None:
    moved = flip_and_crop(pictures, seeded(0)).numpy()
    pad = 2  # 10 at a height of 256 is 2.5 at 64
    padded = np.pad(pictures.numpy(), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    found = set()
    for picture, source in zip(moved, padded, strict=True):
        windows = {
            (flipped, top, left)
            for flipped, whole in enumerate((source, source[:, ::-1]))
            for top in range(2 * pad + 1)
            for left in range(2 * pad + 1)
            if np.array_equal(whole[top : top + 64, left : left + 32], picture)
        }
        assert len(windows) == 1
        found |= windows
    assert len(found) > 20  # drawn for each picture


def test_half_of_the_pictures_are_flipped() -> None:
    ramp = torch.arange(1, 33, dtype=torch.uint8).view(1, 1, 32, 1).expand(2000, 64, 32, 3)
    moved = flip_and_crop(ramp, seeded(1)).int()
    flipped = moved[:, 32, 10, 0] > moved[:, 32, 20, 0]
    assert 0.45 < flipped.float().mean() < 0.55


def test_erased_rectangles_are_within_bounds() -> None:
    mask = erasing_mask(3000, 64, 32, seeded(2))
    erased = mask[mask.any(2).any(1)]
    assert 0.46 < len(erased) / 3000 < 0.54
    tall, wide = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(tall * wide, erased.sum((1, 2)))  # a full rectangle
    area = tall * wide / (64 * 32)
    assert area.min() > 0.02 * 0.8 and area.max() < 0.4 * 1.05  # sides are rounded to pixels
    aspect = tall / wide
    assert aspect.min() > 0.3 * 0.8 and aspect.max() < 3.33 * 1.2
    assert (tall < 64).all() and (wide < 32).all()


def test_unerased_parts_equal_the_input_of_evaluation(pictures: torch.Tensor) -> None:
    images = augment(pictures, SMALL, seeded(3))
    assert images.shape == (40, 3, 64, 32) and images.is_contiguous(memory_format=torch.channels_last)
    plain = normalized(flip_and_crop(pictures, seeded(3)), SMALL)
    erased = (images != plain).any(1)
    assert torch.equal(images[~erased[:, None].expand_as(images)], plain[~erased[:, None].expand_as(images)])
    assert (images[erased[:, None].expand_as(images)] == 0).all()
    assert 0 < erased.any(2).any(1).sum() < 40


def test_only_the_generator_decides(pictures: torch.Tensor) -> None:
    first = augment(pictures, SMALL, seeded(4))
    torch.manual_seed(1)
    assert torch.equal(first, augment(pictures, SMALL, seeded(4)))
    assert not torch.equal(first, augment(pictures, SMALL, seeded(5)))
