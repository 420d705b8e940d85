"""Search a city for the person of one picture, from another program, through the command line.

    python examples/search_a_city.py

Every command of `urban-reid` takes `--json`: one JSON object on stdout, everything else on stderr. So any program can
use it, in any language. State lies in `URBAN_REID_HOME`, here a temporary folder.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def urban_reid(*arguments: str, home: Path) -> dict[str, Any]:
    """Runs one command and returns what it printed. Raises CalledProcessError where it failed."""
    print("urban-reid", *arguments)
    done = subprocess.run(
        [sys.executable, "-m", "urban_reid.cli", *arguments, "--json"],
        env={**os.environ, "URBAN_REID_HOME": str(home), "URBAN_REID_OPERATOR": "anna"},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


with tempfile.TemporaryDirectory(prefix="urban-reid-example-") as name:
    folder = Path(name)
    folder.chmod(0o711)  # PostgreSQL does not run as root; as root, its own user has to reach the folder
    home = folder / "home"

    # A small drawn city, resolved: two cameras, six people.
    city = urban_reid("demo", "--cameras", "2", "--people", "6", home=home)
    print(f"{city['crops']} crops of {city['levels']['district']} identities in the district")

    # The picture to search with: any file. This one is a crop of the city, so that very crop must come first.
    probe = min((home / "demo-input" / "pictures").iterdir())

    # Who asks and why is written to the audit before the search runs; there is no search without a reason.
    found = urban_reid(
        "search", "--probe", str(probe), "--unit", "d1", "--reason", "missing child, case 17", "--top", "3", home=home
    )
    # A hit's distance is to the identity's prototypes, the vectors that stand for it.
    for hit in found["hits"]:
        likely = "" if hit["probability"] is None else f", probability {hit['probability']:.2f}"
        print(f"{hit['rank']}. identity {hit['identity'][:8]}: distance {hit['distance']:.3f}{likely}")
        # The evidence: the hit's crops, nearest first, each with its lineage from the district down.
        for crop in hit["crops"][:2]:
            print(f"   {crop['camera']} {crop['time']} distance {crop['distance']:.3f}")
    assert found["hits"][0]["crops"][0]["distance"] < 1e-3
