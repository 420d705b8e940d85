"""Reads `cuhk-03.mat`, CUHK03 as its authors publish it: cells of pictures in a MATLAB 7.3 file, which is HDF5."""

from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from schemas.errors import InputError, PictureError
from schemas.settings import settings

Boxes = Literal["detected", "labeled"]  # as the files call them


class Release:
    """One open file. `detected` and `labeled` are cells of five camera pairs, each with a cell of people x 10 pictures.

    HDF5 stores MATLAB's arrays with reversed axes: references (10, people), and pictures (3, w, h).
    """

    def __init__(self, path: Path, boxes: Boxes) -> None:
        """Raises InputError if h5py is not installed or the file is not of this form."""
        try:
            import h5py
        except ImportError:
            raise InputError(f"{path}: reading it needs h5py: pip install 'urban-reid[cuhk03]'") from None
        self._name, self._lock = f"{path}, {boxes}", Lock()
        try:
            self._file: Any = h5py.File(path, "r")
            self._pairs = [self._file[pair] for pair in np.asarray(self._file[boxes]).ravel()]
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is not CUHK03's cuhk-03.mat: {str(error)[:120]}") from None

    def read(self, pair: int, person: int, number: int) -> NDArray[np.uint8]:
        """Picture `number` (1 to 10) of person `person` of a camera pair, all counted from 1; uint8 RGB (h, w, 3).

        Raises PictureError.
        """
        where = f"{self._name}{{{pair}}}{{{person}, {number}}}"
        try:
            with self._lock:
                stored = self._file[self._pairs[pair - 1][number - 1, person - 1]]
                if stored.size > 3 * settings().max_crop_pixels:
                    raise ValueError(f"{stored.shape} values are more than URBAN_REID_MAX_CROP_PIXELS allows")
                found = np.asarray(stored)
        except (OSError, IndexError, KeyError, TypeError, ValueError) as error:
            raise PictureError(f"{where}: cannot be read: {str(error)[:120]}") from None
        if found.ndim != 3 or len(found) != 3 or found.dtype != np.uint8:  # MATLAB's empty cell is [0, 0]
            raise PictureError(f"{where}: holds no picture")
        return np.ascontiguousarray(found.T)
