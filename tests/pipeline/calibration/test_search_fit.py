"""The calibration of searches on made-up distances: probabilities hold on other searches; what is withheld."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.calibration.search_fit import MIN_SEARCHES, LabeledSearch, fit_search, judge_searches
from pipeline.calibration.withheld import Withheld
from pipeline.search.transit import Transit
from schemas.calibration import SearchCalibration
from schemas.levels import Level
from synthetic.embedding_city import PassageBatch


def searches(count: int, seed: int, identities: int = 400, shift: float = 0.0) -> list[LabeledSearch]:
    """Strangers around 1.2, the person's one or two identities nearer; every probe with a blur of its own."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        blur, own = rng.uniform(0.7, 1.3), 1 + int(rng.random() < 0.3)
        vectors = rng.integers(1, 6, identities)
        distance = 1.2 + shift + 0.1 * blur * (rng.normal(0, 1, identities) - 0.3 * np.log(vectors))
        distance[:own] = 1.2 + shift + 0.1 * blur * rng.normal(-4, 1.2, own)
        same = np.arange(identities) < own
        found.append(
            LabeledSearch(
                distance=np.clip(distance, 0.01, 2),
                exact=np.ones(identities, dtype=bool),
                vectors=vectors,
                same=same,
                holds=same,
                transit=Transit.unknown(identities),
                district=f"d{number % 2}",
            )
        )
    return found


@pytest.fixture(scope="module")
def fitted() -> SearchCalibration:
    calibration = fit_search(Level.DISTRICT, searches(400, 1), "made up")
    assert calibration is not None
    return calibration


def test_probabilities_hold_on_other_searches_in_a_larger_city_and_in_another_place(fitted: SearchCalibration) -> None:
    for fresh in (searches(400, 2), searches(300, 3, identities=3000), searches(300, 4, shift=-0.3)):
        judged = judge_searches([(fitted, fresh)])
        assert judged.hits.shortlist.ece < 0.02
        assert judged.hits.middle.ece < 0.09 and judged.not_here.ece < 0.12  # noise of bins of 20 is about 0.08


def test_what_it_learned_is_what_was_put_in(fitted: SearchCalibration) -> None:
    assert fitted.identities == pytest.approx(1.3, abs=0.1) and fitted.searches == 400
    assert fitted.center == pytest.approx(1.17, abs=0.02) and fitted.spread == pytest.approx(0.1, rel=0.1)
    assert fitted.vectors > 0  # an identity with more prototypes is nearer by chance
    assert fitted.reliability is not None and fitted.reliability.hits.shortlist.ece < 0.02


def test_few_searches_fit_nothing() -> None:
    assert fit_search(Level.DISTRICT, searches(MIN_SEARCHES - 1, 5), "made up") is None


def test_withheld_tracklets_leave_the_manifest_and_give_probes(tmp_path: Path) -> None:
    def line(person: str, track: str) -> str:
        (tmp_path / f"{track}.jpg").write_bytes(track.encode())
        return json.dumps(
            {"path": f"{track}.jpg", "camera": "d1/s1/b1/c1", "time": "2026-01-01T08:00:00Z", "track": track}
            | {"truth": person}
        )

    manifest = tmp_path / "manifest.jsonl"
    every = [line("a", "a1"), line("a", "a2"), line("a", "a2"), line("b", "b1")]
    manifest.write_text("\n".join(every) + "\n")
    withheld = Withheld()
    withheld.from_manifest(manifest)
    left = manifest.read_text().splitlines()
    (probe,) = withheld.probes
    assert probe.person == "a" and probe.there and probe.picture in (b"a1", b"a2")
    assert left == [text for text in every if json.loads(text)["track"].encode() != probe.picture]
    manifest.write_text("\n".join(every) + "\n")
    gone = Withheld(absent_share=1.0)
    gone.from_manifest(manifest)
    assert manifest.read_text() == "" and [(p.person, p.there) for p in gone.probes] == [("a", False), ("b", False)]


def test_withheld_tracklets_leave_a_batch() -> None:
    people, track = np.array([1, 1, 1, 2, 3, 3]), np.array([10, 10, 11, 12, 13, 14])
    batch = PassageBatch(
        camera=np.zeros(6, np.int32),
        track=track,
        time_us=np.arange(6),
        person=people,
        quality=np.ones(6, np.float32),
        features=np.arange(12, dtype=np.float32).reshape(6, 2),
    )
    withheld = Withheld()
    left = withheld.from_batch(batch, ["d9/s1/b1/c1"], "x-")
    assert [probe.person for probe in withheld.probes] == ["x-1", "x-3"]
    assert {probe.district for probe in withheld.probes} == {"d9"}
    assert set(left.person.tolist()) == {1, 2, 3} and len(np.unique(left.track)) == 3
