import os
from pathlib import Path

import pytest

from schemas.errors import UsageError
from schemas.settings import AssociationSettings, Settings, settings, unknown_variables


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URBAN_REID_BATCH_SIZE", "many"),
        ("URBAN_REID_DEVICE", "tpu"),
        ("URBAN_REID_ASSOCIATION__WINDOW_S", "0"),
        ("URBAN_REID_ASSOCIATION__NEIGHBOR", "3"),
        ("URBAN_REID_ASSOCIATION", "x"),
        ("URBAN_REID_CROP_ROOTS", "s3://bucket"),
        ("URBAN_REID_CROP_ROOTS", "{}"),
        ("URBAN_REID_CROP_ROOTS", '["\\u0000"]'),
        ("URBAN_REID_DATABASE_URL", "postgresql+psycopg2://h\udcff/city"),
        ("URBAN_REID_PREFECT_URL", "http://h\udcff/api"),
        ("URBAN_REID_OPERATOR", "\udcff"),
    ],
)
def test_a_value_that_cannot_be_meant_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"^{name}: ") as caught:
        settings.__wrapped__()
    assert "\n" not in str(caught.value)


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty URBAN_REID_HOME is not the folder we happen to stand in."""
    for name in ("URBAN_REID_HOME", "URBAN_REID_DATABASE_URL", "URBAN_REID_CROP_ROOTS"):
        monkeypatch.setenv(name, "")
    found = Settings()
    assert found.home.is_absolute() and found.home != Path.cwd()
    assert found.database_url is None and found.crop_roots == ()


def test_a_user_without_a_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "URBAN_REID_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    monkeypatch.setattr("os.getuid", lambda: 2**31)  # in no list of users
    with pytest.raises(UsageError, match=r"^URBAN_REID_HOME: name a data directory"):
        settings.__wrapped__()


def test_crop_roots_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URBAN_REID_CROP_ROOTS", '["s3://bucket/crops", "/data"]')
    assert Settings().crop_roots == ("s3://bucket/crops", "/data")


def test_runs_of_version_0_1_keep_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest of the default settings, as version 0.1 computed it; it is part of each run's key."""
    assert AssociationSettings().digest().hex() == "58d7be2081e1326fdfcc8fe9d9e61dcdb50c71255d61e08ff25d7e788ae6a08b"
    monkeypatch.setenv("URBAN_REID_ASSOCIATION__NEIGHBOURS", "7")
    assert Settings().association.neighbors == 7


def test_a_misspelt_variable_is_named_with_the_nearest_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("URBAN_REID_")]:
        monkeypatch.delenv(name)
    for name in ("URBAN_REID_HOME", "urban_reid_device", "URBAN_REID_ASSOCIATION__WINDOW_S"):
        monkeypatch.setenv(name, "")
    assert unknown_variables() == []
    monkeypatch.setenv("URBAN_REID_DATABSE_URL", "postgresql:///city")
    monkeypatch.setenv("URBAN_REID_XYZZY", "")
    monkeypatch.setenv("URBAN_REID_TEST_ASSETS", "/somewhere")
    assert unknown_variables() == [
        "URBAN_REID_DATABSE_URL is no setting and is ignored; did you mean URBAN_REID_DATABASE_URL?",
        "URBAN_REID_XYZZY is no setting and is ignored",
    ]
