"""urban-reid simulate: an embedding-level city of any size, resolved and scored against the truth."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import UsageError
from schemas.levels import UPWARD, Level
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import Table, out, print_json, say, shown
from urban_reid.progress import progress, stages

if TYPE_CHECKING:
    from pipeline.store import Store

app = typer.Typer()


@app.command(epilog="Example: urban-reid simulate --cameras 100 --resolve --baselines --json")
def simulate(
    cameras: Annotated[int, typer.Option(metavar="N", min=2, max=1_000_000, help="Cameras of the city.")],
    people: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="People; unless given, 200 tracklets a camera and day come about."),
    ] = None,
    days: Annotated[
        float, typer.Option(metavar="D", min=1 / 24, help="Simulated days, from 06:00 of the first.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Another seed, another city and other people.")] = 0,
    resolve: Annotated[bool, typer.Option("--resolve", help="Resolve every unit, and score it.")] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Score flat methods on the same features and gates beside it.")
    ] = False,
    processes: Annotated[
        int, typer.Option(metavar="N", min=1, max=256, help="Processes that resolve side by side.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Simulate what a city's cameras would see, as features without pictures; resolve and score it.

    The city goes into the data directory like a real one, so give it an empty one. Nothing in it shows anybody.
    """
    from pipeline.simulation import peak_memory, take_in
    from pipeline.store import Store
    from synthetic.embedding_city import EmbeddingCitySettings, embedding_city

    if baselines and not resolve:
        raise UsageError("--baselines group the tracklets that a resolve makes: give --resolve too")
    plan = EmbeddingCitySettings(cameras=cameras, people=people, days=days, seed=seed)
    with Store.open(settings(), "urban-reid simulate") as store, peak_memory(store) as peak:
        with progress("people simulated") as tell:
            take_in(store, embedding_city(plan), progress=tell)
        found = _resolve(store, processes, baselines=baselines) if resolve else _counted(store)
    found["peak_mb"] = round(peak.mb)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _counted(store: "Store") -> dict[str, Any]:
    from sqlalchemy import text

    with store.begin() as connection:
        tracklets = connection.scalar(text("SELECT count(DISTINCT (camera, track)) FROM crop"))
    return {"tracklets": tracklets}


def _resolve(store: "Store", processes: int, *, baselines: bool) -> dict[str, Any]:
    from sqlalchemy import text

    from pipeline.accuracy.baselines import BASELINES
    from pipeline.city.decision_digest import decision_digest
    from pipeline.city.units import read_city
    from pipeline.registry import model_in_use
    from pipeline.resolve.processes import resolving
    from pipeline.simulation import score_city

    districts = [unit.code for unit in read_city(store).units if unit.level is Level.DISTRICT]
    with resolving(store.settings, processes) as run, stages() as tell:
        began = time.perf_counter()  # the processes have started
        run(districts, progress=tell)
        resolve_s = time.perf_counter() - began
    with store.begin() as connection:
        model = model_in_use(connection)
        size = connection.scalar(text("SELECT pg_database_size(current_database())")) or 0
        digest = decision_digest(connection)
    scored = score_city(store, model, tuple(BASELINES) if baselines else (), lambda line: say(shown(line)))
    return scored.said() | {"resolve_s": round(resolve_s, 1), "database_mb": round(size / 1e6), "digest": digest}


def _show(found: dict[str, Any]) -> None:
    out().print(f"{found['tracklets']} tracklets, at most {found['peak_mb']} MB of memory")
    if "resolve_s" not in found:
        return
    table = Table("IDF1 / pairwise F1", *(level.value for level in UPWARD[1:]))
    for name, row in {"urban-reid": found, **found["baselines"]}.items():
        figures = (f"{row['idf1'][level.value]:.3f} / {row['pairwise_f1'][level.value]:.3f}" for level in UPWARD[1:])
        table.add_row(name.replace("_", " "), *figures)
    out().print(table)
    out().print(
        f"resolved in {found['resolve_s']} s; database {found['database_mb']} MB; violations {found['violations']}"
    )
    out().print(f"decision digest {found['digest']}", soft_wrap=True)
