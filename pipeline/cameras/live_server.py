"""What cameras see now, on a Unix socket that only the home's owner may open. See `live_client` for the protocol.

Nothing is written to disk, and nothing recognizable passes the socket: faces are removed here.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from pipeline.crops.privacy import shows_people, without_faces
from pipeline.store import Store
from reid_core.detection import Frame
from reid_core.serving.unix_socket import listening, usable
from schemas.errors import InputError, UrbanReidError


@contextmanager
def serving(store: Store, newest: Callable[[str], Frame]) -> Iterator[None]:
    """Answers in threads until the block ends. `newest` gives a camera's frame (h, w, 3) BGR, or raises InputError.

    Raises CoreError if another process serves this home's cameras, HomeError.
    """
    with listening(usable(store.settings.cameras_socket), "a cameras' process") as listener:
        listener.listen()
        config = uvicorn.Config(
            _application(store, newest),
            log_config=None,  # warnings go where those of this process go
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="live pictures", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.should_exit = True
            thread.join()


def _application(store: Store, newest: Callable[[str], Frame]) -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.exception_handler(UrbanReidError)
    async def _error(_: Request, error: UrbanReidError) -> PlainTextResponse:
        return PlainTextResponse(str(error), 404 if isinstance(error, InputError) else 503)

    @app.get("/cameras/{camera:path}")
    def _picture(camera: str) -> Response:
        frame = newest(camera)
        with store.begin() as connection:
            hides = shows_people(connection)
        done, encoded = cv2.imencode(".jpg", without_faces(frame) if hides else frame)
        assert done
        return Response(encoded.tobytes(), media_type="image/jpeg")

    return app
