"""Asks the cameras' process of a home what a camera sees now.

    GET /cameras/CODE       200: a JPEG; 404: there is none, and why, as a line of text

Whoever shows it asks before whether its visitor may see it, and writes the row of the audit.
"""

import http.client
from urllib.parse import quote

from reid_core.serving.unix_socket import UnixConnection
from schemas.errors import CoreUnavailable, InputError
from schemas.settings import Settings

_WITHIN_S = 10.0


def read_live(settings: Settings, camera: str) -> bytes | None:
    """A JPEG of what the camera saw last, without faces where pictures show people; None where no process runs.

    Raises InputError where nothing looks at the camera or it has shown nothing yet, CoreUnavailable.
    """
    connection = UnixConnection("cameras", str(settings.cameras_socket), _WITHIN_S)
    try:
        try:
            connection.connect()
        except OSError:  # none, or left by a process that was killed
            return None
        connection.request("GET", f"/cameras/{quote(camera)}")
        answered = connection.getresponse()
        body = answered.read()
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise CoreUnavailable(f"the cameras' process does not answer ({reason}); try again") from None
    finally:
        connection.close()
    if answered.status == 404:
        raise InputError(body.decode())
    if answered.status != 200:
        raise CoreUnavailable(f"the cameras' process gave no picture ({body.decode()[:200]}); try again")
    return body
