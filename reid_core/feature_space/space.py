"""A feature space: what it computes, and its two files."""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from reid_core.tensors import MAX_TEXT_BYTES, read_arrays, sha256_of
from schemas.arrays import Floats, Ints
from schemas.cards import MAX_DIMS
from schemas.disk import write_whole
from schemas.errors import ModelFileError, VectorError
from schemas.settings import Frozen
from schemas.text import Text

#: The files of a feature space in its folder.
DESCRIPTION, ARRAYS = "feature_space.json", "feature_space.safetensors"

#: Rows that are computed at a time.
_BLOCK = 4096
#: Centered features are rounded to this step, as fine as float32's, and a basis to one of its own. Then each
#: product and sum of `apply` is a whole number below 2**53 of steps: exact, so that no order of summation, number of
#: rows, thread or processor changes a bit.
_STEP = 2.0**-24


class _Description(Frozen):
    """What `feature_space.json` holds."""

    format: int = Field(ge=1, le=2, description="2: a basis that keeps lengths; 1: all others")
    dims: int = Field(ge=1, le=MAX_DIMS, description="width of a raw feature")
    dims_out: int = Field(ge=1, le=MAX_DIMS, description="width of a feature in the space")
    recentered: bool = Field(default=False, description="whether the mean of '' and the raw length are put back")
    units: tuple[Text, ...] = Field(description="codes with a mean, in the order of the rows of `means`; '' is all")
    sha256: str = Field(description="of feature_space.safetensors")

    @model_validator(mode="after")
    def _has_root(self) -> Self:
        if "" not in self.units or len(set(self.units)) != len(self.units):
            raise ValueError("units: each code once, and '' among them")
        return self


@dataclass(frozen=True, eq=False)
class Basis:
    """Directions in which features are compared. Made by `learn_basis`.

    matrix: float64 (D, D'): features of length 1 around their camera's mean, rows, are multiplied by it.
    length_kept: how long the product is counts, against a constant channel of 1 beside it. So a feature of which little
    tells people apart stays near everyone's. In spaces of format 1 it does not count.
    """

    matrix: Floats
    length_kept: bool = True

    def __post_init__(self) -> None:
        assert self.matrix.dtype == np.float64 and self.matrix.ndim == 2
        assert np.isfinite(self.matrix).all() and self.matrix.any()

    @property
    def dims_out(self) -> int:
        """Width of a feature in the basis."""
        return int(self.matrix.shape[1]) + self.length_kept

    def apply(self, centered: Floats) -> Floats:
        """(n, dims_out), of any scale, of features (n, D) around their cameras' means: exact, whatever the order."""
        if not self.length_kept:
            return np.rint(centered / _STEP) @ self._whole
        found = np.full((len(centered), self.dims_out), 1 / (_STEP * self._step))
        found[:, :-1] = np.rint(centered / _STEP) @ self._whole
        return found

    @cached_property
    def _whole(self) -> Floats:
        """The matrix as whole numbers of its step; the scale cancels when rows are normalized."""
        return np.rint(self.matrix / self._step)

    @cached_property
    def _step(self) -> float:
        """A power of two: small enough for the matrix's precision, large enough for exact sums.

        A centered row is at most 2 long, so its whole numbers add up to at most 2**25 sqrt(D) and, with their rounding,
        D / 2 more.
        """
        longest = 2.0**25 * np.sqrt(len(self.matrix)) + len(self.matrix)
        return float(2.0 ** np.ceil(np.log2(np.abs(self.matrix).max() * longest / (2.0**53 - 1))))


@dataclass(frozen=True, eq=False)
class FeatureSpace:
    """Means of cameras and, or not, a basis. Made by `learn_means`, read by `FeatureSpace.open`.

    units: codes with a mean of their own, such as "d1/s1/b1/c1" or "3"; "" is the mean of everything.
    means: float64 (U, D), in the order of `units`: means of L2-normalized features.
    basis: of D rows, or None: features stay as they are.
    recentered: the mean of everything and each feature's length are put back: only what sets a camera apart goes, and a
    diff attention module that was trained on raw features still fits. Not with a basis.
    """

    units: tuple[str, ...]
    means: Floats
    basis: Basis | None = None
    recentered: bool = False

    def __post_init__(self) -> None:
        assert self.means.dtype == np.float64 and self.means.ndim == 2 and len(self.means) == len(self.units)
        assert "" in self.units and np.isfinite(self.means).all()
        if self.basis is not None:
            assert len(self.basis.matrix) == self.dims and not self.recentered

    @property
    def dims(self) -> int:
        """D, width of a raw feature."""
        return int(self.means.shape[1])

    @property
    def dims_out(self) -> int:
        """D', width of a feature in the space."""
        return self.dims if self.basis is None else self.basis.dims_out

    def apply(self, features: NDArray[np.floating], cameras: Sequence[str]) -> Floats:
        """Features in the space, float64 (n, D'), of raw features (n, D) and the codes of their n cameras.

        Each feature is L2-normalized, its camera's mean is taken off, and what is left is L2-normalized. A basis then
        multiplies it, a 1 is put beside it, and all is L2-normalized; a basis that keeps no length multiplies what is
        left before its only normalization. A recentered space puts the mean of "" and the length back instead. A
        camera without a mean takes that of its longest prefix that has one, at last that of "". A row does not depend
        on the others: bit for bit the same alone and among others, on any number of threads.

        Raises VectorError for features of another width, NaN, rows of zeros, and rows equal to their camera's mean.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.dims:
            raise VectorError(f"features of shape {features.shape}, but the feature space takes {self.dims} dims")
        assert len(cameras) == len(features)
        means = self._rows_of(cameras)
        found = np.empty((len(features), self.dims_out))
        for start in range(0, len(features), _BLOCK):
            part = slice(start, start + _BLOCK)
            raw = features[part].astype(np.float64)
            lengths = np.sqrt(np.square(raw).sum(axis=1, keepdims=True))
            centered = unit_rows(raw, start, "is zero, NaN or infinite")
            centered -= self.means[means[part]]
            if self.recentered:
                found[part] = (centered + self.means[self.units.index("")]) * lengths
                continue
            no_direction = "is its camera's mean, and has no direction from it"
            if self.basis is None or self.basis.length_kept:
                unit_rows(centered, start, no_direction)
            found[part] = centered if self.basis is None else unit_rows(self.basis.apply(centered), start, no_direction)
        return found

    def save(self, folder: Path) -> dict[str, str]:
        """Writes the space's two files into `folder`; returns the hex SHA-256 of each by its name, as cards have it."""
        from safetensors.numpy import save

        arrays = {"means": self.means} | ({} if self.basis is None else {"basis": self.basis.matrix})
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ARRAYS, save(arrays))
        described = _Description(
            format=1 + self._keeps_length,
            dims=self.dims,
            dims_out=self.dims_out,
            recentered=self.recentered,
            units=self.units,
            sha256=sha256_of(folder / ARRAYS),
        )
        write_whole(folder / DESCRIPTION, described.model_dump_json(indent=2) + "\n")
        return {name: sha256_of(folder / name) for name in (ARRAYS, DESCRIPTION)}

    @classmethod
    def open(cls, folder: Path) -> "FeatureSpace":
        """The space in `folder`. Raises ModelFileError for files that are missing, changed, or no feature space."""
        path = folder / DESCRIPTION
        try:
            if path.stat().st_size > MAX_TEXT_BYTES:
                raise ModelFileError(f"{path}: larger than {MAX_TEXT_BYTES} bytes; not a feature space")
            described = _Description.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ModelFileError(f"{path}: not a feature space: {where}: {first['msg']}") from None
        except OSError as error:
            raise ModelFileError(
                f"{path}: cannot be read ({error.strerror}); a feature space's folder holds {DESCRIPTION} and {ARRAYS}"
            ) from None
        if sha256_of(folder / ARRAYS) != described.sha256:
            raise ModelFileError(
                f"{folder / ARRAYS}: its SHA-256 is not the one in {DESCRIPTION}; get both from their source again"
            )
        arrays = read_arrays(folder / ARRAYS)
        length_kept = described.format > 1
        wanted = {
            "means": (len(described.units), described.dims),
            "basis": (described.dims, described.dims_out - length_kept),
        }
        for name, array in arrays.items():
            if name not in wanted or array.shape != wanted[name] or array.dtype != np.float64:
                raise ModelFileError(f"{folder / ARRAYS}: {name[:80]!r} does not fit what {DESCRIPTION} describes")
            if not np.isfinite(array).all():
                raise ModelFileError(f"{folder / ARRAYS}: {name} holds values that are not finite")
        if described.recentered and "basis" in arrays:
            raise ModelFileError(f"{path}: is recentered and has a basis, which do not go together")
        needed = {"means", "basis"} if length_kept or described.dims != described.dims_out else {"means"}
        if not needed <= arrays.keys():
            raise ModelFileError(f"{folder / ARRAYS}: lacks an array that {DESCRIPTION} describes")
        basis = Basis(arrays["basis"], length_kept) if "basis" in arrays else None
        return cls(described.units, arrays["means"], basis, described.recentered)

    def described(self) -> dict[str, Any]:
        """What a person wants to know of the space, as JSON."""
        return {"dims": self.dims, "dims_out": self.dims_out, "units": len(self.units), "basis": self.basis is not None}

    def unit_of(self, camera: str) -> str:
        """The unit whose mean a camera takes: itself, or its longest prefix that has one; "" is that of everything."""
        return _longest_prefix(camera, self.units)

    def _rows_of(self, cameras: Sequence[str]) -> Ints:
        """The row of `means` of each camera."""
        known = {code: row for row, code in enumerate(self.units)}
        codes, places = np.unique(np.asarray(cameras, str), return_inverse=True)
        return np.array([known[_longest_prefix(code, known)] for code in codes], np.int64)[places]

    @property
    def _keeps_length(self) -> bool:
        return self.basis is not None and self.basis.length_kept


def _longest_prefix(code: str, known: Container[str]) -> str:
    while code and code not in known:
        code = code.rpartition("/")[0]
    return code


def unit_rows(rows: Floats, start: int, fault: str) -> Floats:
    """`rows`, made 1 long in place. Raises VectorError, which names the first without a direction, from `start` on."""
    lengths = np.sqrt(np.square(rows).sum(axis=1))
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise VectorError(f"feature {start + bad[0]} {fault}")
    rows /= lengths[:, None]
    return rows
