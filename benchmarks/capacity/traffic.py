"""What so many cameras bring, by the assumptions of a load."""

from dataclasses import dataclass

from benchmarks.capacity.figures import Load

HOUR_S, DAY_S = 3_600.0, 86_400.0


@dataclass(frozen=True)
class Traffic:
    """`..._s`: a second of the busiest hour."""

    cameras: int
    full_districts: int
    rest: int  # cameras of the district that is not full
    largest: int  # cameras of the largest district
    looks_s: float
    passages_s: float
    passages_day: float
    passages_kept: float
    crops_per_passage: float
    searches_s: float
    windows_s: float  # windows of districts

    @classmethod
    def of(cls, load: Load, cameras: int) -> "Traffic":
        full, rest = divmod(cameras, load.cameras_per_district)
        busiest, day = load.busiest_hour_share / HOUR_S, cameras * load.passages_per_camera_day
        return cls(
            cameras=cameras,
            full_districts=full,
            rest=rest,
            largest=load.cameras_per_district if full else rest,
            looks_s=cameras * load.looks_per_s,
            passages_s=day * busiest,
            passages_day=day,
            passages_kept=day * load.retention_h / 24,
            crops_per_passage=load.crops_per_passage,
            searches_s=cameras * load.searches_per_camera_day * busiest,
            windows_s=(full + bool(rest)) / load.window_s,
        )

    @property
    def crops_s(self) -> float:
        return self.passages_s * self.crops_per_passage

    @property
    def crops_day(self) -> float:
        return self.passages_day * self.crops_per_passage

    @property
    def crops_kept(self) -> float:
        return self.passages_kept * self.crops_per_passage
