"""Tracklets that a labeled city does not get to see: the probes of labeled searches."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np

from pipeline.crops.quality import decode
from pipeline.ingest.dataset import DatasetFile
from reid_core.preprocessing import prepare
from reid_core.serving.core import ReIDCore, compared_features
from schemas.arrays import Floats
from schemas.crops import ManifestLine
from schemas.times import parse_time, to_us
from synthetic.embedding_city import PassageBatch


@dataclass(frozen=True)
class Probe:
    """One crop of a withheld tracklet."""

    person: str  # as in the truth of the city's crops
    camera: str
    span_us: tuple[int, int] | None  # first and last crop of the tracklet, microseconds UTC; None: times unknown
    there: bool  # whether other tracklets of the person were left in the city
    feature: Floats | None  # (D,) raw, where features come with the crops
    picture: bytes | None  # encoded; where they do not

    @property
    def district(self) -> str:
        return self.camera.split("/")[0]


@dataclass
class Withheld:
    """Withholds one tracklet of every person who has several, and all tracklets of a share of the people.

    Which ones follows from the people's names, so the same source gives the same city and probes.
    """

    absent_share: float = 0.0
    probes: list[Probe] = field(default_factory=list)

    def chosen(self, person: str, tracklets: Sequence[str]) -> tuple[set[str], str | None]:
        """The tracklets of a person that are withheld, and the one that gives the probe; names in any order."""
        ordered = sorted(tracklets)
        draw = int.from_bytes(sha256(f"withheld {person}".encode()).digest()[:8], "big")
        one = ordered[draw % len(ordered)]
        if (draw >> 32) / 2**32 < self.absent_share:
            return set(ordered), one
        return ({one}, one) if len(ordered) > 1 else (set(), None)

    def from_manifest(self, manifest: Path) -> None:
        """Takes the withheld tracklets out of a manifest with truth and tracks, whose pictures lie beside it."""
        lines = [(ManifestLine.model_validate_json(line), line) for line in manifest.read_text("utf-8").splitlines()]
        tracklets: dict[str, dict[str, list[ManifestLine]]] = defaultdict(lambda: defaultdict(list))
        for line, _ in lines:
            if line.truth:
                tracklets[line.truth][f"{line.camera} {line.track}"].append(line)
        out: set[tuple[str, str]] = set()
        for person, of_person in sorted(tracklets.items()):
            names, one = self.chosen(person, list(of_person))
            out |= {(person, name) for name in names}
            if one is not None:
                crops = of_person[one]
                picture = (manifest.parent / crops[0].path).read_bytes()
                times = [to_us(parse_time(crop.time)) for crop in crops]
                there = len(names) < len(of_person)
                self.probes.append(Probe(person, crops[0].camera, (min(times), max(times)), there, None, picture))
        left = [text for line, text in lines if (line.truth, f"{line.camera} {line.track}") not in out]
        manifest.write_text("".join(f"{text}\n" for text in left), encoding="utf-8")

    def from_files(self, files: Sequence[DatasetFile], cameras: Mapping[str, str]) -> list[DatasetFile]:
        """The files without the withheld ones. A person's pictures at one camera are a tracklet.

        cameras: the unit code of each of the data set's cameras.
        """
        tracklets: dict[int, dict[str, DatasetFile]] = defaultdict(dict)
        for file in files:
            if file.person > 0:
                tracklets[file.person].setdefault(file.camera, file)
        out: set[tuple[int, str]] = set()
        for person, of_person in sorted(tracklets.items()):
            names, one = self.chosen(str(person), list(of_person))
            out |= {(person, name) for name in names}
            if one is not None:
                there = len(names) < len(of_person)
                file = of_person[one]
                self.probes.append(Probe(str(person), cameras[file.camera], None, there, None, file.path.read_bytes()))
        return [file for file in files if (file.person, file.camera) not in out]

    def from_batch(self, batch: PassageBatch, cameras: Sequence[str], people: str) -> PassageBatch:
        """The batch without the withheld tracklets. All of a person must lie in it. people: prefix of their names."""
        kept = np.ones(len(batch), dtype=bool)
        order = np.argsort(batch.person, kind="stable")
        persons, begin = np.unique(batch.person[order], return_index=True)
        for number, rows in zip(persons.tolist(), np.split(order, begin[1:]), strict=True):
            person, tracks = f"{people}{number}", batch.track[rows]
            names, one = self.chosen(person, sorted({str(track) for track in tracks.tolist()}))
            kept[rows] = ~np.isin(tracks, [int(name) for name in names])
            if one is not None:
                of_one = rows[tracks == int(one)]
                feature = batch.features[of_one[0]].astype(np.float16).astype(np.float64)
                times, camera = batch.time_us[of_one], cameras[int(batch.camera[of_one[0]])]
                span_us = int(times.min()), int(times.max())
                self.probes.append(Probe(person, camera, span_us, bool(kept[rows].any()), feature, None))
        return PassageBatch(**{name: column[kept] for name, column in vars(batch).items()})

    def features(self, core: ReIDCore) -> Floats:
        """(p, D) Features of the probes as the core compares them, from raw ones rounded as stored ones are."""
        raw = [probe.feature if probe.feature is not None else _embed(core, probe) for probe in self.probes]
        cameras = [probe.camera for probe in self.probes]
        return compared_features(core, np.array(raw).reshape(-1, core.card.raw_dims), cameras)


def _embed(core: ReIDCore, probe: Probe) -> Floats:
    assert probe.picture is not None, "a probe has a feature or a picture"
    prepared = prepare(decode(probe.picture), core.card.input)
    feature: Floats = core.embed(prepared[None])[0].astype(np.float16).astype(np.float64)
    return feature
