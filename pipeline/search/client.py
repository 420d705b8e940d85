"""Asks the search process of a home for the answer to a written request. Importing this module loads no torch.

    POST /requests/ID       answers it; header x-session: the token of whoever is signed in, where somebody is

An answer is {"request", "result"}, an error {"error": a class of schemas.errors, "message": its fact, "do": as there}.
"""

import json
from pathlib import Path
from uuid import UUID

from pydantic import BaseModel

from pipeline.search.answer import Answer
from pipeline.store.session_file import session_token
from reid_core.serving.unix_socket import ask_if_up, usable
from schemas import errors
from schemas.errors import CoreUnavailable, UrbanReidError
from schemas.parameters import SearchResult
from schemas.settings import Settings

SESSION = "x-session"
#: Seconds that an answer may take: a large unit is read into memory at its first search.
WITHIN_S = 600.0


class AnswerMessage(BaseModel):
    """An `Answer` as it passes the socket."""

    request: UUID
    result: SearchResult


def socket_path(settings: Settings) -> Path:
    """Raises HomeError if its path is too long for a socket."""
    return usable(settings.search_socket)


def ask_process(settings: Settings, request: UUID) -> Answer | None:
    """The search process's answer to the request; None where none runs.

    Raises what answering raised there, and CoreUnavailable if the process ends meanwhile.
    """
    path = socket_path(settings)
    token = session_token(settings)
    headers = {SESSION: token} if token else {}
    try:
        answered = ask_if_up(path, "POST", f"/requests/{request}", WITHIN_S, headers)
    except ConnectionError as reason:
        raise CoreUnavailable(f"{path}: the search process does not answer ({reason}); try again") from None
    if answered is None:
        return None
    status, body = answered
    if status != 200:
        raise stated_error(status, body)
    message = AnswerMessage.model_validate_json(body)
    return Answer(message.request, message.result)


def stated_error(status: int, body: bytes) -> UrbanReidError:
    """The error that an answer states."""
    try:
        said = json.loads(body)
        kind = getattr(errors, said["error"])
        if issubclass(kind, UrbanReidError):
            found: UrbanReidError = kind(said["message"], do=said["do"])
            return found
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    return CoreUnavailable(f"the search process failed with status {status}; see its log and try again")
