"""Looks up the locked packages in the advisories of the Python Package Index: `make audit`.

pip-audit is fetched for the run. Where it, or the advisories, cannot be had, the audit says that it was skipped.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).parent.parent / "requirements.lock"


def main() -> int:
    """1 if a locked package has a known fault, else 0."""
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "tool", "run", "--quiet", "pip-audit", "--format=json", "--progress-spinner=off", "--disable-pip"]
    done = subprocess.run([*command, "--no-deps", f"--requirement={LOCK}"], capture_output=True, text=True)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        sys.stdout.write(f"audit skipped: pip-audit or the advisories cannot be had here: {said[:300]}\n")
        return 0
    faults, looked_at = report(packages)
    sys.stdout.write("".join(f"{line}\n" for line in faults))
    if not looked_at:
        sys.stdout.write("audit skipped: the registry used here has no advisories\n")
        return 0
    sys.stdout.write(f"{len(faults)} known faults in {looked_at} of {len(packages)} packages that could be looked up\n")
    return 1 if faults else 0


def report(packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """A line for each known fault, and how many packages could be looked up, of pip-audit's list of packages."""
    known = [package for package in packages if "vulns" in package]
    lines = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in {', '.join(fault['fix_versions']) or 'none'}"
        for package in known
        for fault in package["vulns"]
    ]
    return lines, len(known)


if __name__ == "__main__":
    sys.exit(main())
