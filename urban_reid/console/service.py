"""The console as a process of `urban-reid up`: `python -P -m urban_reid.console.service`."""

import logging
import signal
import sys

from schemas.disk import keep_private
from schemas.errors import UrbanReidError
from schemas.logs import begin_logging
from schemas.settings import settings
from urban_reid.console.listening import PORT, serve


def main() -> None:
    keep_private()
    # uvicorn stops on a signal and then raises it again: the cleanup after it must still run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        begin_logging(settings().log, "console")
        serve(settings(), settings().console_port or PORT, lambda _: None, is_recorded=True)
    except KeyboardInterrupt:
        return
    except UrbanReidError as error:
        logging.getLogger("urban_reid.console").critical("%s", error)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
