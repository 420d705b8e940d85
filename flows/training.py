"""The training flow: trains a candidate, compares it with the model in use, and promotes it when a person approves.

Run by `urban-reid up`, it is suspended until somebody approves, and no process waits. It then starts again from the
top, and each step finds its result of before. Called from the command line it ends with the candidate;
`urban-reid models promote` does the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from prefect import flow, get_run_logger
from prefect.flow_runs import asuspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment

from flows.artifacts import show_candidate
from flows.work import Work, unit_task, working
from pipeline.training.candidate import register_candidate, train_model
from pipeline.training.comparison import Comparison
from pipeline.training.promotion import Promotion, promote
from schemas.parameters import ApprovalParameters, TrainParameters
from schemas.settings import settings

T = TypeVar("T")

#: A suspended run waits this long for approval, seconds. The candidate stays registered afterwards.
_APPROVAL_WITHIN_S = 30 * 24 * 3600


class Approval(ApprovalParameters, RunInput):
    """The form on Prefect's pages that promotes a candidate."""


@dataclass(frozen=True)
class Trained:
    model: str
    comparison: Comparison | None  # None where no model was in use
    promotion: Promotion | None  # None without approval


@flow(name="training", flow_run_name="{parameters.name}")
async def training(parameters: TrainParameters) -> Trained:
    """Trains a model, compares it with the one in use, and promotes it when somebody approves."""
    with working(settings()) as work:
        step = partial(_step, work, parameters.name)
        await step("train", lambda: train_model(work.store, work.crops, parameters, work.on_step))
        comparison = await step(
            "compare and register", lambda: register_candidate(work.store, work.crops, parameters, work.on_step)
        )
        await show_candidate(parameters, comparison)
        promotion = None
        if comparison is not None and deployment.id is not None:
            get_run_logger().info("%s waits for approval: %s", parameters.name, comparison)
            asked = Approval.with_initial_data(
                description=f"{parameters.name} against {comparison.against}: {comparison}. Put it in use?",
                operator=parameters.operator,
            )
            answer = await asuspend_flow_run(wait_for_input=asked, key="approval", timeout=_APPROVAL_WITHIN_S)
            approved = ApprovalParameters(operator=answer.operator, reason=answer.reason, force=answer.force)
            promotion = await step(
                "promote",
                lambda: promote(
                    work.store,
                    work.crops,
                    work.core,
                    parameters.name,
                    operator=approved.operator,
                    reason=approved.reason,
                    force=approved.force,
                ),
            )
        return Trained(parameters.name, comparison, promotion)


async def _step(work: Work, model: str, name: str, function: Callable[[], T]) -> T:
    """Runs a plain function as a task; its result stays in this process."""

    async def run(unit: str) -> T:  # a task is named after its unit, here the model
        return await work.run(function)

    return await unit_task(name, run)(model)
