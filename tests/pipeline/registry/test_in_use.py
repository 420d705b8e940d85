"""One model in use, on a real database."""

import json
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.registry import model_in_use, register_model, use_model
from pipeline.store import Store
from schemas.errors import InputError
from schemas.settings import Settings
from tests.helpers.small_models import small_model


def test_one_model_is_in_use(store: Store, settings: Settings, tmp_path: Path) -> None:
    register_model(store, settings, small_model(tmp_path / "m"), "first")
    register_model(store, settings, small_model(tmp_path / "n", seed=1), "second")
    with store.begin() as connection, pytest.raises(InputError, match="models use NAME"):
        model_in_use(connection)
    for name in ("first", "second", "second"):
        assert use_model(store, name).in_use
        with store.begin() as connection:
            assert model_in_use(connection).name == name
    with pytest.raises(InputError, match="there are: first"):
        use_model(store, "fist")
    with store.signed_in() as connection:
        used = connection.execute(text("SELECT details FROM audit WHERE action = 'model.use' ORDER BY id")).scalars()
        assert [json.loads(json.dumps(details))["model"] for details in used] == ["first", "second"]
