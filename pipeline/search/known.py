"""What a search compares a probe with: a unit's identities that reach into a period, by the model that knows them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, text

from pipeline.attributes.read import Attributes
from pipeline.registry import ModelRow, model_by_id
from pipeline.search.descent import IN_PERIOD, times_of
from pipeline.search.memory import check_fits
from pipeline.search.narrowing import Narrowing
from pipeline.search.nearest import Compared, Gallery
from pipeline.search.transit import Passages
from schemas.arrays import Floats, Ints
from schemas.parameters import Period


@dataclass(frozen=True)
class Known:
    """The n identities (versions) that one model compares, in the order of their keys."""

    model: ModelRow
    gallery: Gallery
    passages: Callable[[], Passages]  # read only where the probe has a time, or attributes are asked for
    attributes: Callable[[Ints], Attributes]  # what is known of tracklets (ids of rows), read where they are asked for
    watch: Callable[[Floats, Compared], None] = lambda _, __: None  # is told of each comparison with a feature


_IDENTITIES = text(f"SELECT i.id FROM identity_now i WHERE i.unit = :unit AND {IN_PERIOD} ORDER BY i.key")
_DAYS = text(
    "SELECT count(DISTINCT right(relname, 8)) FROM pg_class WHERE relnamespace = 'public'::regnamespace "
    "AND relkind = 'r' AND relname ~ ANY(CAST(:names AS text[]))"
)
_BY_EARLIER_MODEL = text(
    "SELECT DISTINCT ON (i.id) i.id, p.model_id FROM unnest(CAST(:ids AS bigint[])) AS i(id) "
    "JOIN prototype p ON p.identity_id = i.id AND p.ordinal = 0 LEFT JOIN (SELECT model_id, max(id) AS last "
    "FROM model_switch GROUP BY 1) AS s ON s.model_id = p.model_id "
    "WHERE NOT EXISTS (SELECT 1 FROM prototype q WHERE q.model_id = :model AND q.identity_id = i.id) "
    "ORDER BY i.id, s.last DESC NULLS LAST"
)


def read_known(
    connection: Connection,
    model: ModelRow,
    unit: str,
    period: Period,
    narrowing: Narrowing | None = None,
    most: int | None = None,
) -> list[Known]:
    """What the database shows to this connection, read once and not kept.

    most: bytes of vectors; raises InputError where they are more.
    """

    def check(prototypes: int, dims: int) -> None:
        if most is not None:
            check_fits(unit, prototypes, dims, most)

    ids = list(connection.scalars(_IDENTITIES, {"unit": unit, **times_of(period)}))
    if narrowing is not None:
        counts = narrowing.identities(Passages.read(connection, ids))
        ids = [one for one, does in zip(ids, counts.tolist(), strict=True) if does]
    found = []
    for one, known in by_model(connection, model, ids):
        gallery = Gallery.read(connection, one.id, known, check)
        passages = partial(Passages.read, connection, gallery.ids.tolist())
        found.append(Known(one, gallery, passages, partial(Attributes.read, connection)))
    return found


def count_days(connection: Connection, models: Sequence[int]) -> int:
    """Days whose prototypes of these models are kept, each in a partition of its own."""
    names = [f"^prototype_m{model}_[0-9]{{8}}$" for model in models]
    return int(connection.scalar(_DAYS, {"names": names}) or 0)


def by_model(connection: Connection, model: ModelRow, identities: list[int]) -> list[tuple[ModelRow, list[int]]]:
    """The model in use with the identities that it knows, then earlier models with those that only they know.

    Of several earlier models that know an identity, the one that was in use last compares it. None without identities.
    """
    rows = connection.execute(_BY_EARLIER_MODEL, {"ids": identities, "model": model.id}).all()
    earlier: dict[int, list[int]] = {}
    for row in rows:
        earlier.setdefault(row.model_id, []).append(row.id)
    unknown = {row.id for row in rows}
    known = [(model, [identity for identity in identities if identity not in unknown])]
    known += [(model_by_id(connection, other), ids) for other, ids in sorted(earlier.items())]
    return [(one, ids) for one, ids in known if ids]
