"""The search flow: who asks and why is written before anything is looked at; then the hits."""

from prefect import flow

from flows.artifacts import show_search
from flows.work import unit_task, working
from pipeline.search import request_search
from pipeline.search import search as plain_search
from schemas.parameters import SearchHit, SearchParameters
from schemas.settings import settings


@flow(name="search", flow_run_name="{parameters.unit}")
async def search(parameters: SearchParameters) -> tuple[SearchHit, ...]:
    """Searches a unit for one person, from a stored crop or an uploaded picture."""
    with working(settings()) as work:
        # No task, and no second try: one request is one row.
        request = await work.run(request_search, work.store, work.model, parameters)

        async def search_unit(unit: str) -> tuple[SearchHit, ...]:
            return await work.run(plain_search, work.store, work.core, work.crops, work.model, request, parameters)

        hits = await unit_task("search unit", search_unit)(parameters.unit)
        await show_search(parameters.unit, str(request), parameters.reason, hits)
        return hits
