"""Augmentation of a batch of uint8 pictures, drawn for each picture (paper, 'Baselines').

Horizontal flip with probability 0.5; padding by 10 and random crop for inputs 256 high, in proportion for others;
normalization; random erasing with probability 0.5, area 0.02-0.4, aspect ratio 0.3-3.33 drawn evenly in its logarithm,
filled with the mean color (0 after normalization).
Notable: one gather and one mask per batch, no loop over pictures; only the generator decides.
"""

import torch
from torch import Tensor

from reid_core.preprocessing import normalized
from schemas.cards import InputConvention

FLIP = 0.5
PAD_OF_HEIGHT = 10 / 256
ERASE = 0.5
ERASE_AREA = (0.02, 0.4)
ERASE_ASPECT = (0.3, 3.33)  # height / width
#: Rectangles drawn per picture; the first that fits is erased. None fits about once in 10^12 pictures.
ERASE_TRIES = 16


def augment(
    pictures: Tensor,
    convention: InputConvention,
    generator: torch.Generator,
    *,
    crop: bool = True,
    erase: bool = True,
) -> Tensor:
    """Training input, float32 (N, 3, H, W) in channels_last, from prepared pictures, uint8 RGB (N, H, W, 3).

    Without `crop` and `erase` pictures are flipped alone.
    """
    assert pictures.dtype == torch.uint8 and pictures.ndim == 4 and pictures.shape[3] == 3
    images = normalized(flip_and_crop(pictures, generator, crop=crop), convention)
    if not erase:
        return images
    erased = erasing_mask(len(pictures), pictures.shape[1], pictures.shape[2], generator)
    return images.masked_fill_(erased[:, None].to(images.device), 0.0)


def flip_and_crop(pictures: Tensor, generator: torch.Generator, *, crop: bool = True) -> Tensor:
    """uint8 (N, H, W, 3): each picture flipped with probability 0.5, padded with black and cropped to its size.

    Without `crop` flipped alone.
    """
    count, height, width, _ = pictures.shape
    pad = round(height * PAD_OF_HEIGHT) if crop else 0
    padded = torch.nn.functional.pad(pictures, (0, 0, pad, pad, pad, pad))
    flipped = torch.rand(count, generator=generator) < FLIP
    top, left = torch.randint(0, 2 * pad + 1, (2, count), generator=generator)
    rows = top[:, None] + torch.arange(height)  # (N, H)
    columns = left[:, None] + torch.arange(width)  # (N, W)
    columns = torch.where(flipped[:, None], width + 2 * pad - 1 - columns, columns)
    device = pictures.device
    which = torch.arange(count, device=device)[:, None, None]
    cropped: Tensor = padded[which, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
    return cropped


def erasing_mask(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Boolean (N, H, W), true where a picture is erased."""
    draws = torch.rand(3, count, ERASE_TRIES, generator=generator)
    area = height * width * (ERASE_AREA[0] + draws[0] * (ERASE_AREA[1] - ERASE_AREA[0]))
    low, high = torch.tensor(ERASE_ASPECT).log()
    aspect = (low + draws[1] * (high - low)).exp()
    tall = (area * aspect).sqrt().round()  # (N, tries)
    wide = (area / aspect).sqrt().round()
    fits = (tall < height) & (wide < width)
    erased = fits.any(1) & (torch.rand(count, generator=generator) < ERASE)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide = tall.gather(1, first), wide.gather(1, first)  # (N, 1)
    corner = torch.rand(2, count, 1, generator=generator)
    top = (corner[0] * (height - tall + 1)).floor()
    left = (corner[1] * (width - wide + 1)).floor()
    y, x = torch.arange(height), torch.arange(width)
    rows = (y >= top) & (y < top + tall)  # (N, H)
    columns = (x >= left) & (x < left + wide)  # (N, W)
    mask: Tensor = erased[:, None, None] & rows[:, :, None] & columns[:, None, :]
    return mask
