"""The search flow: records who asks and why, and then searches."""

from typing import Self
from zoneinfo import ZoneInfo

from prefect import flow

from flows.artifacts import show_search
from flows.work import Work, unit_task, working
from pipeline.city.units import read_city
from pipeline.registry import ModelRow
from pipeline.search.request import request_search
from pipeline.search.search import search as plain_search
from schemas.parameters import SearchParameters, SearchResult
from schemas.settings import settings


@flow(name="search", flow_run_name="{parameters.unit}")
async def search(parameters: SearchParameters) -> SearchResult:
    """Searches a unit for one person, given a stored crop or an uploaded picture."""
    with working(settings()) as work:
        asked = await work.run(_Asked.first, work, parameters)

        async def search_unit(unit: str) -> SearchResult:
            return await work.run(asked.answer)

        result = await unit_task("search unit", search_unit)(parameters.unit)
        city = await work.run(read_city, work.store)
        await show_search(parameters.unit, str(asked.request), parameters.reason, result, ZoneInfo(city.timezone))
        return result


class _Asked:
    """A recorded request and its model. If another model comes into use before the answer, it is recorded again."""

    def __init__(self, work: Work, parameters: SearchParameters, model: ModelRow) -> None:
        self._work, self._parameters, self._model = work, parameters, model
        self.request = request_search(work.store, model, parameters)

    @classmethod
    def first(cls, work: Work, parameters: SearchParameters) -> Self:
        return work.with_model_in_use(lambda model: cls(work, parameters, model))

    def answer(self) -> SearchResult:
        return self._work.with_model_in_use(self._with)

    def _with(self, model: ModelRow) -> SearchResult:
        work = self._work
        if model.id != self._model.id:
            self.request, self._model = request_search(work.store, model, self._parameters), model
        return plain_search(work.store, work.core, work.crops, model, self.request, self._parameters)
