"""One search of several databases: its list is that of one database that holds all of them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.city.units import read_city_file, store_city
from pipeline.search.posterior import Evidence, posterior
from pipeline.search.request import request_search, upload_probe
from pipeline.search.search import search
from pipeline.search.several import Part, merge
from pipeline.store import Store, embedded
from schemas.city_file import City
from schemas.errors import InputError
from schemas.parameters import SearchParameters, SearchResult
from tests.helpers.homes import fresh_settings
from tests.helpers.town import Town

MOST = 200


def _of_district(text: str, district: str) -> str:
    return text.replace("d1", district)


def _towns(city_files: Path, folder: Path, lines: list[str]) -> tuple[City, City, list[str], list[str]]:
    """Cities d1 and d2, which are alike, and crops of each: of other people, and not the same number."""
    shutil.copytree(city_files, folder, dirs_exist_ok=True)
    first = read_city_file(folder / "city.yaml")
    (folder / "second.yaml").write_text(_of_district((folder / "city.yaml").read_text(), "d2"))
    second = read_city_file(folder / "second.yaml")
    there = [_moved(line) for line in lines[100:160]]
    return first, second, lines[:90], there


def _moved(line: str) -> str:
    row = json.loads(line)
    return json.dumps(row | {"camera": _of_district(row["camera"], "d2")})


def _search(town: Town, unit: str, picture: bytes, top: int = MOST) -> SearchResult:
    probe = upload_probe(town.store, town.crops, picture, "me")
    asked = SearchParameters(unit=unit, probe_id=probe, reason="case 17", operator="me", top=top)
    request = request_search(town.store, town.model, asked)
    return search(town.store, lambda _: town.core, town.crops, town.model, request, asked)


@pytest.mark.system
def test_the_list_of_two_databases_is_that_of_one_with_both_districts(
    server: embedded.EmbeddedServer, city_files: Path, model_folder: Path, lines: list[str], tmp_path: Path
) -> None:
    first, second, here, there = _towns(city_files, tmp_path / "city", lines)
    both = City(timezone=first.timezone, units=(*first.units, *second.units), walks=(*first.walks, *second.walks))
    picture = (tmp_path / "city" / json.loads(lines[0])["path"]).read_bytes()
    found = {}
    for name, city, crops in (("one", both, here + there), ("north", first, here), ("south", second, there)):
        with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
            town = Town(store, tmp_path / "city", model_folder)
            store_city(store, city)
            town.take_in(crops)
            for unit in (one for one in ("d1", "d2") if any(u.code == one for u in city.units)):
                town.resolve(unit)
                found[name, unit] = _search(town, unit, picture)
    one = merge([Part("one", found["one", unit]) for unit in ("d1", "d2")], MOST)
    several = merge([Part("north", found["north", "d1"]), Part("south", found["south", "d2"])], MOST)

    def listed(result: object) -> list[tuple[str, str, float | None]]:
        return [(hit.hit.unit, hit.hit.crops[0].key, hit.hit.probability) for hit in result.hits]  # type: ignore[attr-defined]

    assert listed(several) == listed(one)
    assert (several.not_here, several.compared) == (one.not_here, one.compared)
    assert {unit for unit, _, _ in listed(one)} == {"d1", "d2"}
    # And it is the posterior over everybody at once, which no part states by itself.
    parts = [part for key, part in found.items() if key[0] == "one"]
    ratios = np.array([ratio for part in parts for ratio in part.evidence.best])  # type: ignore[union-attr]
    looks = np.array([look for part in parts for look in part.evidence.look])  # type: ignore[union-attr]
    calibration = parts[0].evidence.calibration  # type: ignore[union-attr]
    whole = posterior(Evidence.of(ratios, looks), calibration)
    assert len(ratios) == one.compared
    assert several.not_here == pytest.approx(whole.not_here, abs=1e-12)
    assert all(several.not_here != part.not_here for part in parts)
    stated = sorted((hit.hit.probability or 0.0 for hit in several.hits), reverse=True)
    assert [hit.hit.probability for hit in several.hits] == stated
    assert stated == pytest.approx(sorted(whole.each(ratios, looks).tolist(), reverse=True)[: len(stated)], abs=1e-12)
    assert [hit.hit.rank for hit in several.hits] == list(range(1, len(stated) + 1))


def test_what_cannot_be_merged_is_refused(resolved: Town, city_files: Path, lines: list[str]) -> None:
    picture = (city_files / json.loads(lines[0])["path"]).read_bytes()
    found = _search(resolved, "d1", picture, top=3)
    assert found.evidence is not None and len(merge([Part("a", found), Part("b", found)], 5).hits) == 5
    other = found.evidence.calibration.model_copy(update={"spread": 0.5})
    changed = found.model_copy(update={"evidence": found.evidence.model_copy(update={"calibration": other})})
    with pytest.raises(InputError, match="b and a calibrate searches differently"):
        merge([Part("a", found), Part("b", changed)], 5)
    camera = _search(resolved, "d1/s1/b1/c1", picture, top=3)
    with pytest.raises(InputError, match=r"a states no probability, .* A camera's tracklets have no probability"):
        merge([Part("a", camera)], 5)
    with pytest.raises(InputError, match="no place was named"):
        merge([], 5)


def test_evidence_survives_its_way_as_json(resolved: Town, city_files: Path, lines: list[str]) -> None:
    picture = (city_files / json.loads(lines[0])["path"]).read_bytes()
    found = _search(resolved, "d1", picture, top=3)
    assert SearchResult.model_validate_json(found.model_dump_json()) == found
    assert found.evidence is not None
    stated = posterior(Evidence.read(found.evidence), found.evidence.calibration)
    assert stated.not_here == found.not_here
