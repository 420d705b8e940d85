"""The training flow: trains a candidate, compares it with the model in use, and waits until a person promotes it.

Run by `urban-reid up`, it is suspended until `urban-reid models promote` has put the candidate in use, and no process
waits. Then it starts again from the top, and each step finds its result of before. Called from the command line it
ends with the candidate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from prefect import flow
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.flow_runs import aresume_flow_run, asuspend_flow_run
from prefect.runtime import deployment
from pydantic import ValidationError

from flows.artifacts import show_candidate
from flows.failures import confidential
from flows.work import Work, logger_of_run, step, working
from pipeline.registry import find_model
from pipeline.store import Store
from pipeline.training.candidate import register_candidate, train_model
from pipeline.training.comparison import Comparison
from pipeline.training.request import read_training_request
from schemas.errors import InputError
from schemas.parameters import RequestParameters
from schemas.settings import settings

T = TypeVar("T")

#: A suspended run waits this long for the promotion, seconds. The candidate stays registered afterwards.
_PROMOTED_WITHIN_S = 30 * 24 * 3600


@dataclass(frozen=True)
class Trained:
    model: str
    comparison: Comparison | None  # None where no model was in use
    in_use: bool


@flow(name="training", validate_parameters=False)
@confidential
async def training(parameters: RequestParameters) -> Trained:
    """Trains the model that `urban-reid train` has asked for, and compares it with the one in use."""
    request = RequestParameters.model_validate(parameters).request
    with working(settings()) as work:
        asked = await work.run(read_training_request, work.store, request)
        do = partial(_do, work, asked.name)
        await do("train", lambda: train_model(work.store, work.crops, asked, work.on_step))
        comparison = await do(
            "compare and register", lambda: register_candidate(work.store, work.crops, asked, work.on_step)
        )
        await show_candidate(asked, comparison)
        in_use = await work.run(_is_in_use, work.store, asked.name)
        if comparison is not None and deployment.id is not None and not in_use:
            logger_of_run().info("%s waits until it is promoted", asked.name)
            await asuspend_flow_run(key="promotion", timeout=_PROMOTED_WITHIN_S)  # goes on at once after Resume
        return Trained(asked.name, comparison, in_use)


async def _do(work: Work, model: str, name: str, function: Callable[[], T]) -> T:
    """Runs a plain function as a step; its result stays in this process."""

    async def run(unit: str) -> T:  # a step is named after its unit, here the model
        return await work.run(function)

    return await step(name, run)(model)


def _is_in_use(store: Store, name: str) -> bool:
    with store.begin() as connection:
        return find_model(connection, name).in_use


def _is_promoted(store: Store, parameters: object) -> bool:
    """Whether the model of a training run with these parameters is in use."""
    try:
        asked = read_training_request(store, RequestParameters.model_validate(parameters).request)
        return _is_in_use(store, asked.name)
    except (ValidationError, InputError):  # another city's, on a user-supplied server; or the model is gone
        return False


async def resume_promoted(client: PrefectClient, store: Store) -> int:
    """Resumes the training runs that wait for the promotion of a model that is in use now. Returns their number."""
    waiting = await client.read_flow_runs(
        flow_filter=FlowFilter.model_validate({"name": {"any_": [training.name]}}),
        flow_run_filter=FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}}),
        sort=FlowRunSort.ID_DESC,
        limit=200,
    )
    resumed = [run for run in waiting if _is_promoted(store, run.parameters.get("parameters"))]
    for run in resumed:
        await aresume_flow_run(run.id)
    return len(resumed)
