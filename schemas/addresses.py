"""Addresses of the network: which of them stay within a house, and HOST:PORT."""

import re
from ipaddress import ip_address, ip_network

#: Loopback, and what RFC 1918 and RFC 4193 keep out of the internet.
_PRIVATE = [
    ip_network(one) for one in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]
_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})")


def is_private(host: str) -> bool:
    """Whether a numeric address is of loopback or a private network; a name is not."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in _PRIVATE)


def host_and_port(text: str) -> tuple[str, int] | None:
    """Host and port of HOST:PORT or [HOST]:PORT, the port 0 to 65,535; None for another text."""
    found = _HOST_AND_PORT.fullmatch(text)
    if found is None or int(found[3]) > 65_535:
        return None
    return found[1] or found[2], int(found[3])
