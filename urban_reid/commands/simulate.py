"""urban-reid simulate: a city of any size as embeddings without pictures, resolved and scored against the truth."""

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
    cameras: Annotated[int, typer.Option(metavar="N", min=2, max=1_000_000, help="Number of cameras.")],
    people: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Number of people. Default: as many as give 200 tracklets a camera and day."
        ),
    ] = None,
    days: Annotated[
        float, typer.Option(metavar="D", min=1 / 24, help="Simulated days, from 06:00 of the first.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Seed of the city and its people.")] = 0,
    resolve: Annotated[bool, typer.Option("--resolve", help="Resolve and score every unit.")] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also score flat baseline methods on the same features and gates.")
    ] = False,
    processes: Annotated[int, typer.Option(metavar="N", min=1, max=256, help="Number of processes that resolve.")] = 2,
    as_json: AsJson = False,
) -> None:
    """Simulate what a city's cameras see, as features without pictures; resolve and score it.

    The city is stored in the data directory like a real one; use an empty one. It shows no real people.
    """
    from pipeline.simulation import count_tracklets, ingest_simulated, peak_memory
    from pipeline.store import Store
    from synthetic.embedding_city import EmbeddingCitySettings, embedding_city

    if baselines and not resolve:
        raise UsageError("--baselines score the tracklets that a resolve makes: give --resolve too")
    plan = EmbeddingCitySettings(cameras=cameras, people=people, days=days, seed=seed)
    with Store.open(settings(), "urban-reid simulate") as store, peak_memory(store) as peak:
        with progress("people simulated") as tell:
            ingest_simulated(store, embedding_city(plan), progress=tell)
        if resolve:
            found = _resolve(store, processes, baselines=baselines)
        else:
            found = {"tracklets": count_tracklets(store)}
    found["peak_mb"] = round(peak.mb)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _resolve(store: "Store", processes: int, *, baselines: bool) -> dict[str, Any]:
    """Resolves every unit; what --json prints of it."""
    from pipeline.accuracy.baselines import BASELINES
    from pipeline.city.decision_digest import decision_digest
    from pipeline.city.units import read_city
    from pipeline.registry import model_in_use
    from pipeline.resolve.processes import resolving
    from pipeline.simulation import database_bytes, score_city

    districts = [unit.code for unit in read_city(store).units if unit.level is Level.DISTRICT]
    with resolving(store.settings, processes) as run, stages() as tell:
        began = time.perf_counter()  # by now the processes have started
        run(districts, progress=tell)
        resolve_s = time.perf_counter() - began
    size = database_bytes(store)
    with store.begin() as connection:
        model = model_in_use(connection)
        digest = decision_digest(connection)
    score = score_city(store, model, tuple(BASELINES) if baselines else (), lambda line: say(shown(line)))
    return score.as_dict() | {"resolve_s": round(resolve_s, 1), "database_mb": round(size / 1e6), "digest": digest}


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
