"""Answers on the home's Unix socket, which only its owner may open. See `reid_core.serving.wire` for the protocol.

python -P -m reid_core.core_process.service
"""

import logging
import signal
import sys

import uvicorn

from reid_core.core_process.application import application
from reid_core.core_process.detection import Detectors
from reid_core.core_process.embedding import Embedders
from reid_core.serving import wire
from reid_core.serving.unix_socket import listening
from schemas.disk import keep_private
from schemas.errors import UrbanReidError
from schemas.logs import begin_logging
from schemas.settings import Settings, settings


def run(settings: Settings) -> None:
    """Serves this home's models until SIGINT or SIGTERM. Raises CoreError if another process does already."""
    with listening(wire.socket_path(settings), "a core process") as listener:
        embedders, detectors = Embedders(settings), Detectors(settings)
        app = application(embedders, detectors)
        config = uvicorn.Config(
            app,
            log_config=None,  # warnings go where those of this process go
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            embedders.close()
            detectors.close()


def main() -> None:
    keep_private()
    # uvicorn stops on a signal and then raises it again: the cleanup after it must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        begin_logging(settings().log, "core")
        run(settings())
    except KeyboardInterrupt:
        return
    except UrbanReidError as error:
        logging.getLogger("urban_reid.core").critical("%s", error)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
