"""What `urban-reid up` tells a service manager such as systemd (see sd_notify(3)): one datagram a message."""

import os
import socket
from contextlib import suppress


def tell_manager(message: str) -> None:
    """Sends lines such as READY=1, STOPPING=1 or WATCHDOG=1; nothing where no service manager started this process."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        manager.setblocking(False)
        # @ stands for the NUL byte of an address that is in no file system.
        manager.sendto(message.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
