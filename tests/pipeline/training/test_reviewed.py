"""People of reviewers' answers as a training data set: whom they name, what is left out, and what a card keeps."""

from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import text

from pipeline.erasure.erase import erase
from pipeline.registry import find_model
from pipeline.review.answers import answer, undo
from pipeline.training.candidate import register_candidate, train_model
from pipeline.training.data import Taught, learned_from, reviewed_people, taught
from schemas.errors import InputError
from schemas.parameters import TrainParameters
from schemas.review import Said
from tests.helpers.town import Town

_PASSAGES = (
    "SELECT encode(i.key, 'hex') AS key, i.unit, min(t.truth) AS truth, encode((array_agg(c.key ORDER BY "
    "c.captured_at, c.key))[1], 'hex') AS crop, d.persistent_id AS person FROM identity_now i "
    "JOIN identity_member m ON m.identity_id = i.id JOIN crop c ON c.id = m.crop_id "
    "JOIN crop_truth t ON t.crop_id = c.id JOIN identity_now d ON d.level = 'district' AND i.id = ANY(d.tracklets) "
    "WHERE i.level = 'camera' GROUP BY i.id, i.key, i.unit, i.first_seen, d.persistent_id "
    "HAVING count(DISTINCT t.truth) = 1 ORDER BY i.first_seen"
)


def say(town: Town, one: Any, other: Any, said: Said, who: str = "anna") -> str:
    return str(answer(town.store, one.key, other.key, said, reviewer=who, reason="by eye").id)


@pytest.fixture
def people(town: Town, lines: list[str]) -> list[list[Any]]:
    """The passages of people of whom the city has at least two, who are several by the city as by the truth."""
    town.take_in(lines[:140])
    town.resolve()
    with town.store.begin() as connection:
        rows = connection.execute(text(_PASSAGES)).all()
    found: dict[tuple[str, Any], list[Any]] = {}
    for row in rows:
        found.setdefault((row.truth, row.person), []).append(row)
    whole = {truth: its for (truth, _), its in sorted(found.items(), key=lambda one: len(one[1])) if len(its) > 1}
    persons = [its[0].person for its in whole.values()]
    return [its for its in whole.values() if persons.count(its[0].person) == 1]


def names(town: Town) -> dict[int, set[str]]:
    dataset = reviewed_people(town.store, town.crops)
    found: dict[int, set[str]] = {}
    for sample in (*dataset.train, *dataset.query, *dataset.gallery):
        found.setdefault(sample.identity, set()).add(sample.name)
    return found


def test_agreed_answers_make_people_and_a_card_says_which(town: Town, people: list[list[Any]]) -> None:
    assert len(people) >= 3
    with pytest.raises(InputError, match="0 people are reviewed"):
        reviewed_people(town.store, town.crops)
    given = [say(town, its[0], other, Said.SAME) for its in people for other in its[1:]]
    given += [say(town, a[0], b[0], Said.DIFFERENT, "ben") for a, b in combinations(people, 2)]
    found = names(town)
    assert len(found) == len(people)
    assert all(any({row.crop for row in its} <= crops for crops in found.values()) for its in people)
    learned = learned_from(town.store, "rendered:3:8 + reviewed")
    assert learned is not None and learned.answers == tuple(sorted(given)) and learned.reviewers == 2
    assert learned_from(town.store, "confirmed") is None

    # Where reviewers differ nothing is taught, and a person who is said to be two is none.
    differing = say(town, people[0][0], people[0][1], Said.DIFFERENT, "ben")
    assert not any({people[0][0].crop, people[0][1].crop} <= crops for crops in names(town).values())
    undo(town.store, differing, reviewer="ben", reason="a test")

    asked = {"name": "own", "dataset": "reviewed", "reason": "order 12", "operator": "anna", "strategy": "separate"}
    parameters = TrainParameters.model_validate(asked | {"start_from": "test", "epochs": 1, "identities_per_batch": 2})
    train_model(town.store, town.crops, parameters)
    register_candidate(town.store, town.crops, parameters)
    with town.store.begin() as connection:
        card = find_model(connection, "own").card
        assert taught(connection, card) == Taught(len(given), 0)
        assert taught(connection, find_model(connection, "test").card) is None
    details = card.details["reviewed"]
    assert details["answers"] == sorted(given) and details["reviewers"] == 2 and details["until"]

    # Who is erased is in no later training, and the card tells that the model saw somebody who is gone.
    erase(town.store, "identity", [str(people[0][0].person)], actor="anna", reason="asked for it")
    with town.store.begin() as connection:
        now = taught(connection, card)
    assert now and now.answers == len(given) and 0 < now.gone < now.answers
    assert all(row.crop not in crops for row in people[0] for crops in names(town).values())
    later = learned_from(town.store, "reviewed")
    assert later is not None and len(later.answers) < len(given)
