"""Searches from the console. The cores of models stay open between them, so that an answer takes a moment."""

import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import numpy as np
from numpy.typing import NDArray

from flows.answered import Answered, Answers
from flows.timing import Timing
from flows.work import Work
from pipeline.crops.crop_store import CropStore
from pipeline.crops.quality import as_png
from pipeline.registry import ModelRow, model_in_use
from pipeline.search.answer import answer
from pipeline.search.client import ask_process
from pipeline.search.people import people_in
from pipeline.search.request import check_may_search, request_search
from pipeline.store import Store
from reid_core.serving.core import ReIDCore
from schemas.errors import CoreUnavailable, InputError, StoreUnavailable, UrbanReidError
from schemas.parameters import SearchParameters, SearchResult
from schemas.settings import Settings
from urban_reid.console.forms import checked
from urban_reid.console.kept import Kept
from urban_reid.console.uploads import Uploads
from urban_reid.console.visitors import Visitor

if TYPE_CHECKING:
    from reid_core.detection import Detector

#: Hits that a page shows.
_TOP = 24
#: How long a part that is away is waited for with a search that was asked for, and how often it is tried, seconds.
_BACK_WITHIN_S, _TRIED_EVERY_S = 30.0, 0.5
#: Bytes of the pictures of people that wait to be chosen, of all visitors together, and how long they wait, seconds.
_OFFERED, _OFFERED_S = 100_000_000, 600.0


@dataclass(frozen=True)
class _Offer:
    token: str  # of the visitor who sent the picture
    group: str  # the same for all people of one picture
    picture: bytes


class Offered:
    """People found in pictures that somebody sent, until one of them is chosen. They are kept in memory alone."""

    def __init__(self, seconds: float = _OFFERED_S, most: int = _OFFERED) -> None:
        self._kept: Kept[_Offer] = Kept(seconds, most)

    def keep(self, people: Sequence[bytes], visitor: Visitor) -> list[str]:
        """A name for each, of use to this visitor alone."""
        group, names = secrets.token_urlsafe(16), [secrets.token_urlsafe(16) for _ in people]
        for name, one in zip(names, people, strict=True):
            self._kept.put(name, _Offer(visitor.token, group, one), len(one))
        return names

    def get(self, name: str, visitor: Visitor) -> bytes | None:
        """The picture of that name; None if this visitor has none."""
        kept = self._kept.get(name)
        return None if kept is None or kept.token != visitor.token else kept.picture

    def chosen(self, names: Iterable[str], visitor: Visitor) -> None:
        """Drops all people of the pictures in which these were chosen."""
        groups = {kept.group for name in names if (kept := self._kept.get(name)) is not None}
        self._kept.drop(lambda one: one.group in groups and one.token == visitor.token)

    def forget(self, token: str) -> None:
        """Drops what a visitor sent, who has left."""
        self._kept.drop(lambda one: one.token == token)


@dataclass
class Searches:
    settings: Settings
    uploads: Uploads
    offered: Offered = field(default_factory=Offered)
    answers: Answers = field(default_factory=Answers)
    _work: Work | None = None
    _detector: "Detector | None" = None
    _lock: Lock = field(default_factory=Lock)
    _detecting: Lock = field(default_factory=Lock)  # so that no search waits for a detector

    def run(
        self,
        visitor: Visitor,
        *,
        like: Sequence[str] = (),
        sent: Sequence[bytes] = (),
        uploaded: Sequence[UUID] = (),
        **asked: Any,
    ) -> tuple[SearchParameters, SearchResult]:
        """Asks for a search, and answers it.

        like: keys of stored crops of the person; sent: pictures that `people` or `whole` made, which are stored;
        uploaded: those that were stored before; asked: the other fields of SearchParameters. Returns what was asked
        with the result. Raises as `request_search`, which stores no picture then.
        """
        if not like and not sent and not uploaded and not asked.get("attributes"):
            raise InputError("choose a picture of the person first, or say what the person wears")
        asked |= {"operator": visitor.name, "top": _TOP}

        pictures = {uuid4(): one for one in sent}
        probes = [*uploaded, *pictures]
        first, more = (None, like) if probes or not like else (like[0], like[1:])
        probe = probes[0] if probes else None
        parameters = checked(SearchParameters, crop_key=first, probe_id=probe, more=more, pictures=probes[1:], **asked)
        with visitor.store.begin() as connection:
            model = model_in_use(connection)
        request, began = request_search(visitor.store, model, parameters, pictures=pictures), datetime.now(UTC)
        crops = CropStore(self.settings)
        try:
            result = self._answered(visitor, crops, request)
        except UrbanReidError as error:
            kind = type(error).__name__
            self.answers.tell(Answered(request, parameters.unit, began, datetime.now(UTC), error=kind))
            raise
        self.answers.tell(Answered(request, parameters.unit, began, datetime.now(UTC), len(result.hits)))
        return parameters, result

    def _answered(self, visitor: Visitor, crops: CropStore, request: UUID) -> SearchResult:
        """The answer to a written request. What is away for a moment is waited for: asking again would search twice."""
        until = time.monotonic() + _BACK_WITHIN_S
        while True:
            try:
                found = ask_process(visitor.store.settings, request)
                return (found or answer(visitor.store, self._core(visitor.store), crops, request)).result
            except (StoreUnavailable, CoreUnavailable):
                if time.monotonic() > until:
                    raise
                time.sleep(_TRIED_EVERY_S)

    def people(self, picture: bytes, visitor: Visitor) -> list[bytes]:
        """The people in a picture that was sent, each as PNG, from the left.

        The whole picture where nobody is found, or this home has no detector. Raises PictureError for what is no
        picture, and NotAllowed for whoever may not search.
        """
        from reid_core.detection import open_detector
        from reid_core.detection.files import default_detector

        pixels = self._decoded(picture, visitor)
        with self._detecting:
            if self._detector is None and default_detector(self.settings) is not None:
                self._detector = open_detector(self.settings)
            found = people_in(self._detector, pixels) if self._detector else []
        return found or [as_png(pixels)]

    def whole(self, picture: bytes, visitor: Visitor) -> bytes:
        """A picture that was sent, as PNG. Raises as `people`."""
        return as_png(self._decoded(picture, visitor))

    def _decoded(self, picture: bytes, visitor: Visitor) -> NDArray[np.uint8]:
        check_may_search(visitor.store)
        return self.uploads.decode(picture)

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
