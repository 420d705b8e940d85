"""Promotion in a resolved city: no decision is rewritten, no identity is lost, and no run sees two models."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import text

from pipeline.city.decision_digest import decision_digest
from pipeline.city.watermarks import mark_everything
from pipeline.crops.crop_store import place_of_crop
from pipeline.registry import ModelRow, find_model, model_in_use, register_model, use_model
from pipeline.report.pages import render
from pipeline.report.read_contents import read_contents
from pipeline.resolve import embed_camera, resolve_unit, units_within
from pipeline.search.request import request_search
from pipeline.search.search import search
from pipeline.store.copy import copy_out
from pipeline.training.comparison import Comparison, read_comparison, write_comparison
from pipeline.training.promotion import Promotion, promote, rollback
from pipeline.training.reembed import count_unknown, reembed
from reid_core.files import read_card, save_model, write_card
from reid_core.models import build_model
from reid_core.serving.core import ReIDCore
from reid_core.serving.factory import open_core
from schemas.cards import InputConvention, ModelConfig
from schemas.errors import InputError, ModelChanged
from schemas.levels import Level
from schemas.parameters import SearchHit, SearchParameters
from tests.helpers.orphans import count_orphans
from tests.helpers.town import Town

TAKEN_IN, MORE = 80, 60
#: Another width and input, so that vectors of the two models cannot be confused.
SECOND = ModelConfig(architecture="resnet18", input=InputConvention(height=64, width=32))


@pytest.fixture(scope="module")
def second_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with the calibrations of the first."""
    folder = tmp_path_factory.mktemp("second")
    torch.manual_seed(7)
    first = read_card(model_folder)
    card = save_model(build_model(SECOND), folder, name="second", calibration=first.calibration)
    write_card(card.model_copy(update={"search_calibration": first.search_calibration}), folder)
    return folder


@pytest.fixture
def two(town: Town, lines: list[str], second_folder: Path) -> Town:
    """A resolved city with a second registered model."""
    town.take_in(lines[:TAKEN_IN])
    town.resolve()
    register_model(town.store, town.store.settings, second_folder, "second")
    return town


def core_of(town: Town) -> Any:
    def opened(model: ModelRow) -> ReIDCore:
        return open_core(town.store.settings, model.directory(town.store.settings))

    return opened


def to_second(town: Town, *, force: bool = True, **options: Any) -> Promotion:
    return promote(
        town.store, town.crops, core_of(town), "second", operator="anna", reason="a test", force=force, **options
    )


def back(town: Town) -> Promotion:
    return rollback(town.store, town.crops, core_of(town), operator="anna", reason="a test")


def scalar(town: Town, sql: str, **parameters: Any) -> Any:
    with town.store.begin() as connection:
        return connection.scalar(text(sql), parameters)


def digest(town: Town) -> str:
    with town.store.begin() as connection:
        return decision_digest(connection, None)


def in_use(town: Town) -> ModelRow:
    with town.store.begin() as connection:
        return model_in_use(connection)


def unknown(town: Town, model: ModelRow) -> dict[Level, int]:
    with town.store.begin() as connection:
        return count_unknown(connection, model.id)


def resolve_now(town: Town) -> int:
    """As the flow: each unit with the model in use when it starts. Returns the number of rows written."""
    written = 0
    opened: dict[int, ReIDCore] = {}
    for unit in units_within(town.store, "d1"):
        while True:
            model = in_use(town)
            if model.id not in opened:
                opened[model.id] = core_of(town)(model)
            core = opened[model.id]
            try:
                if unit.count("/") == 3:
                    embed_camera(town.store, core, town.crops, model, unit)
                settings = town.store.settings.association
                written += resolve_unit(town.store, core, model, unit, settings=settings).written
                break
            except ModelChanged:
                continue
    return written


def find(town: Town, unit: str = "d1", crop: str | None = None, top: int = 200) -> tuple[SearchHit, ...]:
    key = crop or scalar(town, "SELECT encode(key, 'hex') FROM crop ORDER BY key LIMIT 1")
    asked = SearchParameters(unit=unit, crop_key=key, reason="a test", operator="me", top=top)
    model = in_use(town)
    request = request_search(town.store, model, asked)
    return search(town.store, core_of(town), town.crops, model, request, asked).hits


def prototypes(town: Town, model: ModelRow) -> dict[str, Any]:
    with town.store.begin() as connection:
        return copy_out(
            connection,
            "SELECT identity_id, ordinal, weight, v FROM prototype WHERE model_id = :model ORDER BY 1, 2",
            {"model": model.id},
            {"identity_id": "int8", "ordinal": "int2", "weight": "float4", "v": "halfvec"},
        )


def check_held_once(town: Town) -> None:
    """Asserts that at each level every tracklet is in exactly one identity."""
    with town.store.begin() as connection:
        rows = connection.execute(
            text(
                "SELECT n.level, k.key FROM identity_now n, unnest(n.tracklets) AS t(id) JOIN identity k ON k.id = t.id"
            )
        ).all()
        tracklets = set(connection.scalars(text("SELECT key FROM identity_now WHERE level = 'camera'")))
    held = Counter((row.level, bytes(row.key)) for row in rows)
    assert set(held.values()) == {1}
    for level in Level:
        assert {key for which, key in held if which == level} == {bytes(key) for key in tracklets}, level


def test_remade_prototypes_equal_those_of_the_resolve(two: Town) -> None:
    before = prototypes(two, two.model)
    with two.store.begin() as connection:
        connection.execute(text("DELETE FROM prototype"))
    done = reembed(two.store, two.core, two.crops, two.model)
    after = prototypes(two, two.model)
    assert (done.crops, done.identities) == (0, len(set(before["identity_id"].tolist())))
    for name, column in before.items():
        assert np.array_equal(column, after[name]), name


def test_a_city_continues_with_another_model_and_back(two: Town, lines: list[str]) -> None:
    decided = digest(two)
    told: list[tuple[int, int]] = []
    done = to_second(two, progress=lambda *numbers: told.append(numbers))
    second = in_use(two)
    assert (second.name, done.model, done.before) == ("second", "second", "test")
    assert done.done.crops == TAKEN_IN and told[-1][0] == told[-1][1] == TAKEN_IN + done.done.identities
    assert (done.unknown, done.uncalibrated) == ({}, [])
    assert digest(two) == decided
    with two.store.begin() as connection:
        mark_everything(connection)
    assert resolve_now(two) == 0 and digest(two) == decided  # every window is looked at, and every run stands
    assert {hit.model for hit in find(two)} == {"second"}

    early = scalar(two, "SELECT count(*) FROM run WHERE superseded_at IS NULL")
    two.take_in(lines[TAKEN_IN : TAKEN_IN + MORE])
    assert resolve_now(two) > 0
    models = "SELECT count(DISTINCT model_id) FROM run WHERE superseded_at IS NULL"
    assert scalar(two, models) == 2 and scalar(two, models.replace("model_id", "id")) > early
    both = "SELECT count(*) FROM identity_now i WHERE level = 'district' AND 2 = (SELECT count(DISTINCT r.model_id) "
    both += "FROM identity t JOIN run r ON r.id = t.run_id WHERE t.id = ANY(i.tracklets))"
    assert scalar(two, both) > 0  # identities with tracklets of both models
    check_held_once(two)
    assert unknown(two, second) == {} and unknown(two, two.model) != {}

    again = back(two)
    assert (again.model, again.before) == ("test", "second") and in_use(two).name == "test"
    assert again.done.crops == MORE and unknown(two, two.model) == {}
    assert resolve_now(two) == 0 and {hit.model for hit in find(two)} == {"test"}
    with pytest.raises(InputError, match="no model was in use before test"):
        back(two)
    with two.store.signed_in() as connection:
        assert set(count_orphans(connection).values()) == {0}
        acts = connection.execute(text("SELECT * FROM audit WHERE action LIKE 'model._%' ORDER BY id")).all()
    assert [(row.action, row.details["model"]) for row in acts if row.action != "model.register"] == [
        ("model.use", "test"),
        ("model.promote", "second"),
        ("model.calibrate", "test"),  # the first search gives the packaged model its card's search calibrations
        ("model.rollback", "test"),
    ]
    promoted = acts[-3]
    assert (promoted.actor, promoted.reason, promoted.details["forced"]) == ("anna", "a test", True)
    assert "never compared with test" in promoted.details["against"][0]


def compared(town: Town, mine: float, its: float) -> None:
    with town.store.begin() as connection:
        found = Comparison(
            "second",
            "test",
            "held-out people",
            bytes(32),
            *({"mAP": value, "rank1": 50.0, "mINP": 10.0} for value in (mine, its)),
        )
        write_comparison(connection, find_model(connection, "second"), town.model, found, "anna")


def test_objections_stop_a_promotion(town: Town, second_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="test is in use already"):
        promote(town.store, town.crops, core_of(town), "test", operator="anna", reason="a test")
    with pytest.raises(InputError, match="there are: test"):
        promote(town.store, town.crops, core_of(town), "tset", operator="anna", reason="a test")
    bare = tmp_path / "bare"
    save_model(build_model(SECOND), bare, name="bare")
    register_model(town.store, town.store.settings, bare, "bare")
    with pytest.raises(InputError, match=r"bare was|never compared.*no calibration for building, street, district"):
        promote(town.store, town.crops, core_of(town), "bare", operator="anna", reason="a test")
    register_model(town.store, town.store.settings, second_folder, "second")
    compared(town, 60.0, 60.5)
    with pytest.raises(InputError, match=r"worse than test: mAP 60.0 against 60.5.*--force"):
        to_second(town, force=False)
    assert in_use(town).name == "test"
    compared(town, 60.5, 60.0)
    assert to_second(town, force=False).model == "second"  # nothing to embed yet
    assert scalar(town, "SELECT forced FROM model_switch ORDER BY id DESC LIMIT 1") is False


def test_a_comparison_of_version_0_1_is_read_under_the_current_names(town: Town, second_folder: Path) -> None:
    register_model(town.store, town.store.settings, second_folder, "second")
    with town.store.begin() as connection:
        second = find_model(connection, "second")
        old = {"mAP": 60.0, "rank_1": 50.0, "mINP": 10.0}
        write_comparison(connection, second, town.model, Comparison("second", "test", "x", bytes(32), old, old), "anna")
        found = read_comparison(connection, second, town.model)
    assert found is not None and found.difference == {"mAP": 0.0, "rank1": 0.0, "mINP": 0.0}


def test_use_is_only_for_the_first_model(two: Town) -> None:
    with pytest.raises(InputError, match=r"resolved with model test; `urban-reid models promote second`"):
        use_model(two.store, "second")
    assert in_use(two).name == "test"


def test_identities_without_pictures_are_found_by_the_earlier_model_and_keep_their_members(
    two: Town, lines: list[str]
) -> None:
    """All pictures of one person are gone, and those of another person's earliest tracklet."""
    with two.store.begin() as connection:
        people = connection.execute(
            text(
                "SELECT * FROM identity_now WHERE level = 'district' AND crops > 1 ORDER BY cardinality(tracklets), key"
            )
        ).all()
        gone, partly = people[0], people[-1]
        assert len(partly.tracklets) > 1
        pictures = connection.execute(
            text(
                "SELECT encode(c.key, 'hex') AS key, c.camera, c.captured_at, c.picture "
                "FROM identity_member m JOIN crop c ON c.id = m.crop_id "
                "WHERE m.identity_id = ANY(:ids)"
            ),
            {"ids": [*gone.tracklets, partly.tracklets[0]]},
        ).all()
    for row in pictures:
        (two.crops.root / two.crops.name(place_of_crop(row.camera, row.captured_at), bytes(row.picture))).unlink()
    with pytest.raises(InputError, match=rf"pictures of {len(pictures)} crops are not in .*--accept-missing"):
        to_second(two)
    assert in_use(two).name == "test"
    done = to_second(two, accept_missing=True)
    assert done.unknown[Level.DISTRICT] == 1 and done.unknown[Level.CAMERA] == len(gone.tracklets) + 1
    second = in_use(two)
    assert unknown(two, second) == done.unknown
    assert scalar(two, "SELECT count(*) FROM crop WHERE picture_gone_at IS NOT NULL") == len(pictures)
    page = render(read_contents(two.store, "d1"), (), 0)["index.html"]
    assert "Only an earlier model knows these identities" in page and "by test</span>" in page

    probe = scalar(two, "SELECT encode(key, 'hex') FROM crop WHERE picture_gone_at IS NULL ORDER BY key LIMIT 1")
    hits = find(two, crop=probe)
    by_model = {model: [hit for hit in hits if hit.model == model] for model in ("second", "test")}
    assert [hit.identity for hit in by_model["test"]] == [gone.persistent_id]
    assert by_model["test"][0].crops and len(by_model["second"]) == len(people_of(two)) - 1
    chances = [hit.probability or 0.0 for hit in hits]
    assert chances == sorted(chances, reverse=True) and [hit.rank for hit in hits] == list(range(1, len(hits) + 1))

    two.take_in(lines[TAKEN_IN : TAKEN_IN + MORE])
    assert resolve_now(two) > 0
    check_held_once(two)
    assert resolve_now(two) == 0


def people_of(town: Town) -> list[Any]:
    with town.store.begin() as connection:
        return list(connection.execute(text("SELECT * FROM identity_now WHERE level = 'district'")))


def test_runs_and_searches_during_the_switch_see_one_model(two: Town, lines: list[str]) -> None:
    """New crops are resolved and searches run all the time while the second model is promoted."""
    two.take_in(lines[TAKEN_IN : TAKEN_IN + MORE])
    started, ended = threading.Event(), threading.Event()

    def searching() -> list[set[str]]:
        found: list[set[str]] = []
        while not ended.is_set() or not found:
            try:
                hits = find(two, top=5)
            except ModelChanged:  # the flow repeats the search
                continue
            found.append({hit.model for hit in hits})
            started.set()
        return found

    with ThreadPoolExecutor(3) as pool:
        searches = pool.submit(searching)
        assert started.wait(120)
        resolved = pool.submit(resolve_now, two)
        try:
            promoted = pool.submit(to_second, two).result()
            resolved.result()
        finally:
            ended.set()
        found = searches.result()
    assert promoted.unknown == {} and unknown(two, in_use(two)) == {}
    assert {len(models) for models in found} == {1}
    order = [models.pop() for models in found]
    assert order == sorted(order, reverse=True)  # first "test", then "second", never back
    last = scalar(two, "SELECT max(id) FROM run WHERE model_id = :id", id=two.model.id)
    assert scalar(two, "SELECT count(*) FROM run WHERE model_id <> :id AND id < :last", id=two.model.id, last=last) == 0
    mixed = "SELECT count(*) FROM run r JOIN calibration c ON c.id = r.calibration_id WHERE c.model_id <> r.model_id"
    assert scalar(two, mixed) == 0
    resolve_now(two)
    check_held_once(two)
    assert scalar(two, "SELECT count(*) FROM crop_embedding e JOIN model m ON m.id = e.model_id WHERE in_use") == (
        TAKEN_IN + MORE
    )
