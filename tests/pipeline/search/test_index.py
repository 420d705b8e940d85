"""What is kept in memory: it says what the database says, to whom it may be said, and forgets what was erased."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text

from pipeline.erasure.erase import erase
from pipeline.erasure.expire import expire
from pipeline.registry import ModelRow
from pipeline.search import index as index_module
from pipeline.search import index_rows
from pipeline.search.fast_distances import FastDistances
from pipeline.search.index import Index, UnitIndex, all_vectors
from pipeline.search.known import read_known
from pipeline.search.nearest import Gallery, Stored
from pipeline.search.request import read_request, request_search
from pipeline.search.search import search
from pipeline.simulation import WEIGHTS as SIMULATED
from pipeline.store import embedded
from pipeline.store.copy import copy_out
from reid_core.diff_attention import DiffAttention
from reid_core.files import load_model, read_card
from reid_core.serving.local import LocalCore, _no_embedder
from schemas.cards import DiffAttentionSettings, ModelCard
from schemas.errors import InputError
from schemas.parameters import Period, SearchParameters, SearchResult
from tests.helpers.governed import Governed
from tests.helpers.homes import become_live, superuser_of
from tests.helpers.town import Town


def index_of(town: Town) -> Index:
    def fast(model: ModelRow) -> FastDistances:
        return FastDistances(load_model(model.directory(town.store.settings)).diff_attention)

    return Index(town.store, fast)


def ask(town: Town, index: Index | None, **parameters: Any) -> SearchResult:
    asked = SearchParameters.model_validate({"unit": "d1", "reason": "a test", "operator": "me", "top": 5} | parameters)
    request = request_search(town.store, town.model, asked)
    asked = read_request(town.store, request).parameters
    return search(town.store, lambda _: town.core, town.crops, town.model, request, asked, index)


def agree(town: Town, index: Index, **parameters: Any) -> SearchResult:
    """The result with the index, which the database alone gives too."""
    warm, plain = ask(town, index, **parameters), ask(town, None, **parameters)
    assert without_leads(warm) == without_leads(plain)
    return warm


def without_leads(result: SearchResult) -> SearchResult:
    return result.model_copy(update={"hits": tuple(hit.model_copy(update={"lead": None}) for hit in result.hits)})


def keys(town: Town, many: int = 3) -> list[str]:
    with town.store.begin() as connection:
        rows = connection.execute(text("SELECT encode(key, 'hex') FROM crop ORDER BY captured_at, key"))
        every = list(rows.scalars())
    return every[:: max(len(every) // many, 1)][:many]


def test_with_the_index_a_search_says_the_same(resolved: Town) -> None:
    index = index_of(resolved)
    for key in keys(resolved):
        found = agree(resolved, index, crop_key=key, top=200)
        assert found.hits and found.hits[0].probability is not None
        times = sorted(hit.first_seen for hit in found.hits if hit.first_seen)
        agree(resolved, index, crop_key=key, unit="d1/s1", from_time=times[1], to_time=times[-1])
        agree(resolved, index, crop_key=key, unit="d1/s1/b1", to_time=times[2])
    assert agree(resolved, index, crop_key=key, from_time=times[-1] + timedelta(days=9)).hits == ()
    assert set(all_vectors(index)) == {(resolved.model.id, unit) for unit in ("d1", "d1/s1", "d1/s1/b1")}


def card() -> ModelCard:
    return read_card(SIMULATED).model_copy(update={"dims": 32})


def core_of(module: DiffAttention | None) -> LocalCore:
    of = card() if module is not None else card().model_copy(update={"diff_attention": None})
    return LocalCore(of, _no_embedder(of), module, batch_size=1)


def attention(transform: str) -> DiffAttention:
    module = DiffAttention(32, DiffAttentionSettings(transform=transform, reduction=4)).eval()
    module.mix.data[:] = module.mix.new_tensor([0.9, 0.3, -0.2])
    module.bias.data.fill_(0.1)
    module.excite.weight.data.mul_(20)
    return module


@pytest.mark.parametrize("transform", ["sub", "sub_squ", "sub_abs", None])
def test_fast_distances_are_the_cores_but_for_rounding(transform: str | None) -> None:
    module = None if transform is None else attention(transform)
    module_32 = attention_as_float(module)
    core = core_of(module)
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(5000, 32)).astype(np.float16)
    probe, rows = rng.normal(size=32), rng.permutation(5000)[:700]
    found = FastDistances(module_32).distances(probe, vectors, rows)
    left, right = np.broadcast_to(probe, (700, 32)).copy(), vectors[rows].astype(np.float64)
    assert found == pytest.approx((core.distances(left, right) + core.distances(right, left)) / 2, abs=2e-6)
    lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
    cosines = FastDistances(module_32).cosines(probe, vectors, 1 / lengths)
    assert cosines == pytest.approx(vectors.astype(float) @ (probe / np.linalg.norm(probe)) / lengths, abs=1e-5)


def test_a_large_gallery_in_memory_says_what_one_that_was_read_says() -> None:
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 6, 4000)
    first = np.cumsum(counts) - counts
    v = rng.normal(size=(counts.sum(), 32)).astype(np.float16)
    module = attention("sub_abs")
    core = core_of(module)
    stored = Stored(
        v, 1 / np.linalg.norm(v.astype(np.float32), axis=1), first, FastDistances(attention_as_float(module))
    )
    places = rng.permutation(4000)[:3000]  # others are kept too
    rows = np.concatenate([np.arange(first[place], first[place] + counts[place]) for place in places])
    kept, read = Gallery.of(stored, places, counts[places], places), Gallery(places, counts[places], v[rows])
    for probe in v[:3].astype(np.float64) + rng.normal(0, 0.5, (3, 32)):
        a, b = kept.compare(core, probe, most=1200), read.compare(core, probe, most=1200)
        assert np.array_equal(np.argsort(a.distance)[:100], np.argsort(b.distance)[:100])
        assert (a.exact != b.exact).mean() < 0.002 and a.distance == pytest.approx(b.distance, abs=2e-3)
        scored = np.flatnonzero(a.exact & b.exact)
        nearest = scored[np.argsort(b.distance[scored])][:200]
        assert np.array_equal(a.distance[nearest], b.distance[nearest])  # to the last bit


def attention_as_float(module: DiffAttention | None) -> DiffAttention | None:
    """A copy in float32; a core turns its own into float64."""
    if module is None:
        return None
    copied = DiffAttention(module.dims, module.settings).eval()
    copied.load_state_dict({name: value.float() for name, value in module.state_dict().items()})
    return copied


def test_without_an_index_too_a_unit_that_does_not_fit_is_refused(resolved: Town) -> None:
    with resolved.store.signed_in() as connection:
        (known,) = read_known(connection, resolved.model, "d1", Period())
        needed = int(known.gallery.vectors.sum()) * resolved.model.card.dims * 2
        assert read_known(connection, resolved.model, "d1", Period(), most=needed)
        with pytest.raises(InputError, match="have URBAN_REID_SEARCH_MEMORY_MB raised"):
            read_known(connection, resolved.model, "d1", Period(), most=needed - 1)


def test_it_keeps_up_with_what_is_resolved_and_reads_only_what_changed(
    town: Town, by_time: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_rows, "_FEW", 0)
    monkeypatch.setattr(index_rows, "_GAPS", 0.05)
    monkeypatch.setattr(index_module, "_AT_ONCE", 7)
    index, lines = index_of(town), by_time()
    town.take_in(lines[:10] + lines[16:40])
    town.resolve()
    agree(town, index, crop_key=keys(town)[1])
    cameras = sorted({json.loads(line)["camera"] for line in lines[16:40]})
    for camera in cameras:
        ask(town, index, crop_key=keys(town)[1], unit=camera)
    read: list[int] = []

    def counted(connection: Any, sql: str, *of: Any) -> Any:
        rows = copy_out(connection, sql, *of)
        if sql == index_module._PROTOTYPES:
            read.append(len(set(np.asarray(rows["id"]).tolist())))
        return rows

    monkeypatch.setattr(index_module, "copy_out", counted)
    town.take_in(lines[40:70])
    town.resolve()
    agree(town, index, crop_key=keys(town)[2], top=200)
    anew = {}
    for camera in cameras:
        read.clear()
        found = ask(town, index, crop_key=keys(town)[2], unit=camera)
        anew[camera] = sum(read), found.compared
    assert 0 < sum(some for some, _ in anew.values()) < sum(every for _, every in anew.values())
    read.clear()
    agree(town, index, crop_key=keys(town)[2], unit=camera)
    assert not read  # where nothing changed
    town.take_in(lines[70:76] + lines[10:16])  # late ones decide earlier windows anew
    town.resolve()
    agree(town, index, crop_key=keys(town)[2], top=200)
    with index.held(town.model, "d1") as unit:
        rows = unit.rows[town.model.id]
        assert len(rows._people) - len(rows._place) <= 0.05 * len(rows._people)
    with index.held(town.model, "d1/s1") as unit:
        room = unit.vector_bytes
    del index._units[town.model.id, "d1/s1"]
    index._most = room - 1
    with pytest.raises(InputError, match=r"d1/s1 has \d+ prototypes of \d+ channels, .* search a part of d1/s1"):
        ask(town, index, crop_key=keys(town)[1], unit="d1/s1")
    index._most = room  # for one unit
    agree(town, index, crop_key=keys(town)[1], unit="d1/s1")
    assert set(all_vectors(index)) == {(town.model.id, "d1/s1")}
    with town.store.owning() as connection:  # a day that is dropped is seen, though no row was deleted
        for day in connection.scalars(text("SELECT DISTINCT day FROM prototype")).all():
            connection.execute(text("SELECT drop_partitions('prototype', :day)"), {"day": day})
            ensure = text("SELECT ensure_partition('prototype', :model, :day)")  # of the same name, for late crops
            connection.execute(ensure, {"model": town.model.id, "day": day})
    with index.held(town.model, "d1/s1") as unit:
        assert not any(rows.ids.size for rows in unit.rows.values())


def test_what_was_erased_or_went_by_age_is_gone_from_memory(
    town: Town, lines: list[str], server: embedded.EmbeddedServer
) -> None:
    town.take_in(lines[:60])
    town.resolve()
    index = index_of(town)
    query = "SELECT persistent_id, id FROM identity_now WHERE unit = 'd1' ORDER BY crops DESC, key"
    with town.store.begin() as connection:
        people = connection.execute(text(query)).all()
        sql = text("SELECT v::text FROM prototype WHERE identity_id = :id")
        erased, stays = ([vector(one) for one in connection.scalars(sql, {"id": people[at].id})] for at in (0, 1))
        sql = text(
            "SELECT encode(c.key, 'hex') FROM identity i CROSS JOIN unnest(i.tracklets) AS t(id) "
            "JOIN identity_member m ON m.identity_id = t.id JOIN crop c ON c.id = m.crop_id WHERE i.id = :id LIMIT 1"
        )
        key = connection.scalar(sql, {"id": people[1].id})
    before = agree(town, index, crop_key=key)
    held = all_vectors(index)[town.model.id, "d1"]
    assert erased and all(one in held for one in (*erased, *stays))
    erase(town.store, "identity", [str(people[0].persistent_id)], actor="anna", reason="asked for")
    after = agree(town, index, crop_key=key)
    held = all_vectors(index)[town.model.id, "d1"]
    assert not any(one in held for one in erased) and all(one in held for one in stays)
    assert after.compared < before.compared
    become_live(superuser_of(server, town.store.settings))
    assert expire(town.store, actor="anna", now=datetime.now(UTC) + timedelta(days=400)).partitions
    with index.held(town.model, "d1") as unit:
        assert not any(rows.ids.size for rows in unit.rows.values())
    assert not np.frombuffer(all_vectors(index)[town.model.id, "d1"], np.uint8).any()


def vector(said: str) -> bytes:
    return np.array([float(one) for one in said.strip("[]").split(",")], np.float16).tobytes()


def test_a_session_sees_its_units_and_its_time(town: Town, lines: list[str], server: embedded.EmbeddedServer) -> None:
    town.take_in(lines[:80])
    town.resolve()
    index, key = index_of(town), keys(town)[1]
    every = agree(town, index, crop_key=key, top=200)
    times = sorted(hit.first_seen for hit in every.hits if hit.first_seen)
    governed = Governed(town.store, superuser_of(server, town.store.settings))
    start, end = times[0], times[len(times) // 2]
    for number, units in enumerate([("d1",), ("d1/s1",)]):
        authorization = governed.authorized(f"case {number}", units=units, from_time=start, to_time=end)
        governed.as_("anna", authorization)
        some = agree(town, index, crop_key=key_seen(town), unit=units[0], top=200)
        assert 0 < some.compared < every.compared
        with index.held(town.model, "d1") as unit, town.store.signed_in() as connection:
            warm = seen(unit, connection, town.model, Period())
            assert warm == plain_seen(connection, town.model, "d1", Period())
            assert bool(warm) == (units == ("d1",))
    governed.as_("anna")  # without an authorization
    with index.held(town.model, "d1") as unit, town.store.signed_in() as connection:
        assert seen(unit, connection, town.model, Period()) == []


def key_seen(town: Town) -> str:
    with town.store.signed_in() as connection:
        return str(connection.scalar(text("SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1")))


def seen(unit: UnitIndex, connection: Any, model: ModelRow, period: Period) -> list[Any]:
    return [describe(known) for known in unit.known(connection, model, period)]


def plain_seen(connection: Any, model: ModelRow, unit: str, period: Period) -> list[Any]:
    return [describe(known) for known in read_known(connection, model, unit, period)]


def describe(known: Any) -> Any:
    """Everything that the comparison reads, whatever the order of one identity's prototypes."""
    passages = known.passages()
    codes = [passages.codes[camera] for camera in passages.camera.tolist()]
    return (
        known.model.id,
        known.gallery.ids.tolist(),
        known.gallery.vectors.tolist(),
        codes,
        passages.tracklet.tolist(),
        passages.span_us.tolist(),
        passages.has_time.tolist(),
        passages.count.tolist(),
    )
