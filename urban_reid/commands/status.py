"""urban-reid status: the current state of the city."""

from collections import Counter
from datetime import UTC, datetime

import typer

from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.commands.camera_health import colored
from urban_reid.output import Table, out, print_json, shown, warn_if_open

app = typer.Typer()


@app.command(epilog="Example: urban-reid status --json")
def status(as_json: AsJson = False) -> None:
    """Count crops, identities by level, decisions and runs; say how cameras fare; and print the decision digest."""
    from pipeline.calibration.drift import drifts
    from pipeline.calibration.unlabeled.outcome import newest_outcomes
    from pipeline.calibration.unlabeled.versions import before_first_mark
    from pipeline.cameras.overview import overview
    from pipeline.city.lag import Lag
    from pipeline.city.status import status as read
    from pipeline.registry import models
    from pipeline.resolve.calibrations import current_calibrations
    from pipeline.spaces.overview import borrowed_means
    from pipeline.store import Store

    with Store.open(settings(), "urban-reid status") as store:
        found = read(store)
        with store.begin() as connection:
            model = next((row for row in models(store) if row.in_use), None)
            calibrations = {} if model is None else current_calibrations(connection, model.id)
            drifted = {} if model is None else drifts(connection, calibrations, model.id)
            learned = {} if model is None else newest_outcomes(connection, model.id)
            short = {} if model is None else before_first_mark(store, connection, model)
            cameras = overview(connection, datetime.now(UTC))
        borrowed = {} if model is None else borrowed_means(store, model)
    found["drifted"] = [level.value for level, drift in drifted.items() if drift.drifted]
    found["cameras"] = dict(Counter(camera.state for camera in cameras))
    found["camera_hosts"] = dict(Counter(camera.host for camera in cameras if camera.host is not None))
    found["learned"] = {unit: outcome.model_dump(mode="json") for unit, outcome in learned.items()}
    found["not_yet_learned"] = short
    found["borrowed_means"] = borrowed
    warn_if_open(settings())
    if as_json:
        print_json(found)
        return
    if found["drifted"]:
        out().print(
            f"The data have drifted from the calibration at {', '.join(found['drifted'])} level: probabilities may be "
            "wrong, and the false-merge rate of the calibration does not hold. Run `urban-reid models calibrate` on "
            "labeled data of this place."
        )
    table = Table("level", "identities", title=f"{found['crops']} crops", title_justify="left")
    for level, count in found["levels"].items():
        table.add_row("tracklets of cameras" if level == "camera" else level, str(count))
    out().print(table)
    out().print(f"decisions {found['decisions']}, runs {found['runs']}, units to resolve {found['pending']}")
    if found["lag"]["people"]:
        out().print(Lag(**found["lag"]).in_words)
    for unit, outcome in learned.items():
        for line in outcome.lines(unit):
            out().print(shown(line))
    for unit, why in short.items():
        out().print(f"{unit}: {shown(why)}", soft_wrap=True)
    if found["withdrawn"]:
        out().print(f"{found['withdrawn']} crops withdrawn by `urban-reid ingest undo`")
    if found["gone"]:
        out().print(f"[yellow]pictures of {found['gone']} crops are gone[/yellow]; what comes back takes part again")
    if found["context_frames"]:
        out().print(f"{found['context_frames']} context frames, each kept for {settings().context_days} days")
    if cameras:
        counts = ", ".join(f"{count} {colored(state)}" for state, count in sorted(found["cameras"].items()))
        out().print(f"cameras: {counts}" + ("; `urban-reid cameras list`" if found["cameras"].keys() - {"up"} else ""))
    if found["camera_hosts"]:
        hosts = ", ".join(f"{count} on {host}" for host, count in sorted(found["camera_hosts"].items()))
        out().print(f"cameras by host: {hosts}")
    if (replica := found["replica"]) is not None:
        said = f"not read: {replica['reason']}" if replica["reason"] else f"read, after {replica['waited_s']:.3f} s"
        behind = f", {replica['behind_bytes']} bytes behind" if replica["behind_bytes"] else ""
        out().print(f"replica {shown(said)}{behind}", soft_wrap=True)
    out().print(f"model {shown(found['model'] or 'none in use')}")
    if borrowed:
        taken = ", ".join(f"{camera} (of {unit or 'all'})" for camera, unit in list(borrowed.items())[:5])
        more = f", and {len(borrowed) - 5} more" if len(borrowed) > 5 else ""
        out().print(f"cameras that take the mean of a unit above: {taken}{more}; `urban-reid models normalize` learns")
    out().print(f"decision digest {found['digest']}", soft_wrap=True)
