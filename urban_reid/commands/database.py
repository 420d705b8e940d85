"""urban-reid db: the city's database."""

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import out, print_json, shown

app = typer.Typer(help="The city's database: its state, its migrations, its address.", no_args_is_help=True)


@app.command(epilog="Example: urban-reid db upgrade")
def upgrade(as_json: AsJson = False) -> None:
    """Bring the database to this program's revision; the embedded one is created and started if needed."""
    from pipeline.store import upgrade as bring_up

    before, after = bring_up(settings())
    if as_json:
        print_json({"before": before, "after": after})
    elif before == after:
        out().print(f"the database is at revision {shown(after)} already")
    else:
        out().print(f"the database went from revision {shown(before or 'none')} to {shown(after)}")


@app.command(epilog="Example: urban-reid db status --json")
def status(as_json: AsJson = False) -> None:
    """Show where the database is, whether it runs, and its revision. Starts nothing."""
    from pipeline.store import embedded, revision
    from pipeline.store.schema import head, whereabouts

    ours = settings()
    running = ours.database_url is not None or embedded.running(ours.home)
    found = revision(ours)[0] if running else None
    where, _ = whereabouts(ours)
    if as_json:
        print_json({"where": where, "running": running, "revision": found, "newest": head()})
        return
    out().print(shown(where))
    if not running:
        out().print("it is not running; the next command that needs it starts it")
    else:
        out().print(f"it is running, at revision {shown(found or 'none')}; this program needs {shown(head())}")


@app.command(epilog="Example: urban-reid db stop")
def stop(as_json: AsJson = False) -> None:
    """Stop the embedded database, unless it is in use. It stops by itself when the last command ends."""
    from pipeline.store import stop as end

    stopped = end(settings())
    if as_json:
        print_json({"stopped": stopped})
    else:
        out().print("the database is stopped" if stopped else "the database was not running")


@app.command(epilog="Example: urban-reid db reset-passwords")
def reset_passwords(as_json: AsJson = False) -> None:
    """Give the embedded database new passwords, if one of the files that hold them is lost or damaged."""
    from pipeline.store import reset_passwords as reset

    reset(settings())
    if as_json:
        print_json({"reset": True})
    else:
        out().print("the database has new passwords")


@app.command(epilog="Example: urban-reid db url   (while `urban-reid up` keeps it running)")
def url(as_json: AsJson = False) -> None:
    """Print the database's address for other programs, with its password."""
    from pipeline.store import url as address

    found = address(settings())
    if as_json:
        print_json({"url": found})
    else:
        out().print(shown(found), soft_wrap=True)
