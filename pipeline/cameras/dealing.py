"""Which host looks at which camera: one rule, from hosts, loads and who has what now.

A camera stays where it is as long as that host lives. One without a host goes, the heaviest first, to the host that is
then used least. Where two hosts differ much, cameras move from the fullest to the emptiest, few at a time.
"""

from collections.abc import Mapping

#: Share of its capacity by which a host must be fuller than another before a camera moves between them.
UNEVEN = 0.2
#: Most cameras that move for evenness at a time, as a share of all, at least one.
AT_A_TIME = 0.1


def deal(
    hosts: Mapping[str, float], loads: Mapping[str, float], now: Mapping[str, str], *, even: bool
) -> dict[str, str]:
    """The host of each camera; empty without hosts.

    hosts: looks a second that each can make, by name; those with 0 take no camera. loads: looks a second that each
    camera asks for. now: the host of each camera that has one, which may be gone. even: whether cameras may move from
    one host that lives to another. The result depends on nothing else, and in no way on the order of the mappings.
    """
    hosts = {name: looks for name, looks in sorted(hosts.items()) if looks > 0}
    if not hosts:
        return {}
    found = {camera: now[camera] for camera in sorted(loads) if now.get(camera) in hosts}
    used = dict.fromkeys(hosts, 0.0)
    for camera, host in found.items():
        used[host] += loads[camera]
    for camera in sorted(loads.keys() - found.keys(), key=lambda camera: (-loads[camera], camera)):
        found[camera] = min(hosts, key=lambda host: ((used[host] + loads[camera]) / hosts[host], host))
        used[found[camera]] += loads[camera]
    for _ in range(max(1, int(AT_A_TIME * len(loads))) if even else 0):
        if not _move_one(hosts, loads, found, used):
            break
    return found


def _move_one(
    hosts: Mapping[str, float], loads: Mapping[str, float], found: dict[str, str], used: dict[str, float]
) -> bool:
    """Moves the camera from the fullest to the emptiest host that evens them best; False if none does."""

    def share(host: str) -> float:
        return used[host] / hosts[host]

    full, empty = max(hosts, key=lambda host: (share(host), host)), min(hosts, key=lambda host: (share(host), host))
    if share(full) - share(empty) <= UNEVEN:
        return False

    def fuller(camera: str) -> float:  # of the two, after the move
        return max((used[full] - loads[camera]) / hosts[full], (used[empty] + loads[camera]) / hosts[empty])

    theirs = [camera for camera, host in found.items() if host == full and loads[camera] > 0]
    best = min(theirs, key=lambda camera: (fuller(camera), camera), default=None)
    # Worth a gap in what the camera sees: not where a heavy one would only change its place.
    if best is None or share(full) - fuller(best) < min(UNEVEN, loads[best] / hosts[full]) / 2:
        return False
    used[full], used[empty], found[best] = used[full] - loads[best], used[empty] + loads[best], empty
    return True
