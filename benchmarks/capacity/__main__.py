"""What a city of any number of cameras needs, and what it costs.

    python -m benchmarks.capacity measure --data DIR --models DIR [--sizes 20,40,80,160,320] [--out FILE]
    python -m benchmarks.capacity show [--cameras 2500] [--measured FILE] [--load FILE] [--prices FILE] [--json]
    python -m benchmarks.capacity page

`measure` measures this machine, which should do nothing else, in some ten minutes, and writes the figures to
`benchmarks/capacity/measured.json`. --data: the folder with vtest.avi and people-detection.264; --models: the folder
with those of the two models of `benchmarks.cameras`, whose streams need GStreamer's RTSP server. `show` prints the
tables. What is assumed, the city's load, machines, a card and prices, lies in `load.json` and `prices.json` beside the
figures; --load and --prices name others, and --device takes a card's figures from the output of `benchmarks.device`.
`page` makes the tables and the picture of `docs/scale.md` anew from the stored figures.
"""

import argparse
import dataclasses
import json
from pathlib import Path

from benchmarks.capacity.figures import LOAD, MEASURED, PRICES, Gpu, Load, Measured, Prices, read
from benchmarks.capacity.needs import Model
from benchmarks.capacity.tables import SIZES, filled, tables

ROOT = Path(__file__).resolve().parents[2]
PAGE, PICTURE = ROOT / "docs" / "scale.md", ROOT / "docs" / "images" / "scale.svg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    measuring = commands.add_parser("measure")
    measuring.add_argument("--data", type=Path, required=True)
    measuring.add_argument("--models", type=Path, required=True)
    measuring.add_argument("--sizes", type=numbers, default="20,40,80,160,320", help="cameras of cities of an hour")
    measuring.add_argument("--day", type=int, default=50, help="cameras of a city of a day")
    measuring.add_argument("--seconds", type=float, default=30.0, help="that streams are looked at")
    measuring.add_argument("--runs", type=int, default=60, help="of Prefect")
    measuring.add_argument("--prototypes", type=numbers, default="50000,100000,200000", help="of searches")
    measuring.add_argument("--out", type=Path, default=MEASURED)
    showing = commands.add_parser("show")
    showing.add_argument("--cameras", type=numbers, default=list(SIZES), help="sizes of the city, with --json")
    showing.add_argument("--json", action="store_true", help="what each size needs")
    for command in (showing, commands.add_parser("page")):
        command.add_argument("--measured", type=Path, default=MEASURED)
        command.add_argument("--load", type=Path, default=LOAD)
        command.add_argument("--prices", type=Path, default=PRICES)
        command.add_argument("--device", type=Path, help="a card's figures, written by benchmarks.device")
    given = parser.parse_args()
    if given.command == "measure":
        from benchmarks.capacity.measure import measure

        options = {name: getattr(given, name) for name in ("sizes", "day", "seconds", "runs", "prototypes")}
        found = measure(given.data, given.models, **options)
        given.out.write_text(found.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return
    model = opened(given.measured, given.load, given.prices, given.device)
    if given.command == "page":
        from benchmarks.capacity.picture import draw

        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), tables(model)), encoding="utf-8")
        draw(model, PICTURE)
    elif given.json:
        print(json.dumps([dataclasses.asdict(model.needs(size)) for size in given.cameras], indent=2))
    else:
        print("\n\n".join(tables(model).values()))


def opened(measured: Path = MEASURED, load: Path = LOAD, prices: Path = PRICES, device: Path | None = None) -> Model:
    """Raises pydantic's ValidationError for a file with a wrong or missing field."""
    assumed = read(Load, load)
    if device is not None:
        card = Gpu.model_validate(json.loads(device.read_text(encoding="utf-8"))["card"])
        assumed = assumed.model_copy(update={"gpu": card})
    return Model(read(Measured, measured), assumed, read(Prices, prices))


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
