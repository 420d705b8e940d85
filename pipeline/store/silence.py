"""When the other side of a connection counts as gone, though nobody has closed it.

A machine that loses its power, or a network that drops packets, says nothing. Linux finds that out after a quarter of
an hour where something was sent, and after two hours where nothing was; so long a program would wait for an answer, and
the server would keep the locks of a program that is gone. Here both ask each other, and give up after `SILENCE_S`.
"""

from collections.abc import Mapping

#: Longest silence on a connection, seconds. A server that computes is not silent: its kernel answers.
SILENCE_S = 25
_IDLE_S, _EVERY_S = 10, 5
_TIMES = (SILENCE_S - _IDLE_S) // _EVERY_S

#: For a session of the server. Through a Unix socket it means nothing.
FOR_SERVER = (
    f"SET tcp_keepalives_idle = {_IDLE_S}; SET tcp_keepalives_interval = {_EVERY_S}; "
    f"SET tcp_keepalives_count = {_TIMES}; SET tcp_user_timeout = '{SILENCE_S}s'"
)


def for_client(named: Mapping[str, str]) -> dict[str, int]:
    """libpq's parameters; what the address names itself stays."""
    asked = {
        "connect_timeout": 10,
        "keepalives_idle": _IDLE_S,
        "keepalives_interval": _EVERY_S,
        "keepalives_count": _TIMES,
        "tcp_user_timeout": 1000 * SILENCE_S,
    }
    return {name: value for name, value in asked.items() if name not in named}
