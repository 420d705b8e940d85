"""A case in a governed city: from a request to a match that two people confirmed, its evidence, and its erasure.

    python examples/case.py

Six people work on it, each under an account of their own. No one of them can do it alone: who asks does not approve,
and neither of the two confirms. The rules are the database's; docs/guides/cases.md explains them. Everything lies in a
temporary folder.
"""

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

TYPED = "correct horse battery staple"  # at each account's sign-in; the accounts end with this program


def run(*arguments: str, home: Path, say: str = "") -> "subprocess.CompletedProcess[str]":
    """Runs one command with `say` on its stdin."""
    return subprocess.run(
        [sys.executable, "-m", "urban_reid.cli", *arguments, "--json"],
        env={**os.environ, "URBAN_REID_HOME": str(home)},
        input=say,
        capture_output=True,
        text=True,
    )


def urban_reid(*arguments: str, home: Path, say: str = "") -> dict[str, Any]:
    """Runs one command and returns what it printed."""
    done = run(*arguments, home=home, say=say)
    if done.returncode:
        sys.exit(f"urban-reid {' '.join(arguments)}: {done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(*arguments: str, home: Path) -> None:
    """Runs one command that has to be refused, and prints why."""
    done = run(*arguments, home=home)
    assert done.returncode != 0, arguments
    print(f"  refused: {json.loads(done.stderr.splitlines()[-1])['message']}")


with tempfile.TemporaryDirectory(prefix="urban-reid-example-") as name:
    folder = Path(name)
    folder.chmod(0o711)  # PostgreSQL does not run as root; as root, its own user has to reach the folder
    home = folder / "home"

    def act(person: str, *under: str) -> None:
        """Signs somebody in."""
        urban_reid("login", person, *under, home=home, say=TYPED + "\n")
        print(person)

    # A small drawn city. Then a few crops come in as those of real cameras do, and the home is governed for good.
    urban_reid("demo", "--cameras", "2", "--people", "6", home=home)
    source = (home / "demo-input").rename(folder / "source")  # what was drawn is no copy of the city's
    manifest = (source / "manifest.jsonl").read_text().splitlines()
    (source / "more.jsonl").write_text("\n".join(manifest[:3]) + "\n")
    urban_reid("ingest", "manifest", str(source / "more.jsonl"), home=home)
    probe = min((source / "pictures").iterdir())
    search = ("search", "--probe", str(probe), "--unit", "d1", "--reason", "a child is missed", "--top", "3")
    refused(*search, home=home)

    # The people. Whoever runs the program makes the first account, an administrator's; she makes the others.
    urban_reid("accounts", "add", "ada", "--role", "administrator", home=home, say=TYPED + "\n")
    act("ada")
    roles = {"anna": "operator", "ben": "supervisor", "cleo": "operator", "dora": "operator", "otto": "auditor"}
    for person, role in roles.items():
        urban_reid("accounts", "add", person, "--role", role, home=home, say=TYPED + "\n")
    why = ("--reason", "the council's decision 3")
    urban_reid("purposes", "add", "missing-person", "a person who is missed", *why, home=home)
    urban_reid("purposes", "assessment", "DPIA 2026/7", *why, home=home)

    # anna asks, within bounds; she cannot approve it herself.
    act("anna")
    times = sorted(datetime.fromisoformat(json.loads(line)["time"]) for line in manifest)
    start, end, week = times[0], times[-1] + timedelta(seconds=1), datetime.now(UTC) + timedelta(days=7)
    period = ("--from", start.isoformat(), "--to", end.isoformat(), "--expires", week.isoformat())
    what = ("--purpose", "missing-person", "--legal-basis", "police act, section 12", "--sought", "a child, red coat")
    urban_reid("cases", "open", "case 17", "--reason", "reported by the parents", home=home)
    asked = urban_reid("cases", "ask", "case 17", *what, "--unit", "d1", *period, home=home)["authorization"]
    refused("cases", "approve", asked, "--reason", "mine", "--yes", home=home)

    # ben sees what it would open, and approves it.
    act("ben")
    (waiting,) = urban_reid("cases", "pending", home=home)["pending"]
    print(f"  it would open {waiting['opens']}")
    urban_reid("cases", "approve", asked, "--reason", "in proportion to the danger", "--yes", home=home)

    # anna searches under the authorization. Hits are leads, and she cannot confirm them.
    act("anna", "--authorization", asked)
    found = urban_reid(*search, home=home)
    print(f"  {len(found['hits'])} hits, each a {found['meaning']}; {found['covered']['cameras']} cameras covered")
    lead = found["hits"][0]["lead"]
    urban_reid("leads", "show", lead, "--out", str(folder / "anna"), home=home)
    refused("leads", "answer", lead, "--same", "--reason", "I found it", home=home)

    # cleo and dora look at two pictures, without score, and say what they see.
    for person in ("cleo", "dora"):
        act(person, "--authorization", asked)
        urban_reid("leads", "show", lead, "--out", str(folder / person), home=home)
        answer = urban_reid("leads", "answer", lead, "--same", "--reason", "coat, bag and gait", home=home)
        print(f"  the lead is {answer['verdict']}")

    # What the match rests on, signed, and verified without the city.
    out = folder / "evidence"
    done = urban_reid("evidence", "export", "--match", lead, "--out", str(out), "--reason", "order 12", home=home)
    verified = urban_reid("evidence", "verify", str(out), "--key", done["key"], home=folder / "elsewhere")
    print(f"  {done['files']} files of evidence, {len(verified['faults'])} faults")
    changed = out / "match.json"
    changed.write_text(changed.read_text().replace("cleo", "anna"))
    done_again = run("evidence", "verify", str(out), home=folder / "elsewhere")
    assert done_again.returncode == 1 and "match.json: it was changed" in done_again.stdout

    # Later on the person asks to be erased: the case with the picture that was searched with, then everything else,
    # from evidence and looks too. What was decided keeps its hashes.
    act("ada")
    why = ("--reason", "request 12 under GDPR Art. 17")
    urban_reid("erase", "--case", "case 17", *why, home=home)
    erased = urban_reid("erase", "--identity", found["hits"][0]["identity"], *why, home=home)
    absent = urban_reid("erase", "--verify", erased["erasure"], home=home)
    print(f"  {erased['counts']['crops']} crops erased, {absent['names']} names searched for, found {absent['found']}")
    assert not list((out / "pictures").iterdir())
    print(f"  the audit: {urban_reid('audit', 'verify', home=home)}")

    # otto sees each step, and no picture.
    act("otto")
    for row in urban_reid("audit", "show", home=home)["rows"][-12:]:
        print(f"  {row['at'][:19]} {row['actor']:10} {row['action']:16} {row['reason'] or ''}")
