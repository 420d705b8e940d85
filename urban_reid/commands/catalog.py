"""urban-reid models catalog, urban-reid models get: published models, and how they come here."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE

from schemas.errors import UsageError
from schemas.settings import settings
from urban_reid.arguments import AsJson
from urban_reid.output import Table, out, print_json, shown
from urban_reid.progress import stages

if TYPE_CHECKING:
    from collections.abc import Callable

    from reid_core.catalog import CatalogModel, Release
    from urban_reid.progress import Tell

app = typer.Typer()

#: What was done with one model, for --json.
Done = dict[str, Any]


@app.command(epilog="Example: urban-reid models catalog person-reidentification-retail-0286")
def catalog(
    name: Annotated[str | None, typer.Argument(help="Show one model, with its licenses, files and hashes.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the published models that `models get` brings here, or show one of them."""
    from reid_core.catalog import catalog as read_catalog
    from reid_core.catalog import find_model

    models = read_catalog() if name is None else (find_model(name),)
    if as_json:
        print_json({"models": [model.model_dump(mode="json", exclude_none=True) for model in models]})
        return
    if name is not None:
        _show(models[0])
        return
    table = Table("name", "MB", "license", "measured", box=SIMPLE, padding=(0, 1))
    table.columns[0].no_wrap = True
    task = None
    for model in models:
        size = _megabytes(model.releases[0])
        first = f"{model.measured[0].figures} on {model.measured[0].on}" if model.measured else ""
        if model.task != task:
            table.add_row(f"[bold]for {model.task}[/bold]")
            task = model.task
        table.add_row(f"  {model.name}", size, model.license_code, first)
    out().print(table)
    out().print(
        "license: of the code and the file; `urban-reid models catalog NAME` shows that of the training data and who "
        "measured. Without MB: its publisher states no whole hash, and `models get` asks for one."
    )


def _show(model: "CatalogModel") -> None:
    table = Table("", "", show_header=False, box=None, padding=(0, 1))
    table.add_row("name", model.name)
    table.add_row("for", model.task)
    table.add_row("from", model.publisher)
    table.add_row("license", f"{model.license_code}; training data: {model.license_data}")
    if model.input is not None:
        channels = f"{model.input.color}, 0..{model.input.range}, mean {model.input.mean}, std {model.input.std}"
        table.add_row("input", f"{model.input.height}x{model.input.width}, {channels}")
    if model.dims is not None:
        table.add_row("feature", f"{model.dims} dims")
    if model.gflops is not None:
        table.add_row("compute", f"{model.gflops:g} GFLOPs a picture")
    for found in model.measured:
        table.add_row("measured", f"{found.figures} on {found.on}, by {found.by}")
    if model.note:
        table.add_row("note", model.note)
    for release in model.releases:
        for file in release.files:
            algorithm, digest = file.hash or ("no whole hash", file.sha256_begins or "")
            table.add_row(release.name or "file", f"{file.address} {algorithm} {digest}")
    out().print(table)


def _megabytes(release: "Release") -> str:
    sizes = [file.bytes for file in release.files]
    return f"{sum(size or 0 for size in sizes) / 1e6:.1f}" if all(sizes) else ""


@app.command(
    epilog="Example: urban-reid models get person-detection-retail-0013 person-reidentification-retail-0286 --from DIR"
)
def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `urban-reid models catalog` lists them.")],
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DIR|URL", help="A folder or mirror that holds NAME/FILE; else the publisher's address."
        ),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="The hash that you trust, of a file whose publisher states none.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring published models here, each file with the hash that the catalog states.

    A model for re-identification is registered, and put in use where none is. A detector becomes this data directory's
    default, also where it is here already. A model for attributes is used by resolves from now on. A download that was
    cut goes on. Proxies: HTTPS_PROXY and NO_PROXY.
    """
    from reid_core.catalog import find_model

    models = [find_model(name) for name in dict.fromkeys(names)]
    if sha256 is not None and len(models) > 1:
        raise UsageError("--sha256 is the hash of one model's file; get one model at a time with it")
    done = []
    with stages() as tell:
        for model in models:
            done.append(_KEEP[model.task](model, source, sha256, tell, as_json))
    if as_json:
        print_json({"models": done})


def _register(model: "CatalogModel", source: str | None, sha256: str | None, tell: "Tell", quiet: bool) -> Done:
    from pipeline.registry import models, register_model, use_first_model
    from pipeline.store import Store
    from reid_core.catalog import is_obtained, obtain

    with Store.open(settings(), "urban-reid models get") as store:
        registered = {row.name for row in models(store)}
        here = model.name in registered and is_obtained(settings().models_dir / model.name, model)
        if not here:
            with obtain(settings(), model, source, sha256, tell) as obtained:
                register_model(store, settings(), obtained.files[0], model.name, model.input)
        used = use_first_model(store, model.name)
    if not quiet:
        what = "is here already" if here else "is registered"
        if used.name == model.name:
            out().print(f"{model.name} {what}, and is the model in use")
        else:
            out().print(f"{model.name} {what}; {shown(used.name)} is in use")
    return {"name": model.name, "fetched": not here, "in_use": used.name == model.name}


def _keep_detector(model: "CatalogModel", source: str | None, sha256: str | None, tell: "Tell", quiet: bool) -> Done:
    from reid_core.catalog import is_obtained, obtain
    from reid_core.detection.files import keep_detector, make_default

    here = sha256 is None and is_obtained(settings().detectors_dir / model.name, model)
    if not here:
        with obtain(settings(), model, source, sha256, tell) as obtained:
            keep_detector(settings(), model.name, obtained.files)
    make_default(settings(), model.name)
    if not quiet:
        out().print(f"{model.name} {'is here already' if here else 'is here'}, and is the default detector")
    return {"name": model.name, "fetched": not here, "default": True}


def _keep_attributes(model: "CatalogModel", source: str | None, sha256: str | None, tell: "Tell", quiet: bool) -> Done:
    from reid_core.attributes import OPENABLE
    from reid_core.catalog import is_obtained, keep_files, obtain

    if model.name not in OPENABLE:
        raise UsageError(f"{model.name}: its outputs are not known here; {', '.join(OPENABLE)} can be opened")
    place = settings().attributes_dir / model.name
    here = is_obtained(place, model)
    if not here:
        with obtain(settings(), model, source, sha256, tell) as obtained:
            keep_files(place, obtained.files)
    if not quiet:
        out().print(f"{model.name} {'is here already' if here else 'is here'}; resolves use it from now on")
    return {"name": model.name, "fetched": not here}


def _refuse(model: "CatalogModel", *_: object) -> Done:
    raise UsageError(f"{model.name}: nothing here uses models for {model.task} yet")


_KEEP: "dict[str, Callable[..., Done]]" = {
    "re-identification": _register,
    "detection": _keep_detector,
    "attributes": _keep_attributes,
    "faces": _refuse,
}
