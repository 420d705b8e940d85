import shutil
from pathlib import Path

import pytest

from reid_core.catalog import Task, catalog, find_model, published_embedder
from reid_core.catalog.entries import CatalogFile
from schemas.errors import UsageError
from tests.helpers.assets import CONVENTION, asset


def test_the_shipped_catalog_is_whole() -> None:
    models = catalog()
    names = [model.name for model in models]
    assert len(names) == len(set(names)) >= 15
    for model in models:
        assert model.publisher and model.license_code and model.license_data
        for release in model.releases:
            openable = [file.name for file in release.files if file.name.endswith((".xml", ".onnx", ".pth"))]
            assert openable == [release.files[0].name]
            assert all(file.address.endswith(file.name) for file in release.files)
        if model.task is Task.RE_IDENTIFICATION:
            assert model.input is not None and model.dims is not None
    hashes = [file.hash for model in models for release in model.releases for file in release.files if file.hash]
    assert len(hashes) == len(set(hashes))
    without = {model.name for model in models if any(file.hash is None for file in model.releases[0].files)}
    assert without == {  # `models get` asks for a hash
        "yolox_nano", "yolox_tiny", "yolox_s", "ssdlite320_mobilenet_v3_large_coco", "fasterrcnn_resnet50_fpn_v2_coco"
    }  # fmt: skip


def test_a_published_embedder_is_known_whatever_its_file_is_called(tmp_path: Path) -> None:
    name = "person-reidentification-retail-0286"
    shutil.copy(asset(f"models/{name}/{name}.xml"), tmp_path / "any.xml")
    found = published_embedder(tmp_path / "any.xml")
    assert found is not None and (found.name, found.input) == (name, CONVENTION)
    (tmp_path / "any.xml").write_bytes((tmp_path / "any.xml").read_bytes() + b"\n")
    assert published_embedder(tmp_path / "any.xml") is None


def test_an_unknown_name_is_told_with_its_nearest() -> None:
    with pytest.raises(UsageError, match=r"no model 'retail-0286' in the catalog; nearest: .*-retail-0286"):
        find_model("retail-0286")


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "../a.xml", "address": "https://a.example/a.xml", "sha256": "0" * 64},
        {"name": "a.xml", "address": "http://a.example/a.xml", "sha256": "0" * 64},
        {"name": "a.xml", "address": "file:///etc/passwd", "sha256": "0" * 64},
        {"name": "a.xml", "address": "https://a.example/a.xml", "sha256": "0" * 63},
        {"name": "a.xml", "address": "https://a.example/a.xml", "sha256": "0" * 64, "sha384": "0" * 96},
    ],
)
def test_an_entry_with_a_wrong_name_address_or_hash_is_none(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        CatalogFile.model_validate(fields)
