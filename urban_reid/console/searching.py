"""Searches from the console. The cores of models stay open between them, so that an answer takes a moment."""

from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from flows.timing import Timing
from flows.work import Work
from pipeline.crops.crop_store import CropStore
from pipeline.registry import ModelRow, model_in_use
from pipeline.search.answer import answer
from pipeline.search.client import ask_process
from pipeline.search.request import request_search, upload_probe
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.errors import InputError
from schemas.parameters import SearchParameters, SearchResult
from schemas.settings import Settings
from urban_reid.arguments import checked
from urban_reid.console.visitors import Visitor

#: Hits that a page shows.
_TOP = 24


@dataclass
class Searches:
    settings: Settings
    _work: Work | None = None
    _lock: Lock = field(default_factory=Lock)

    def run(self, visitor: Visitor, *, unit: str, reason: str, crop: str, picture: bytes) -> SearchResult:
        """Asks for a search, and answers it. `crop`: the key of a stored crop; else `picture` is the probe.

        Raises as `request_search` and `upload_probe`.
        """
        if not crop and not picture:
            raise InputError("choose a picture of the person first")
        asked: dict[str, Any] = {"unit": unit, "reason": reason, "operator": visitor.name, "top": _TOP}
        parameters = checked(SearchParameters, crop_key=crop or "0" * 64, **asked)
        crops = CropStore(self.settings)
        if not crop:
            probe = upload_probe(visitor.store, crops, picture, visitor.name)
            parameters = checked(SearchParameters, probe_id=probe, **asked)
        with visitor.store.begin() as connection:
            model = model_in_use(connection)
        request = request_search(visitor.store, model, parameters)
        found = ask_process(visitor.store.settings, request)
        return (found or answer(visitor.store, self._core(visitor.store), crops, request)).result

    def in_use(self, visitor: Visitor) -> tuple[ModelRow, ReIDCore]:
        """The model in use and its core. Raises InputError if no model is in use."""
        with visitor.store.begin() as connection:
            model = model_in_use(connection)
        core: ReIDCore = self._core(visitor.store)(model)
        return model, core

    def _core(self, store: Store) -> Any:
        with self._lock:
            if self._work is None:
                self._work = Work(store, Timing())
            work = self._work

        def core(model: ModelRow) -> ReIDCore:
            return work.core(model)

        return core
