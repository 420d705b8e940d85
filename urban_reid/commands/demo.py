"""urban-reid demo: renders a city, resolves it and scores the result against the truth."""

import json
import os
import shlex
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.disk import write_whole
from schemas.errors import HomeError, InputError
from schemas.levels import UPWARD, Level
from schemas.parameters import ResolveParameters
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.commands.report import report_on
from urban_reid.output import Table, out, print_json, say, shown
from urban_reid.progress import progress, stages

if TYPE_CHECKING:
    from pipeline.registry import ModelRow
    from pipeline.store import Store

app = typer.Typer()

MODEL = "demo"


@dataclass(frozen=True)
class Plan:
    """What is rendered; equal plans give equal cities, people and pictures."""

    cameras: int
    people: int
    seed: int


@app.command(epilog="Example: urban-reid demo --seed 4 --out demo-report")
def demo(
    cameras: Annotated[int, typer.Option(metavar="N", min=2, max=64, help="Cameras of the city.")] = 8,
    people: Annotated[int, typer.Option(metavar="N", min=1, max=500, help="People who walk through it.")] = 45,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Seed of the city and its people.")] = 1,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder of report and assignments; HOME/report unless given."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Render a small city, take in its crops, resolve it and score the result against the truth."""
    from flows.server import PrefectServer
    from pipeline.report.folder import open_folder
    from pipeline.store import Store
    from urban_reid import running

    ours = settings()
    folder = (out_dir or ours.home / "report").absolute()
    plan = Plan(cameras, people, seed)
    with Store.open(ours, "urban-reid demo") as store:
        _refuse_another_city(store, plan)
        open_folder(folder)  # raises now rather than after the work
        with PrefectServer(ours):  # starts while the city is rendered
            manifest = _render(plan)
            model = _prepare(store, manifest)
            began = time.perf_counter()
            with stages() as tell:
                timed = running.resolve(
                    ours, ResolveParameters(unit="d1"), tell, lambda line: say(shown(line)), since=began
                )
        found = _results(store, model, folder) | {"seconds": {k: round(s, 3) for k, s in timed.seconds.items()}}
    if as_json:
        print_json(found)
    else:
        _show(found)


def _refuse_another_city(store: "Store", plan: Plan) -> None:
    """Raises HomeError unless the home is empty or holds the same demo."""
    from pipeline.city.units import find_city

    marker = _input_folder() / "plan.json"
    remedy = "set URBAN_REID_HOME to an empty folder"
    if marker.exists():
        found = marker.read_text(errors="replace").strip()
        if found != json.dumps(asdict(plan)):
            raise HomeError(
                f"{settings().home} holds another demo, {found[:200] or 'with an empty plan.json'}; {remedy}"
            )
    elif find_city(store) is not None:
        raise HomeError(f"{settings().home} holds a city that is not the demo's: {remedy}")


def _render(plan: Plan) -> Path:
    """Renders the city unless that was done, and returns its manifest."""
    from synthetic.rendered_city import simulate_city, write_city

    folder = _input_folder()
    manifest = folder / "manifest.jsonl"
    whole = folder / "whole"
    if not whole.exists():
        _make(folder)
        write_whole(folder / "plan.json", json.dumps(asdict(plan)) + "\n")
        with progress("pictures rendered") as tell:
            write_city(simulate_city(plan.seed, plan.cameras, plan.people), folder, tell)
        whole.touch()
    return manifest


def _prepare(store: "Store", manifest: Path) -> "ModelRow":
    """Takes in city, model and crops as a user would, and returns the model in use."""
    import reid_core
    from pipeline.city.units import read_city_file, store_city
    from pipeline.crops.crop_store import CropStore
    from pipeline.ingest.manifest import ingest_manifest
    from pipeline.registry import models, register_model, use_model

    store_city(store, read_city_file(manifest.with_name("city.yaml")), is_demo=True)
    if MODEL not in {row.name for row in models(store)}:
        register_model(store, settings(), Path(reid_core.__file__).parent / "weights" / MODEL, MODEL)
    model = next((row for row in models(store) if row.in_use), None) or use_model(store, MODEL)
    with progress("crops taken in") as tell:
        ingest_manifest(store, CropStore(settings()), manifest, tell, synthetic=True)
    return model


def _results(store: "Store", model: "ModelRow", folder: Path) -> dict[str, Any]:
    from pipeline.accuracy.labeled import labeled_tracklets
    from pipeline.accuracy.scorecard import agreement_by_level
    from pipeline.city.status import status

    labeled = labeled_tracklets(store, "d1", model.id)
    # The baseline's thresholds were chosen on other cities, as ours were; the model's card holds them.
    scores = agreement_by_level(labeled, model.card.details.get("nearest_neighbor_distance", {}))
    index = report_on(store, "d1", folder)
    return status(store) | {
        **{
            measure: {level: row[measure] for level, row in scores.items() if measure in row}
            for measure in ("pairwise_f1", "idf1", "nearest_neighbor_f1")
        },
        "report": str(index),
        "assignments": str(index.with_name("assignments.jsonl")),
    }


def _show(found: dict[str, Any]) -> None:
    table = Table("level", "identities", "pairwise F1", "nearest neighbor's F1", "IDF1")
    for level in reversed(UPWARD):
        measures = ("pairwise_f1", "nearest_neighbor_f1", "idf1")
        table.add_row(
            "tracklets of cameras" if level is Level.CAMERA else level.value,
            str(found["levels"][level]),
            *(f"{found[measure][level]:.3f}" if level in found[measure] else "" for measure in measures),
        )
    out().print(table)
    out().print(f"{found['crops']} crops, {found['decisions']} decisions in {found['runs']} runs")
    out().print("resolve: " + ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in found["seconds"].items()))
    out().print(f"decision digest {found['digest']}", soft_wrap=True)
    out().print(f"report          {shown(found['report'])}", soft_wrap=True)
    out().print(f"assignments     {shown(found['assignments'])}", soft_wrap=True)
    home = shlex.quote(str(settings().home))
    command = shown(_as_called())
    out().print(f"look at it      URBAN_REID_HOME={shown(home)} {command} console", soft_wrap=True)
    say(f"to go on: export URBAN_REID_HOME={shown(home)}, then {command} search, up")


def _as_called() -> str:
    """How a shell here finds the program: `make demo` calls it in an environment that is not active."""
    by_path = os.access(sys.argv[0], os.X_OK) and shutil.which("urban-reid") is None
    return shlex.quote(sys.argv[0]) if by_path else "urban-reid"


def _input_folder() -> Path:
    return settings().home / "demo-input"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}") from None
