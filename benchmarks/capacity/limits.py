"""What breaks first as a city grows, and what one does then.

Each limit is that of one machine, one process or one server as the program is set up by default. A limit is reached at
the number of cameras from which what is needed exceeds what there is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from benchmarks.capacity.estimate import Range
from benchmarks.capacity.needs import Model, Needs

#: A district's window may take this share of its length: a run is followed by a pause as long as itself.
_DISTRICT_SHARE = 0.5
#: Share of a day that a backup may take.
_BACKUP_SHARE = 0.25
#: Share of a machine's memory in which searches keep prototypes, where no setting says otherwise.
_SEARCH_SHARE = 0.5
MOST_CAMERAS = 10_000_000


@dataclass(frozen=True)
class Limit:
    """needed, there: in `unit`."""

    what: str
    unit: str
    needed: Callable[[Model, Needs], Range]
    there: Callable[[Model], float]
    then: str


LIMITS = (
    Limit(
        "cores of one machine",
        "cores",
        lambda _, needs: needs.bought_cores,
        lambda model: float(model.load.machine.cores),
        "[More machines](many-machines.md): `urban-reid worker --role cameras` on each, or a card.",
    ),
    Limit(
        "the network of one core for all camera hosts",
        "Gbit/s",
        lambda _, needs: needs.network_gbit_s["their hosts to a core elsewhere"],
        lambda model: model.load.machine.network_gbit_s,
        "A core on each camera host: a look sends the core a picture that is larger than the stream it came from.",
    ),
    Limit(
        "streams into one machine",
        "Gbit/s",
        lambda _, needs: needs.network_gbit_s["cameras to their hosts"],
        lambda model: model.load.machine.network_gbit_s,
        "Camera hosts beside the cameras.",
    ),
    Limit(
        "one process that resolves",
        "s a window",
        lambda _, needs: needs.windows_s,
        lambda model: model.load.window_s,
        "[More machines](many-machines.md): `urban-reid worker --role resolve`, to which districts are dealt.",
    ),
    Limit(
        "the look after closed windows, each second",
        "s",
        lambda _, needs: needs.cores["looking for closed windows"],
        lambda _: 1.0,
        "Shards: one database and one `urban-reid up` for each group of districts.",
    ),
    Limit(
        "a window of one district",
        "s a window",
        lambda _, needs: needs.window_s,
        lambda model: model.load.window_s * _DISTRICT_SHARE,
        "Smaller districts, or a shorter retention of the district's identities.",
    ),
    Limit(
        "connections of one Postgres",
        "connections",
        lambda model, needs: (
            needs.bought_cores
            * (model.load.processes_per_machine * model.load.connections_per_process / model.load.machine.cores)
        ),
        lambda model: float(model.load.machine.connections),
        "PgBouncer before a user-supplied Postgres (`URBAN_REID_DATABASE_URL`).",
    ),
    Limit(
        "what one Postgres writes",
        "MB/s",
        lambda _, needs: needs.database_write_mb_s,
        lambda model: model.load.machine.disk_write_mb_s,
        "Shards: one database for each group of districts.",
    ),
    Limit(
        "the disk of one Postgres",
        "GB",
        lambda _, needs: needs.database_gb,
        lambda model: model.load.machine.disk_tb * 1_000,
        "Shards, or a shorter retention.",
    ),
    Limit(
        "pictures on one disk",
        "GB",
        lambda _, needs: needs.files_gb,
        lambda model: model.load.machine.disk_tb * 1_000,
        "An object store (`URBAN_REID_PICTURES_URL`).",
    ),
    Limit(
        "a backup by dump, hours of a day",
        "h",
        lambda _, needs: needs.backup_s * (1 / 3_600),
        lambda _: 24 * _BACKUP_SHARE,
        "Shards, which are dumped at once; or a replica and the server's own backup.",
    ),
    Limit(
        "memory of one search process",
        "GB",
        lambda _, needs: Range.exact(needs.search_memory_gb),
        lambda model: model.load.machine.memory_gb * _SEARCH_SHARE,
        "A search process for each shard; `URBAN_REID_SEARCH_MEMORY_MB` allows one more than half of the memory.",
    ),
    Limit(
        "one Prefect server",
        "cores",
        lambda _, needs: needs.cores["Prefect"],
        lambda _: 1.0,
        "A Prefect server on PostgreSQL, which `URBAN_REID_PREFECT_URL` names; one for each shard.",
    ),
)


def reached(model: Model, limit: Limit, end: Literal["value", "low", "high"] = "value") -> int | None:
    """The least number of cameras that need more than there is; None: none up to `MOST_CAMERAS`.

    end: of what is needed, its value or an end of its interval.
    """

    def is_over(cameras: int) -> bool:
        return float(getattr(limit.needed(model, model.needs(cameras)), end)) > limit.there(model)

    if not is_over(MOST_CAMERAS):
        return None
    within, over = 0, MOST_CAMERAS
    while over - within > 1:
        middle = (within + over) // 2
        within, over = (within, middle) if is_over(middle) else (middle, over)
    return over
