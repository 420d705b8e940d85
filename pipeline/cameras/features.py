"""Features ahead of time: new crops are embedded while cameras run, so that no window's resolve waits for that."""

import logging
import threading
from collections.abc import Callable, Collection

from pipeline.cameras.rows import read_feeds
from pipeline.crops.crop_store import CropStore
from pipeline.registry import model_in_use
from pipeline.resolve.embed import any_missing, embed_camera
from pipeline.store import Store
from reid_core.serving.remote import RemoteCore
from schemas.errors import InputError
from schemas.logs import in_words

EMBED_EVERY_S = 5.0

_log = logging.getLogger("urban_reid.cameras")


def embed_always(
    store: Store, ended: threading.Event, ours: Callable[[], Collection[str]] | None, spent_s: dict[str, float]
) -> None:
    """Embeds the crops of cameras with feeds in the core process, until `ended` is set.

    ours: the cameras, where other hosts have others; None: all. spent_s: what each camera took of the core, seconds,
    which is added to. Without a model in use or a core process there is nothing to do; the resolve embeds what is left.
    """
    said = ""
    while not ended.wait(EMBED_EVERY_S):
        try:
            _embed(store, ended, None if ours is None else ours(), spent_s)
        except Exception as error:  # tried again after the pause, and by the resolve, which reports it
            if str(error) != said:
                said = str(error)
                _log.warning("features: %s", in_words(error))


def _embed(store: Store, ended: threading.Event, ours: Collection[str] | None, spent_s: dict[str, float]) -> None:
    with store.begin() as connection:
        cameras = [feed.camera for feed in read_feeds(connection) if ours is None or feed.camera in ours]
        try:
            model = model_in_use(connection)
        except InputError:  # none is in use
            return
        cameras = [camera for camera in cameras if any_missing(connection, model, [camera])]
    core = RemoteCore.connect(store.settings, model.card) if cameras else None
    if core is None:
        return
    for camera in cameras:
        if not ended.is_set():
            before = core.seconds
            embed_camera(store, core, CropStore(store.settings), model, camera)
            spent_s[camera] = spent_s.get(camera, 0.0) + core.seconds - before
