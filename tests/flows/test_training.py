"""The training flow on a real Prefect server: candidate, comparison, approval, switch."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow_async
from sqlalchemy import text

from flows.failures import call
from flows.training import Trained, resume_promoted, training
from flows.work import working
from pipeline.registry import model_in_use, models
from pipeline.training.promotion import promote
from pipeline.training.request import request_training
from schemas.errors import InputError
from schemas.levels import UPWARD
from schemas.parameters import RequestParameters, TrainParameters
from tests.helpers.prefect_api import Ask
from tests.helpers.town import Town
from tests.helpers.training import PARAMETERS

pytestmark = pytest.mark.usefixtures("prefect_url")


def run_here(town: Town, parameters: TrainParameters = PARAMETERS) -> Trained:
    with working(town.store.settings):
        request = RequestParameters(request=request_training(town.store, parameters))
        trained: Trained = call(training, request, print)
        return trained


async def handed_over(request: UUID) -> FlowRun:
    """A run as `urban-reid train --no-wait` starts it."""
    async with get_client() as client:
        deployment = await client.create_deployment(await client.create_flow(training), "urban-reid")
        given = {"parameters": {"request": str(request)}}
        return await client.create_flow_run_from_deployment(deployment, parameters=given)


async def carry_on(town: Town, run: FlowRun) -> State[Any]:
    """What the runner's process does with a run that is due."""
    async with get_client() as client:
        run = await client.read_flow_run(run.id)
    with working(town.store.settings):
        state = await run_flow_async(training, flow_run=run, parameters=run.parameters, return_type="state")
    assert isinstance(state, State)
    return state


async def resume(town: Town) -> int:
    async with get_client() as client:
        return await resume_promoted(client, town.store)


def test_a_candidate_waits_until_it_is_promoted(town: Town, lines: list[str], api: Ask) -> None:
    town.take_in(lines[:30])
    town.resolve()
    done = run_here(town)
    assert not done.in_use and done.comparison is not None
    row = next(row for row in models(town.store) if row.name == "Better.1")
    assert not row.in_use
    assert row.card.metrics == row.card.metrics | dict(done.comparison.metrics)
    assert row.card.details["compared_with"]["metrics"] == dict(done.comparison.against_metrics)
    assert row.card.details["held_out"] == done.comparison.held_out == "48 queries of 12 people of rendered:5:24"
    assert [fit.level for fit in row.card.calibration] == list(UPWARD[1:])
    artifact = api("/artifacts/latest/filter", {"artifacts": {"key": {"any_": ["candidate-better-1"]}}})[0]
    assert "difference" in artifact["data"] and "<b>" not in artifact["data"]

    run = asyncio.run(handed_over(request_training(town.store, PARAMETERS)))
    with pytest.raises(Pause) as waits:  # the runner's process ends with it
        asyncio.run(carry_on(town, run))
    assert waits.value.state is not None and waits.value.state.name == "Suspended"
    assert len(models(town.store)) == 2  # nothing was registered twice
    assert asyncio.run(resume(town)) == 0
    promote(town.store, town.crops, lambda _: town.core, "Better.1", operator="bert", reason="order 12", force=True)
    assert asyncio.run(resume(town)) == 1
    ended = asyncio.run(carry_on(town, run))
    assert ended.is_completed(), ended
    with town.store.signed_in() as connection:
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
