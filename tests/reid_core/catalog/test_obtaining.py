"""Files of a model from a folder."""

import hashlib
import os
from pathlib import Path

import pytest

from reid_core.catalog import CatalogFile, CatalogModel, Release, Task, is_obtained, obtain
from schemas.errors import InputError, ModelFileError, UrbanReidError
from schemas.settings import Settings


def entry(name: str, content: bytes) -> CatalogFile:
    digest = hashlib.sha256(content).hexdigest()
    return CatalogFile(name=name, address=f"https://models.example/{name}", bytes=len(content), sha256=digest)


MODEL = CatalogModel(
    name="net",
    task=Task.DETECTION,
    publisher="us",
    license_code="Apache-2.0",
    license_data="ours",
    releases=(
        Release(name="2", files=(entry("net.xml", b"two"), entry("net.bin", b"weights 2"))),
        Release(name="1", files=(entry("net.xml", b"one"), entry("net.bin", b"weights 1"))),
    ),
)


def tell(label: str, done: int, total: int) -> None: ...


def write(folder: Path, xml: bytes | None, weights: bytes | None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in (("net.xml", xml), ("net.bin", weights)):
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("number", [b"2", b"1"])
@pytest.mark.parametrize("below", ["", "net"])
def test_any_release_is_taken_whole(tmp_path: Path, number: bytes, below: str) -> None:
    settings, source = Settings(home=tmp_path / "home"), tmp_path / "from"
    source.mkdir()
    write(source / below, {b"2": b"two", b"1": b"one"}[number], b"weights " + number)
    with obtain(settings, MODEL, str(source), None, tell) as obtained:
        assert obtained.release.name.encode() == number
        assert [file.name for file in obtained.files] == ["net.xml", "net.bin"]
        assert is_obtained(obtained.folder, MODEL)
    assert [path.name for path in (tmp_path / "home" / "downloads").iterdir()] == ["net.lock"]


@pytest.mark.parametrize(
    ("xml", "weights", "kind", "message"),
    [
        (b"two", b"weights 1", InputError, "the files of net there are of different releases; take them from one"),
        (b"two", None, InputError, "holds neither net/net.bin nor net.bin"),
        (b"other", None, ModelFileError, r"net.xml: is not the published file of net"),
        (
            b"two",
            b"weights 3",
            ModelFileError,
            r"net.bin: is not the published file of net: its SHA-384",
        ),
    ],
)
def test_what_is_no_release_is_refused(
    tmp_path: Path, xml: bytes, weights: bytes | None, kind: type[UrbanReidError], message: str
) -> None:
    source = write(tmp_path / "from", xml, weights)
    with pytest.raises(kind, match=message), obtain(Settings(home=tmp_path / "home"), MODEL, str(source), None, tell):
        pytest.fail("was taken")
    assert [path.name for path in (tmp_path / "home" / "downloads").iterdir()] == ["net.lock"]


def test_an_error_of_the_block_keeps_its_own_words(tmp_path: Path) -> None:
    source = write(tmp_path / "from", b"two", b"weights 2")
    with (
        pytest.raises(FileNotFoundError, match="elsewhere"),
        obtain(Settings(home=tmp_path / "home"), MODEL, str(source), None, tell),
    ):
        raise FileNotFoundError(2, "No such file", "elsewhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "from", b"two", b"weights 2")
    (source / "net.bin").chmod(0)
    with (
        pytest.raises(InputError, match=r"net.bin cannot be read: Permission denied"),
        obtain(Settings(home=tmp_path / "home"), MODEL, str(source), None, tell),
    ):
        pytest.fail("was taken")
