"""A written request is answered: with the model in use, and once more where another came into use meanwhile."""

from dataclasses import dataclass
from uuid import UUID

from pipeline.crops.crop_store import CropStore
from pipeline.registry import model_in_use
from pipeline.search.index import Index
from pipeline.search.request import read_request, request_search
from pipeline.search.search import Cores, search
from pipeline.store import Store
from schemas.errors import ModelChanged
from schemas.parameters import SearchResult


@dataclass(frozen=True)
class Answer:
    request: UUID  # that was answered: written again, if it was asked for when another model was in use
    result: SearchResult


def answer(store: Store, cores: Cores, crops: CropStore, request: UUID, index: Index | None = None) -> Answer:
    """Answers a request that was asked for. Raises InputError if there is none, or if it was answered.

    A look of a standing search is asked for with the model in use: raises ModelChanged where it no longer is.
    """
    asked = read_request(store, request)
    while True:
        with store.begin() as connection:
            model = model_in_use(connection)
        if model.id != asked.model_id and asked.is_look:
            raise ModelChanged("another model came into use; the look of the standing search is asked for again")
        if model.id != asked.model_id:
            asked = read_request(store, request_search(store, model, asked.parameters, asked.id))
        try:
            return Answer(asked.id, search(store, cores, crops, model, asked.id, asked.parameters, index))
        except ModelChanged:
            continue
