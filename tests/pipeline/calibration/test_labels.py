"""A manifest with truth as the labeled city of a calibration."""

import json
import shutil
from pathlib import Path

from pipeline.calibration.labeled_city import labeled_city
from pipeline.calibration.labeled_pairs import tracklet_truths
from pipeline.calibration.withheld import Withheld
from schemas.settings import Settings


def test_a_manifest_s_tracks_are_the_labeled_tracklets_but_for_those_that_are_searched_for(
    settings: Settings, tmp_path: Path, city_files: Path, model_folder: Path
) -> None:
    lines = [json.loads(line) for line in (city_files / "manifest.jsonl").read_text().splitlines()[:60]]
    shutil.copy(city_files / "city.yaml", tmp_path)
    for line in lines:
        (tmp_path / line["path"]).parent.mkdir(exist_ok=True)
        shutil.copy(city_files / line["path"], tmp_path / line["path"])
    manifest = tmp_path / "ways.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = manifest.read_bytes()
    withheld = Withheld()
    labeled = labeled_city(settings, model_folder, f"manifest:{manifest}", lambda _: None, withheld)
    with labeled as (store, _, _), store.begin() as connection:
        left = list(tracklet_truths(connection).values())
    truths = {(line["camera"], line["track"]): line["truth"] for line in lines}
    assert len(left) > 3 and withheld.probes
    assert sorted([*left, *(probe.person for probe in withheld.probes)]) == sorted(truths.values())
    assert all(probe.picture for probe in withheld.probes) and manifest.read_bytes() == before
