"""Confirmed people as a training data set, the candidate trained on them, and what an interrupted run repeats."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.registry import find_model, models, register_model
from pipeline.training.candidate import recipe_of, register_candidate, train_model
from pipeline.training.comparison import read_comparison
from pipeline.training.confirmations import confirm
from pipeline.training.data import confirmed_people, open_training_data, source_of
from reid_core.files import read_card, save_model
from reid_core.models import build_model
from schemas.cards import InputConvention, ModelConfig
from schemas.errors import InputError
from schemas.parameters import TrainParameters
from schemas.settings import Settings
from tests.helpers.town import Town


def rows(town: Town, sql: str, **parameters: Any) -> list[Any]:
    with town.store.begin() as connection:
        return list(connection.execute(text(sql), parameters))


def state(town: Town, identity: str, *, one: bool = True) -> None:
    confirm(town.store, identity, operator="anna", reason="a test", is_one_person=one)


@pytest.fixture
def confirmed(town: Town, lines: list[str]) -> Town:
    """A resolved city whose district's identities are all confirmed as one person each."""
    town.take_in(lines[:90])
    town.resolve()
    for row in rows(town, "SELECT persistent_id FROM identity_now WHERE level = 'district'"):
        state(town, str(row.persistent_id))
    return town


def test_a_model_that_is_trained_further_keeps_its_methods_recipe(town: Town, tmp_path: Path) -> None:
    """It was trained by BagTricks' losses unless --baseline was given again."""
    words = {"dataset": "confirmed", "reason": "order 12", "operator": "anna", "strategy": "joint"}
    for baseline, triplet, optimizer in (("agw", "weighted", "adam"), ("pcb", "batch_hard", "sgd")):
        config = ModelConfig.model_validate({"architecture": "resnet10s", "baseline": baseline})
        save_model(build_model(config.model_copy(update={"input": InputConvention(height=64, width=32)})),
                   tmp_path / baseline, name=baseline)  # fmt: skip
        register_model(town.store, town.store.settings, tmp_path / baseline, baseline)
        asked = TrainParameters.model_validate({**words, "name": "new", "start_from": baseline})
        (plan,) = recipe_of(town.store, asked).plans
        assert (plan.triplet, plan.optimizer) == (triplet, optimizer)


def test_confirmed_people_are_split_into_training_and_evaluation(confirmed: Town, tmp_path: Path) -> None:
    dataset = confirmed_people(confirmed.store, confirmed.crops)
    splits = [dataset.train, dataset.query, dataset.gallery]
    assert all(splits) and sum(map(len, splits)) == rows(confirmed, "SELECT count(*) AS n FROM crop")[0].n
    people = [{sample.identity for sample in split} for split in splits]
    assert not people[0] & (people[1] | people[2])
    names = Counter(sample.name for split in splits for sample in split)
    assert set(names.values()) == {1} and set(names) == {row.key for row in rows(confirmed, _KEYS)}
    assert dataset.load("query", InputConvention(height=64, width=32)).pictures.any()

    (person, *_), (first, *_) = sorted(Counter(s.identity for s in dataset.train)), rows(confirmed, _PEOPLE)
    gone = next(sample for sample in dataset.train if sample.identity == person)
    with confirmed.store.begin() as connection:
        connection.execute(
            text("UPDATE crop SET picture_gone_at = now() WHERE key = :key"), {"key": bytes.fromhex(gone.name)}
        )
    again = confirmed_people(confirmed.store, confirmed.crops)
    assert {s.name for s in dataset.train} - {s.name for s in again.train} == {gone.name}
    assert {s.name for s in again.query} == {s.name for s in dataset.query}  # held-out people stay held out
    state(confirmed, str(first.persistent_id), one=False)  # the newest statement counts
    less = confirmed_people(confirmed.store, confirmed.crops)
    assert less.counts("train").people + less.counts("query").people == len(rows(confirmed, _PEOPLE)) - 1

    parameters = TrainParameters(
        name="own",
        dataset="confirmed + rendered:3:8",
        reason="order 12",
        operator="anna",
        strategy="separate",
        start_from="test",
        epochs=1,
        identities_per_batch=4,
    )
    train_model(confirmed.store, confirmed.crops, parameters)
    folder = confirmed.store.settings.training_dir("own") / "model"
    weights = (folder / "weights.safetensors").read_bytes()
    train_model(confirmed.store, confirmed.crops, parameters)  # as after an interruption: nothing is trained again
    assert (folder / "weights.safetensors").read_bytes() == weights and len(models(confirmed.store)) == 1
    found = register_candidate(confirmed.store, confirmed.crops, parameters)
    assert found is not None and found == register_candidate(confirmed.store, confirmed.crops, parameters)
    with confirmed.store.signed_in() as connection:
        own = find_model(connection, "own")
        assert read_comparison(connection, own, confirmed.model) == found
        audits = connection.execute(text("SELECT * FROM audit WHERE action = 'model.train'")).all()
    assert own.card.details["compared_with"]["difference"] == found.difference
    assert own.card.strategy == "separate" and own.card.architecture == confirmed.model.card.architecture
    assert [(row.actor, row.reason, row.details["dataset"]) for row in audits] == [
        ("anna", "order 12", "confirmed + rendered:3:8")
    ]
    assert read_card(own.directory(confirmed.store.settings)) == own.card


_KEYS = "SELECT encode(key, 'hex') AS key FROM crop"
_PEOPLE = "SELECT persistent_id FROM identity_now WHERE level = 'district' ORDER BY 1"


def test_what_cannot_be_confirmed(town: Town, lines: list[str]) -> None:
    town.take_in(lines[:40])
    town.resolve()
    (tracklet,) = rows(town, "SELECT persistent_id FROM identity_now WHERE level = 'camera' LIMIT 1")
    for identity, message in (
        (str(tracklet.persistent_id), "is an identity of the camera"),
        ("zzzz", "the first four digits"),
        ("0123abcd-4567", "no identity's id begins with '0123abcd-4567'"),
        ("", "the first four digits"),
    ):
        with pytest.raises(InputError, match=message):
            state(town, identity)
    assert rows(town, "SELECT count(*) AS n FROM confirmation")[0].n == 0
    with pytest.raises(InputError, match=r"0 people are confirmed, 0 of them.*identities confirm"):
        open_training_data(town.store, town.crops, "confirmed")


def test_data_sets_have_names() -> None:
    settings = Settings(datasets={"market": "market1501:/data/Market"})
    assert source_of(settings, "market") == "market1501:/data/Market"
    assert source_of(settings, "rendered:3") == "rendered:3"
    with pytest.raises(InputError, match="there are: market"):
        source_of(settings, "markt")
