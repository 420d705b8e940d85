"""A picture that was uploaded for a search: of its case, gone with it, and never among those that are searched."""

from pathlib import Path

from sqlalchemy import text

from pipeline.city.units import read_city_file, store_city
from pipeline.crops.crop_store import CropStore
from pipeline.search.request import upload_probe
from pipeline.store import Store, embedded
from tests.helpers.governed import Governed
from tests.helpers.homes import superuser_of


def test_a_probe_goes_with_the_case_that_it_was_uploaded_in_although_no_search_followed(
    store: Store, server: embedded.EmbeddedServer, city_files: Path
) -> None:
    store_city(store, read_city_file(city_files / "city.yaml"))
    picture = next(city_files.rglob("*.jpg")).read_bytes()
    governed = Governed(store, superuser_of(server, store.settings))
    probes = []
    for case in ("case 17", "case 18"):
        governed.as_("anna", governed.authorized(case))
        probes.append(upload_probe(store, CropStore(store.settings), picture, "anna"))
        found = governed.sql("SELECT probes::text[] FROM rows_of_case(%s)", case)
        assert found == [([str(probes[-1])],)]
    assert len(set(probes)) == 2
    with store.begin() as connection:
        for table in ("crop", "crop_embedding", "identity", "prototype"):
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_nothing_about_sex_or_age_has_a_place_in_the_database(store: Store) -> None:
    with store.begin() as connection:
        names = connection.scalars(
            text(
                "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' "
                "UNION SELECT e.enumlabel FROM pg_enum e"
            )
        ).all()
    assert len(names) > 100
    words = {word for name in names for word in name.lower().replace("-", "_").split("_")}
    assert not words & {"sex", "gender", "male", "female", "man", "woman", "age", "ages", "ethnicity", "race"}
