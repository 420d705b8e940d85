"""A city resolved on several hosts while one of them dies or the network is cut, and how long until all is well again.

    python -m benchmarks.recovery [--cut 60] [--only FAULT ...]

Hosts are network namespaces of this machine, so it needs root. Two hosts resolve a rendered district against a
database, a Prefect server and an object store on hosts of their own. Each fault comes in the middle of a resolve of the
same crops in a database of its own. Prints, for each: what users of the workers are told; seconds from the end of the
fault (of a host that stays dead: from its death) until all that still run have ended; rows that were lost and rows that
are there twice, compared with an undisturbed resolve; and whether the decision digest equals that one's.
"""

import argparse
import sys
import time

from tests.helpers.city_on_hosts import FAULTS, CityOnHosts, Recovery, State
from tests.helpers.hosts import why_not


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cut", type=float, default=60.0, metavar="S", help="length of a cut, seconds")
    parser.add_argument("--only", nargs="+", choices=[fault.__name__ for fault in FAULTS])
    arguments = parser.parse_args()
    if (reason := why_not()) is not None:
        sys.exit(reason)
    began = time.monotonic()
    with CityOnHosts() as whole:
        rows = sum(whole.undisturbed.rows.values())
        print(f"undisturbed: {whole.undisturbed_s:.0f} s, {rows} rows, digest {whole.undisturbed.digest[:12]}\n")
        print("| fault | what users see | seconds to recover | rows lost | rows twice | digest |")
        print("|---|---|---|---|---|---|", flush=True)
        for fault in FAULTS:
            if arguments.only is None or fault.__name__ in arguments.only:
                print(_row(fault(whole, arguments.cut), whole.undisturbed), flush=True)
    print(f"\n{time.monotonic() - began:.0f} s in all")


def _row(found: Recovery, undisturbed: State) -> str:
    more = {name: found.state.rows[name] - count for name, count in undisturbed.rows.items()}
    lost, twice = -sum(min(0, count) for count in more.values()), sum(max(0, count) for count in more.values())
    same = "equal" if found.state.digest == undisturbed.digest else "DIFFERS"
    seen = "; ".join(found.seen) or "nothing"
    return f"| {found.fault} | {seen} | {found.seconds:.0f} | {lost} | {twice} | {same} |"


if __name__ == "__main__":
    main()
