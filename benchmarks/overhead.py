"""Cost of orchestration: the time of a resolve under `urban-reid up`, less the core, less the database.

    python -m benchmarks.overhead [--model resnet50|demo] [--people 38] [--rounds 3]

Simulates a city of 8 cameras (about 2,000 crops), then ingests and resolves it once a round, each in a data directory
of its own. The ResNet-50 has random weights at 256x128: as fast as a trained one, but its decisions mean nothing.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.home import home

PROGRAM = [sys.executable, "-P", "-m", "urban_reid.cli"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["resnet50", "demo"], default="resnet50")
    parser.add_argument("--people", type=int, default=38)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with home() as folder:
        city, model = folder / "city", folder / "model"
        render(city, arguments.people)
        make_model(arguments.model, model)
        print(f"{'round':>5} {'crops':>6} {'total':>7} {'core':>7} {'database':>9} {'rest':>6} {'share':>6}   seconds")
        for number in range(1, arguments.rounds + 1):
            crops, seconds = one_round(folder / f"home{number}", city, model)
            rest = seconds["total"] - seconds["core"] - seconds["database"]
            print(
                f"{number:>5} {crops:>6} {seconds['total']:>7.2f} {seconds['core']:>7.2f} {seconds['database']:>9.2f} "
                f"{rest:>6.2f} {rest / seconds['total']:>6.1%}   {json.dumps(seconds)}",
                flush=True,
            )


def render(city: Path, people: int) -> None:
    from synthetic.rendered_city import simulate_city, write_city

    write_city(simulate_city(1, cameras=8, people=people), city)


def make_model(kind: str, folder: Path) -> None:
    import torch

    import reid_core
    from reid_core.files import read_card, save_model
    from reid_core.models import build_model
    from schemas.cards import DiffAttentionSettings, ModelConfig

    demo = reid_core.DEMO_MODEL
    if kind == "demo":
        shutil.copytree(demo, folder)
        return
    torch.manual_seed(0)
    network = build_model(ModelConfig(architecture="resnet50", diff_attention=DiffAttentionSettings()))
    save_model(network, folder, name="resnet50", calibration=read_card(demo).calibration)


def one_round(home: Path, city: Path, model: Path) -> tuple[int, dict[str, float]]:
    """Number of crops, and the seconds of the resolve, in a fresh data directory under `urban-reid up`."""
    environment = {**os.environ, "URBAN_REID_HOME": str(home)}

    def run(*arguments: str) -> dict[str, object]:
        done = subprocess.run([*PROGRAM, *arguments, "--json"], env=environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"urban-reid {' '.join(arguments)}: {done.stderr}")
        found: dict[str, object] = json.loads(done.stdout)
        return found

    run("city", "load", str(city / "city.yaml"))
    run("models", "register", "benchmark", str(model))
    run("models", "use", "benchmark")
    ingested = run("ingest", "manifest", str(city / "manifest.jsonl"))
    up = subprocess.Popen([*PROGRAM, "up"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        while not (home / "prefect" / "serving").exists() or not (home / "core.sock").exists():
            if up.poll() is not None:
                assert up.stderr is not None
                sys.exit(f"urban-reid up: {up.stderr.read().decode()}")
            time.sleep(0.2)
        time.sleep(3)  # until its start-up work has ended
        seconds = run("resolve", "--unit", "d1")["seconds"]
    finally:
        up.send_signal(signal.SIGINT)
        up.wait()
    assert isinstance(seconds, dict)
    return int(str(ingested["written"])), seconds


if __name__ == "__main__":
    main()
