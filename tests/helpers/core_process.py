"""The core process of a home, as a process of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from schemas.settings import Settings


@contextmanager
def core_process(settings: Settings, **variables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`reid_core.core_process.service`, once it answers, until the block ends."""
    environment = os.environ | {"URBAN_REID_HOME": str(settings.home)} | variables
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "reid_core.core_process.service"], env=environment, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not answers(settings):
            assert process.poll() is None and time.monotonic() < deadline, "the core process did not start"
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


def answers(settings: Settings) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(settings.core_socket)) == 0
