"""The search flow: runs a search that was asked for. Who asks, for whom and why stands in the request alone."""

from uuid import UUID

from prefect import flow

from flows.artifacts import show_search
from flows.failures import confidential
from flows.work import Work, step, working
from pipeline.registry import ModelRow
from pipeline.search.request import Request, read_request, request_search
from pipeline.search.search import search as plain_search
from schemas.parameters import RequestParameters, SearchResult
from schemas.settings import settings


@flow(name="search", validate_parameters=False)
@confidential
async def search(parameters: RequestParameters) -> SearchResult:
    """Runs a search that `urban-reid search` has written down."""
    request = RequestParameters.model_validate(parameters).request
    with working(settings()) as work:
        asked = _Asked(work, await work.run(read_request, work.store, request))

        async def search_unit(unit: str) -> SearchResult:
            return await work.run(asked.answer)

        result = await step("search unit", search_unit)(asked.unit)
        await show_search(asked.unit, str(asked.request), len(result.hits))
        return result


class _Asked:
    """A request and its model. If another model comes into use before the answer, it is written again, with that."""

    def __init__(self, work: Work, request: Request) -> None:
        self._work, self._parameters, self._model = work, request.parameters, request.model_id
        self.request: UUID = request.id

    @property
    def unit(self) -> str:
        return self._parameters.unit

    def answer(self) -> SearchResult:
        return self._work.with_model_in_use(self._with)

    def _with(self, model: ModelRow) -> SearchResult:
        work = self._work
        if model.id != self._model:
            self.request = request_search(work.store, model, self._parameters, self.request)
            self._parameters, self._model = read_request(work.store, self.request).parameters, model.id
        return plain_search(work.store, work.core, work.crops, model, self.request, self._parameters)
