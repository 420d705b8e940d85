"""The training flow on a real Prefect server: candidate, comparison, approval, switch."""

import asyncio
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from prefect.flow_runs import aresume_flow_run
from sqlalchemy import text

from flows.training import Trained, training
from flows.work import working
from pipeline.registry import model_in_use, models
from schemas.errors import InputError
from schemas.levels import UPWARD
from schemas.parameters import TrainParameters
from tests.helpers.prefect_api import Ask
from tests.helpers.town import Town

pytestmark = pytest.mark.usefixtures("prefect_url")

PARAMETERS = TrainParameters(
    name="Better.1",
    dataset="rendered:5:24",
    reason="a <b>test</b>",
    operator="anna",
    strategy="plain",
    architecture="resnet10s",
    height=64,
    width=32,
    epochs=1,
    identities_per_batch=6,
)


def run_here(town: Town, parameters: TrainParameters = PARAMETERS) -> Trained:
    with working(town.store.settings):
        return asyncio.run(training(parameters))


async def from_pages(parameters: TrainParameters) -> FlowRun:
    """A run as somebody starts it from Prefect's pages."""
    async with get_client() as client:
        deployment = await client.create_deployment(await client.create_flow(training), "urban-reid")
        given = {"parameters": parameters.model_dump(mode="json")}
        return await client.create_flow_run_from_deployment(deployment, parameters=given)


async def carry_on(town: Town, run: FlowRun) -> State[Any]:
    """What the runner's process does with a run that is due."""
    async with get_client() as client:
        run = await client.read_flow_run(run.id)
    with working(town.store.settings):
        state = await run_flow_async(training, flow_run=run, parameters=run.parameters, return_type="state")
    assert isinstance(state, State)
    return state


def test_a_candidate_waits_for_approval_and_is_then_put_in_use(town: Town, lines: list[str], api: Ask) -> None:
    town.take_in(lines[:30])
    town.resolve()
    done = run_here(town)
    assert done.promotion is None and done.comparison is not None
    row = next(row for row in models(town.store) if row.name == "Better.1")
    assert not row.in_use
    assert row.card.metrics == row.card.metrics | dict(done.comparison.metrics)
    assert row.card.details["compared_with"]["metrics"] == dict(done.comparison.against_metrics)
    assert row.card.details["held_out"] == done.comparison.held_out == "48 queries of 12 people of rendered:5:24"
    assert [fit.level for fit in row.card.calibration] == list(UPWARD[1:])
    artifact = api("/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["candidate-better-1"]}}})[0]
    assert "difference" in artifact["data"] and "<b>" not in artifact["data"]

    run = asyncio.run(from_pages(PARAMETERS))
    with pytest.raises(Pause) as waits:  # the runner's process ends with it
        asyncio.run(carry_on(town, run))
    assert waits.value.state is not None and waits.value.state.name == "Suspended"
    assert len(models(town.store)) == 2  # nothing was registered twice
    asyncio.run(aresume_flow_run(run.id, {"operator": "bert", "reason": "order 12", "force": True}))
    ended = asyncio.run(carry_on(town, run))
    assert ended.is_completed(), ended
    with town.store.begin() as connection:
        assert model_in_use(connection).name == "Better.1"
        switch = connection.execute(text("SELECT * FROM model_switch ORDER BY id DESC LIMIT 1")).one()
        trained = connection.execute(text("SELECT * FROM audit WHERE action = 'model.train'")).all()
        assert connection.scalar(text("SELECT count(*) FROM model_comparison")) == 1
    assert (switch.kind, switch.operator, switch.reason) == ("promote", "bert", "order 12")
    assert [(row.actor, row.reason) for row in trained] == [("anna", "a <b>test</b>")]

    with pytest.raises(InputError, match=r"another model is registered as Better\.1"):
        run_here(town, PARAMETERS.model_copy(update={"seed": 1}))


def test_no_path_goes_through_prefect(town: Town) -> None:
    with pytest.raises(InputError, match=r"no data set is called 'market1501:/data'.*URBAN_REID_DATASETS"):
        run_here(town, PARAMETERS.model_copy(update={"dataset": "market1501:/data"}))
    assert len(models(town.store)) == 1
