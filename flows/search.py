"""The search flow: runs a search that was asked for. Who asks, for whom and why stands in the request alone.

Where the home has a search process, that answers, with its warm index; else this process does.
"""

from uuid import UUID

from prefect import flow

from flows.artifacts import show_search
from flows.failures import confidential
from flows.work import Work, step, working
from pipeline.search.answer import Answer, answer
from pipeline.search.client import ask_process
from pipeline.search.request import read_request
from schemas.parameters import RequestParameters, SearchResult
from schemas.settings import settings


@flow(name="search", validate_parameters=False)
@confidential
async def search(parameters: RequestParameters) -> SearchResult:
    """Runs a search that `urban-reid search` has written down."""
    request = RequestParameters.model_validate(parameters).request
    with working(settings()) as work:
        asked = await work.run(read_request, work.store, request)

        async def search_unit(unit: str) -> Answer:
            return await work.run(_answer, work, asked.id)

        answered = await step("search unit", search_unit)(asked.parameters.unit)
        await show_search(asked.parameters.unit, str(answered.request), len(answered.result.hits))
        return answered.result


def _answer(work: Work, request: UUID) -> Answer:
    return ask_process(work.settings, request) or answer(work.store, work.core, work.crops, request)
