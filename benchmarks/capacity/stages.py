"""What each stage costs for one look, crop, passage, window or search, from the measured figures.

Seconds are those of a processor. A resolve's windows grow with the district's cameras as those of cities of several
sizes did; what a district's history adds grows with the identities that it keeps.
"""

from dataclasses import dataclass
from functools import cached_property
from statistics import median

from benchmarks.capacity.estimate import Growth, Line, Plane, Range
from benchmarks.capacity.figures import LEVELS, Load, Measured


@dataclass(frozen=True)
class Stages:
    """Raises ValueError where too few sizes were measured for a fit."""

    measured: Measured

    @cached_property
    def decoding(self) -> Range:
        """A frame of a stream."""
        return Range.of([one.decoding_s / one.frames_per_s for one in self.measured.streams])

    @cached_property
    def detection(self) -> Range:
        """A look."""
        return Range.of([one.detection_s for one in self.measured.streams])

    @cached_property
    def _following(self) -> Plane:
        rows, rest = [], []
        for one in self.measured.streams:
            for looks, crops, cores in zip(one.looks_per_s, one.crops_per_s, one.rest_cores(), strict=True):
                rows.append((1.0, looks, crops))
                rest.append(cores)
        return Plane.through(rows, rest)

    def following(self, seconds: float, looks: float, crops: float) -> Range:
        """Seconds of a camera, with so many looks and crops in all: receiving, following, cutting, encrypting, sending,
        writing.
        """
        return self._following.at((seconds, looks, crops)).floored()

    def embedding(self, engine: str) -> Range:
        """A crop, by an engine or, for "streams", by the model of the streams."""
        if engine == "streams":
            return Range.of([one.embedding_s for one in self.measured.streams])
        return Range.of(self.measured.embedding[engine])

    @cached_property
    def windows(self) -> dict[str, Growth]:
        """A window, by level and by cameras of its district."""
        cities = sorted(self.measured.cities, key=lambda city: city.cameras)
        sizes = [float(city.cameras) for city in cities]
        return {level: Growth.through(sizes, [c.live_s[level] / c.windows for c in cities]) for level in LEVELS}

    @cached_property
    def fixed_share(self) -> float:
        """Of a window's cost at the measured load: what opening its units costs, whoever passed; 0..1."""
        largest = max(self.measured.cities, key=lambda city: city.cameras)
        passing = sum(largest.bulk_s.values()) / largest.bulk_passages * largest.live_passages
        return min(max(1 - passing / sum(largest.live_s.values()), 0.0), 1.0)

    @cached_property
    def passages(self) -> float:
        """Of a camera in a window, in the cities that were resolved."""
        cities = self.measured.cities
        return sum(city.live_passages for city in cities) / sum(city.cameras * city.windows for city in cities)

    @cached_property
    def history(self) -> Range:
        """A window of a district, for each identity that the district keeps."""
        day = self.measured.day
        early, more = median(day.early_window_s), day.late_known - day.early_known
        return Range.of([max(late - early, 0.0) / more for late in day.late_window_s])

    def window(self, load: Load, cameras: float) -> dict[str, Range]:
        """A window of a district of so many cameras in the busiest hour, by level."""
        passages = load.passages_per_camera_day * load.busiest_hour_share * load.window_s / 3_600
        busier = self.fixed_share + (1 - self.fixed_share) * passages / self.passages
        found = {level: self.windows[level].at(cameras) * busier for level in LEVELS}
        kept = cameras * load.passages_per_camera_day * load.retention_h / 24
        found["district"] += self.history * (kept * self.identities)
        return found

    @cached_property
    def _closing(self) -> Line:
        cities = self.measured.cities
        return Line.through([city.cameras for city in cities], [city.look_s for city in cities])

    def closing(self, cameras: float) -> Range:
        """A look of the resolver after windows that have closed, in a city of so many cameras."""
        return self._closing.at(cameras).floored()

    @property
    def identities(self) -> float:
        """Of a district for each passage; at most, as whoever comes back on another day is known already."""
        return self.measured.day.identities / self.measured.day.passages

    @property
    def prototypes(self) -> float:
        """Of a district for each passage; at most."""
        return self.measured.day.prototypes / self.measured.day.passages

    @cached_property
    def _search(self) -> Line:
        found = self.measured.searches
        return Line.through([float(count) for count in found.prototypes], found.processor_s)

    def search(self, prototypes: float) -> Range:
        """A search among so many prototypes."""
        return self._search.at(prototypes).floored()

    def per_city(self, top: str, bottom: str) -> Range:
        """The ratio of two figures over the cities."""
        return Range.of([getattr(city, top) / getattr(city, bottom) for city in self.measured.cities])

    @property
    def backup_s_per_byte(self) -> float:
        """By the clock, for a byte of the database."""
        return self.measured.day.backup_s / self.measured.day.database_bytes
