"""What the audit of the locked packages says."""

from typing import Any

from scripts.audit import report


def test_faults_are_told_and_packages_without_advisories_do_not_count() -> None:
    fault: dict[str, Any] = {"id": "PYSEC-2026-1", "fix_versions": ["2.0"], "description": ""}
    packages: list[dict[str, Any]] = [
        {"name": "a", "version": "1.0", "vulns": [fault, fault | {"id": "PYSEC-2026-2", "fix_versions": []}]},
        {"name": "b", "version": "1.0", "vulns": []},
        {"name": "c", "skip_reason": "not found"},
    ]
    assert report(packages) == (["a 1.0: PYSEC-2026-1, mended in 2.0", "a 1.0: PYSEC-2026-2, mended in none"], 2)
    assert report(packages[2:]) == ([], 0)
