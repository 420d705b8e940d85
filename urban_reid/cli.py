"""The command `urban-reid`. Commands import what they need when they run: --help and status load neither torch nor
Prefect.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime

import typer

from schemas.errors import UrbanReidError
from schemas.text import one_line
from urban_reid.commands import (
    city,
    database,
    dataset,
    demo,
    evaluate,
    identities,
    ingest,
    models,
    report,
    reproduce,
    resolve,
    score,
    search,
    simulate,
    status,
    train,
    up,
)

app = typer.Typer(
    name="urban-reid",
    help="Finds the same person again across a city: camera, building, street, district.",
    epilog="All state lives in one data directory, URBAN_REID_HOME. Example: urban-reid demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, group in (
    ("db", database),
    ("city", city),
    ("ingest", ingest),
    ("dataset", dataset),
    ("models", models),
    ("identities", identities),
):
    app.add_typer(group.app, name=name)
for command in (demo, evaluate, resolve, score, search, simulate, train, reproduce, report, status, up):
    app.add_typer(command.app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 failed, 2 wrong use, 130 interrupted. An error is one line on stderr."""
    try:
        app(args=None if arguments is None else list(arguments))
    except UrbanReidError as error:
        _say(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        _say(f"error: unexpected {type(error).__name__}: {error}; {_keep_traceback()}")
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:
            # Threads may still be at work on a window; what they have not committed is rolled back, as after a kill.
            sys.stdout.flush()
            _say("interrupted; what was finished is kept")
            os._exit(130)
        raise


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(one_line(line) + "\n")
        sys.stderr.flush()


def _keep_traceback() -> str:
    """Appends the traceback to the data directory's log; where it lies, in words."""
    from schemas.settings import settings

    try:
        log = settings().home / "errors.log"
        log.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv[1:2])}\n{traceback.format_exc()}\n")
    except (OSError, UrbanReidError):
        return "its traceback could not be kept, because the data directory cannot be written"
    return f"its traceback is in {log}"


if __name__ == "__main__":
    main()
