"""A city on several hosts while one of them dies or the network is cut, and how long until all is well again.

    python -m benchmarks.recovery [--cut 60] [--only FAULT ...]

Hosts are network namespaces of this machine, so it needs root. Two hosts resolve a rendered district against a
database, a Prefect server and an object store on hosts of their own. Each fault comes in the middle of a resolve of the
same crops in a database of its own. Prints, for each: what users of the workers are told; seconds from the end of the
fault (of a host that stays dead: from its death) until all that still run have ended; rows that were lost and rows that
are there twice, compared with an undisturbed resolve; and whether the decision digest equals that one's.

Then callers on one host embed with a core on a Ray cluster of three others, of which one dies or is cut off. Prints how
many calls were answered, how many with other features than a core gives in the callers' own process, what those were
told that failed, and the longest call.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.home import home
from tests.helpers import city_on_hosts, ray_hosts
from tests.helpers.city_on_hosts import CityOnHosts, Recovery, State
from tests.helpers.hosts import Network, why_not
from tests.helpers.ray_hosts import Calls, RayHosts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=float, default=60.0, metavar="S", help="length of a cut, seconds")
    every = [fault.__name__ for fault in (*city_on_hosts.FAULTS, *ray_hosts.FAULTS)]
    parser.add_argument("--only", nargs="+", choices=every, default=every)
    arguments = parser.parse_args()
    if (reason := why_not()) is not None:
        sys.exit(reason)

    def chosen(faults: Sequence[Callable[..., Any]]) -> list[Callable[..., Any]]:
        return [fault for fault in faults if fault.__name__ in arguments.only]

    began = time.monotonic()
    if of_city := chosen(city_on_hosts.FAULTS):
        with CityOnHosts() as whole:
            rows = sum(whole.undisturbed.rows.values())
            print(f"undisturbed: {whole.undisturbed_s:.0f} s, {rows} rows, digest {whole.undisturbed.digest[:12]}\n")
            print("| fault | what users see | seconds to recover | rows lost | rows twice | digest |")
            print("|---|---|---|---|---|---|", flush=True)
            for fault in of_city:
                print(_row(fault(whole, arguments.cut), whole.undisturbed), flush=True)
    if of_core := chosen(ray_hosts.FAULTS):
        with home() as folder, Network() as network:
            cluster = RayHosts(network, folder)
            print("\n| fault | calls answered | other features | calls failed | longest call, s |")
            print("|---|---|---|---|---|", flush=True)
            for fault in of_core:
                print(_calls(fault(cluster, arguments.cut)), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all")


def _row(found: Recovery, undisturbed: State) -> str:
    more = {name: found.state.rows[name] - count for name, count in undisturbed.rows.items()}
    lost, twice = -sum(min(0, count) for count in more.values()), sum(max(0, count) for count in more.values())
    same = "equal" if found.state.digest == undisturbed.digest else "DIFFERS"
    seen = "; ".join(found.seen) or "nothing"
    return f"| {found.fault} | {seen} | {found.seconds:.0f} | {lost} | {twice} | {same} |"


def _calls(found: Calls) -> str:
    failed = "; ".join(found.failed) or "none"
    return f"| {found.fault} | {found.answered} | {found.wrong} | {failed} | {found.longest_s:.0f} |"


if __name__ == "__main__":
    main()
