"""Features and quality of the crops of a block of people."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from schemas.arrays import Floats, Ints, Singles
from synthetic.embedding_city.features import DIMS, draw_person, kinds, retail_0277
from synthetic.embedding_city.settings import EmbeddingCitySettings
from synthetic.seeds import generator

#: Share of the variance between people that look-alikes, or people in one uniform, have in common.
LOOK_ALIKE, UNIFORM = 0.8, 0.6
#: People in a group of look-alikes, and in a uniform.
_LOOK_ALIKES, _IN_UNIFORM = 3, 8
#: Number of strangers who occlude others.
_STRANGERS = 64
_USUAL_QUALITY, _MIN_QUALITY = 0.75, 0.06


def person_vector(settings: EmbeddingCitySettings, districts: int, person: int, rng: np.random.Generator) -> Singles:
    """(D,) The vector of a person, with variance 1 along each axis."""
    own, draws = draw_person(rng, kinds(settings.seed)), rng.random(2)
    trio = generator(settings.seed, "embedding city", 5, person // _LOOK_ALIKES)
    if trio.random() < settings.look_alike_share:
        return _mixed(draw_person(trio, kinds(settings.seed)), own, LOOK_ALIKE)
    if draws[0] < settings.uniform_share:
        groups = max(1, round(settings.uniform_share * settings.population / districts / _IN_UNIFORM))
        numbers = (person * districts // settings.population, int(draws[1] * groups))
        uniform = generator(settings.seed, "embedding city", 6, *numbers).standard_normal(DIMS, np.float32)
        return _mixed(uniform, own, UNIFORM)
    return own


def _mixed(shared: Singles, own: Singles, share: float) -> Singles:
    mixed: Singles = np.float32(share**0.5) * shared + np.float32((1 - share) ** 0.5) * own
    return mixed


@dataclass(frozen=True)
class Tracklets:
    """n tracklets of a block of people, sorted by person."""

    people: range
    person: Ints  # (n,)
    camera: Ints  # (n,)
    crops: Ints  # (n,) number of crops
    hidden: Floats  # (n,) hidden part of the person, 0..1
    draw: Floats  # (n,) uniform, chooses the stranger in front


def embed(settings: EmbeddingCitySettings, districts: int, tracklets: Tracklets) -> tuple[Singles, Singles]:
    """Raw features (m, D) and quality (m,) of the m crops of all tracklets."""
    model, people = retail_0277(), tracklets.people
    total = int(tracklets.crops.sum())
    axes, noise = np.empty((total, DIMS), np.float32), np.empty(total, np.float32)
    edge = np.searchsorted(tracklets.person, np.arange(people.start, people.stop + 1))
    begin = np.concatenate([[0], np.cumsum(tracklets.crops)])
    for i, person in enumerate(people):
        rng = generator(settings.seed, "embedding city", 3, person)
        own = person_vector(settings, districts, person, rng)
        of_person, rows = slice(edge[i], edge[i + 1]), slice(begin[edge[i]], begin[edge[i + 1]])
        cameras, view = np.unique(tracklets.camera[of_person], return_inverse=True)
        axes[rows], noise[rows] = model.draw(rng, own, len(cameras), view, tracklets.crops[of_person])
    hidden = np.repeat(tracklets.hidden, tracklets.crops).astype(np.float32)
    occluded = np.flatnonzero(hidden)
    if len(occluded):
        strangers = _strangers(settings.seed) * model.person
        stranger = np.repeat(np.floor(tracklets.draw * _STRANGERS).astype(np.int64), tracklets.crops)[occluded]
        part = hidden[occluded, None]
        axes[occluded] = (1 - part) * axes[occluded] + part * strangers[stranger]
    cameras, camera = np.unique(np.repeat(tracklets.camera, tracklets.crops), return_inverse=True)
    shifts = np.array([_shift(settings.seed, int(number)) for number in cameras], np.float32).reshape(-1, DIMS)
    axes += (shifts * (np.float32(settings.color_bias) * model.camera))[camera]
    quality = (_USUAL_QUALITY / np.sqrt(noise) * (1 - 0.9 * hidden)).clip(_MIN_QUALITY, 1.0)
    return model.features(axes), quality


@cache
def _strangers(seed: int) -> Singles:
    return generator(seed, "embedding city", 7).standard_normal((_STRANGERS, DIMS), np.float32)


def camera_shift(settings: EmbeddingCitySettings, camera: int) -> Singles:
    """(D,) What the camera of this number adds to every raw feature."""
    model = retail_0277()
    along_axes = _shift(settings.seed, camera) * np.float32(settings.color_bias) * model.camera
    return np.asarray(along_axes @ model.rotation, np.float32)


def _shift(seed: int, camera: int) -> Singles:
    """(D,) A camera's color bias, with variance 1 along each axis."""
    return generator(seed, "embedding city", 8, camera).standard_normal(DIMS, np.float32)
