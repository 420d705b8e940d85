"""A small rendered city with hostile names of units and people, resolved, with a report."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.report import write_report
from pipeline.store import Store
from pipeline.store.embedded import EmbeddedServer
from tests.helpers.homes import fresh_settings
from tests.helpers.reported import HOSTILE, LINES, Reported, blind_cameras, give_context_frames
from tests.helpers.town import Town


@pytest.fixture(scope="session")
def hostile_files(city_files: Path) -> Iterator[Path]:
    """The city's files with hostile names of units and hostile truths."""
    folder = Path(tempfile.mkdtemp(prefix="urban-reid-test-hostile-"))
    shutil.copytree(city_files, folder, dirs_exist_ok=True)
    city = (folder / "city.yaml").read_text().splitlines()
    for i, number in enumerate(number for number, line in enumerate(city) if '"name"' in line):
        unit = json.loads(city[number].strip().removeprefix("- "))
        city[number] = "  - " + json.dumps(unit | {"name": HOSTILE[i % len(HOSTILE)]}, ensure_ascii=False)
    (folder / "city.yaml").write_text("\n".join(city) + "\n")
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    labeled = [json.dumps(line | {"truth": f"<b onclick=alert()>{line['truth']}</b>"}) for line in manifest]
    (folder / "manifest.jsonl").write_text("\n".join(labeled) + "\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def reported(
    server: EmbeddedServer, hostile_files: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reported]:
    """The hostile city, resolved, with a report. Tests only read it."""
    with fresh_settings(server) as settings:
        named = settings.model_copy(update={"operator": "<i>operator</i>\n"})
        with Store.open(named, "pytest") as store:
            town = Town(store, hostile_files, model_folder)
            town.take_in((hostile_files / "manifest.jsonl").read_text().splitlines()[:LINES])
            town.resolve()
            blind_cameras(store)
            give_context_frames(store)
            out = tmp_path_factory.mktemp("reported") / "report"
            write_report(store, town.crops, "d1", out)
            yield Reported(town, out)
