"""Asks the cameras' process of a home what a camera sees now.

    GET /cameras/CODE       200: a JPEG; 404: there is none, and why, as a line of text

Whoever shows it asks before whether its visitor may see it, and writes the row of the audit.
"""

from urllib.parse import quote

from reid_core.serving.unix_socket import ask_if_up
from schemas.errors import CoreUnavailable, InputError
from schemas.settings import Settings

_WITHIN_S = 10.0


def read_live(settings: Settings, camera: str) -> bytes | None:
    """A JPEG of what the camera saw last, without faces where pictures show people; None where no process runs.

    Raises InputError where nothing looks at the camera or it has shown nothing yet, CoreUnavailable.
    """
    try:
        answered = ask_if_up(settings.cameras_socket, "GET", f"/cameras/{quote(camera)}", _WITHIN_S)
    except ConnectionError as reason:
        raise CoreUnavailable(f"the cameras' process does not answer ({reason}); try again") from None
    if answered is None:
        return None
    status, body = answered
    if status == 404:
        raise InputError(body.decode())
    if status != 200:
        raise CoreUnavailable(f"the cameras' process gave no picture ({body.decode()[:200]}); try again")
    return body
