"""A standing search under `urban-reid up`: windows close, a hit is raised, and a receiver on loopback is told."""

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.ingest.manifest import ingest_manifest
from pipeline.registry import register_model, use_model
from pipeline.store import Store
from schemas.disk import keep_private
from schemas.settings import Settings
from tests.helpers.command_line import environment_of, program
from tests.helpers.receiver import SECRET, receiving

PATIENCE_S = 240.0


def _ending_now(rows: list[dict[str, Any]]) -> list[str]:
    """The lines of a manifest, moved in time so that the last crop is of now."""
    times = [datetime.fromisoformat(row["time"]) for row in rows]
    later = datetime.now(UTC) - timedelta(seconds=1) - max(times)
    return [json.dumps({**row, "time": (at + later).isoformat()}) for row, at in zip(rows, times, strict=True)]


@pytest.mark.system
def test_a_hit_is_raised_as_windows_close_and_the_receiver_is_told(
    home: Path, city_files: Path, model_folder: Path
) -> None:
    settings = Settings(home=home, webhook_secret=SecretStr(SECRET))
    lines = (city_files / "manifest.jsonl").read_text().splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: row["time"])
    first, rest = rows[:100], rows[100:]
    wanted = next(row for row in first if row["truth"] in {one["truth"] for one in rest})
    part = city_files / "part-standing.jsonl"
    keep_private()

    def take_in(some: list[dict[str, Any]]) -> None:
        with Store.open(settings, "pytest") as store:
            part.write_text("\n".join(_ending_now(some)) + "\n")
            ingest_manifest(store, CropStore(settings), part, synthetic=True)
        part.unlink()

    with Store.open(settings, "pytest") as store:
        store_city(store, read_city_file(city_files / "city.yaml"))
        register_model(store, settings, model_folder, "test")
        use_model(store, "test")
    take_in(first)
    with receiving() as receiver:
        variables = environment_of(settings) | {
            "URBAN_REID_WEBHOOK_URL": receiver.url,
            "URBAN_REID_WEBHOOK_SECRET": SECRET,
        }

        def run(*arguments: str) -> Any:
            done = subprocess.run(program(*arguments, "--json"), env=variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout)

        up = subprocess.Popen(program("up", "--json"), env=variables, stdout=subprocess.PIPE, text=True)
        try:
            assert up.stdout is not None and up.stdout.readline()
            run("resolve", "--unit", "d1")
            began = (datetime.now(UTC) - timedelta(seconds=600)).isoformat()
            picture = str(city_files / wanted["path"])
            asked = ("--probe", picture, "--unit", "d1", "--bar", "0.3", "--reason", "a child", "--from", began)
            standing = run("standing", "start", *asked)["standing"]
            take_in(rest)  # its windows are closed by the resolver
            assert receiver.arrived.wait(PATIENCE_S)
            shown = run("standing", "show", standing)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait()
    assert shown["hits"] == len(shown["hits_raised"]) > 0 and shown["state"] == "looks"
    message = receiver.taken[0]
    assert message.keys() == {"id", "event", "standing", "lead", "at", "address"}
    assert (message["event"], message["standing"], message["lead"]) == ("standing.hit", standing, None)  # an open home
    assert message["address"] == f"/standing/{standing}"
    assert len({one["id"] for one in receiver.taken}) == len(receiver.taken) == shown["hits"]
    assert shown["latency_s"] > 0
