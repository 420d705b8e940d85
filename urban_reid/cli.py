"""The command `urban-reid`. Commands import what they need when they run: --help and status load neither torch nor
Prefect.
"""

import io
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Annotated

import typer

from schemas.disk import keep_private
from schemas.errors import UrbanReidError, UsageError
from schemas.settings import unknown_variables
from urban_reid.commands import (
    accounts,
    audit,
    cameras,
    cases,
    city,
    console,
    core,
    database,
    dataset,
    demo,
    doctor,
    erase,
    evaluate,
    evidence,
    identities,
    ingest,
    keys,
    leads,
    login,
    models,
    pictures,
    purposes,
    report,
    reproduce,
    resolve,
    retention,
    review,
    score,
    search,
    search_several,
    simulate,
    standing,
    status,
    subject,
    tokens,
    train,
    up,
    webhook,
    worker,
)
from urban_reid.errors import keep_traceback, refused_path, report_error
from urban_reid.output import say, shown
from urban_reid.permissions import command_name, guard

#: The program's help, panel by panel: a group of commands under its name, or a command of its own.
PANELS: dict[str, dict[str, ModuleType]] = {
    "Start here": {"demo": demo, "status": status, "doctor": doctor},
    "Cameras and crops": {"cameras": cameras, "city": city, "ingest": ingest},
    "Resolve and look": {
        "resolve": resolve,
        "search": search,
        "search-several": search_several,
        "report": report,
        "identities": identities,
        "review": review,
        "pictures": pictures,
        "score": score,
    },
    "Cases": {"cases": cases, "standing": standing, "leads": leads, "evidence": evidence, "purposes": purposes},
    "Models": {"models": models},
    "Training and figures": {
        "train": train,
        "evaluate": evaluate,
        "reproduce": reproduce,
        "dataset": dataset,
        "simulate": simulate,
    },
    "People": {
        "login": login,
        "logout": login,
        "whoami": login,
        "accounts": accounts,
        "tokens": tokens,
        "audit": audit,
        "subject": subject,
        "erase": erase,
        "retention": retention,
    },
    "Service": {
        "up": up,
        "worker": worker,
        "console": console,
        "core": core,
        "webhook": webhook,
        "db": database,
        "keys": keys,
    },
}
_GROUPS = (
    accounts,
    audit,
    cameras,
    cases,
    city,
    database,
    dataset,
    evidence,
    identities,
    ingest,
    keys,
    leads,
    models,
    pictures,
    purposes,
    retention,
    review,
    standing,
    tokens,
)

app = typer.Typer(
    name="urban-reid",
    epilog="All state is kept in one data directory, URBAN_REID_HOME. Example: urban-reid demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, commands in PANELS.items():
    for name, module in commands.items():
        if module in _GROUPS:
            app.add_typer(module.app, name=name, rich_help_panel=panel)
        else:
            (command,) = (one for one in module.app.registered_commands if command_name(one) == name)
            command.rich_help_panel = panel
            if module.app not in (group.typer_instance for group in app.registered_groups):
                app.add_typer(module.app)
guard(app)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        sys.stdout.write(f"urban-reid {version('urban-reid')}\n")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find the same person again across the cameras of a city: camera, building, street, district."""
    for line in unknown_variables():
        say(f"warning: {shown(line)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and exits: 0 done, 1 failed, 2 wrong use, 130 interrupted.

    An error is one line on stderr; with --json, one JSON object {error: its kind, message}.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in words
    _open_closed_streams()
    keep_private()
    try:
        code = app(args=words, prog_name="urban-reid", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UrbanReidError as error:
        report_error(type(error).__name__, str(error), as_json)
        sys.exit(error.exit_code)
    except typer.TyperException as error:
        # Without arguments a group prints its help, and has nothing else to say.
        if said := error.format_message().replace("Value error, ", ""):
            report_error("UsageError", f"{said.rstrip('.')}; see `{_help_of(error)}`", as_json)
        sys.exit(error.exit_code)
    except typer.Abort:  # Ctrl-D at a prompt
        report_error("UsageError", "the input ended before all was answered; nothing was changed", as_json)
        sys.exit(UsageError.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and (known := refused_path(error, words)) is not None:
            report_error(type(known).__name__, str(known), as_json)
            sys.exit(known.exit_code)
        kind = type(error).__name__
        report_error(kind, f"unexpected {kind}: {error}; {keep_traceback()}", as_json)
        sys.exit(1)
    if code == 130:
        # Threads may still be at work on a window; what they have not committed is rolled back, as after a kill.
        report_error("Interrupted", "interrupted; what was finished is kept", as_json)
        os._exit(130)
    sys.exit(code)


def _open_closed_streams() -> None:
    """Opens /dev/null for standard streams that are closed, so that no file of ours gets their numbers.

    Text that a stream's encoding lacks is written with backslashes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _help_of(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'urban-reid'} --help"


if __name__ == "__main__":
    main()
