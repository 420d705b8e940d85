"""urban-reid models normalize at the command line."""

from sqlalchemy import text

from pipeline.registry import find_model
from pipeline.training.confirmations import confirm
from pipeline.training.data import confirmed_people
from reid_core import FeatureSpace
from tests.helpers.command_line import Run, error_of
from tests.helpers.town import Town


def test_a_basis_of_confirmed_identities(town: Town, lines: list[str], run_here: Run) -> None:
    town.take_in(lines[:90])
    town.resolve()
    with town.store.begin() as connection:
        query = text("SELECT persistent_id FROM identity_now WHERE level = 'district'")
        identities = [str(found) for found in connection.execute(query).scalars()]
    for identity in identities:
        confirm(town.store, identity, operator="anna", reason="a test")
    asked = ("models", "normalize", "test", "--on-city", "d1", "--name", "own", "--basis")
    done = run_here(*asked, "confirmed")
    assert done.returncode == 0, done.stderr
    with town.store.begin() as connection:
        model = find_model(connection, "own")
    people = confirmed_people(town.store, town.crops).counts("train").people
    assert model.card.feature_space is not None and model.card.feature_space.basis == "people"
    assert model.card.feature_space.learned_from == f"crops of d1; basis of {people} people of confirmed"
    assert FeatureSpace.open(model.directory(town.store.settings)).basis is not None
    assert "elsewhere" in error_of(run_here(*asked, "elsewhere:1"), 2)
