"""Pictures of version 0.2 are encrypted, however often that ends in the middle."""

import hashlib
from datetime import date
from pathlib import Path

import pytest

from pipeline.crops.context_frames import context_store
from pipeline.crops.crop_store import CropStore, Place
from pipeline.governance.audit import read_audit
from pipeline.ingest import earlier_pictures
from pipeline.ingest.earlier_pictures import Encrypted, encrypt_earlier
from pipeline.store import Store
from schemas.errors import HomeError, StoreError

PLACES = [Place(owner, date(2026, 1, day)) for owner in ("d1", "_probes") for day in (1, 2)]
PICTURES = [(place, b"%d of %s" % (number, place.owner.encode())) for place in PLACES for number in range(4)]


def put_early(crops: CropStore, place: Place, data: bytes) -> Path:
    path = crops.earlier_path(place, hashlib.sha256(data).digest())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_a_run_that_ends_anywhere_loses_no_picture_and_the_next_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops, contexts = CropStore(store.settings), context_store(store.settings)
    earlier = [put_early(crops, place, data) for place, data in PICTURES]
    earlier.append(put_early(contexts, PLACES[0], b"frame"))
    damaged = put_early(crops, PLACES[0], b"damaged")
    damaged.write_bytes(b"other")
    monkeypatch.setattr(earlier_pictures, "_AT_A_TIME", 3)
    left = [0]

    def ending(name: str) -> None:
        real = getattr(Path, name)

        def call(path: Path, *arguments: object, **options: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(5, "Input/output error")
            return real(path, *arguments, **options)

        monkeypatch.setattr(Path, name, call)

    for name in ("replace", "unlink"):
        ending(name)
    ends = 0
    for steps in (1, 3, 6, 9, 14, 17, 4, 1_000):
        left[0] = steps
        try:
            done = encrypt_earlier(store)
        except (HomeError, OSError):
            ends += 1
        left[0] = 0
        for place, data in PICTURES:
            assert crops.get(place, hashlib.sha256(data).digest()) == data
    assert ends >= 5 and done.damaged == 1
    assert not any(path.exists() for path in earlier) and damaged.read_bytes() == b"other"
    assert contexts.get(PLACES[0], hashlib.sha256(b"frame").digest()) == b"frame"
    with pytest.raises(StoreError, match="is damaged"):
        crops.get(PLACES[0], hashlib.sha256(b"damaged").digest())
    held = [path.read_bytes() for path in crops.root.rglob("*") if path.is_file() and path != damaged]
    assert len(held) == len(PICTURES) and not any(data in content for _, data in PICTURES for content in held)
    with store.owning() as connection:
        rows = read_audit(connection, action="crop.encrypt")
    assert rows[-1].details == {"encrypted": done.encrypted, "damaged": 1}
    assert encrypt_earlier(store) == Encrypted(0, 1)


def test_a_picture_that_is_encrypted_while_it_is_read_is_found(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = CropStore(store.settings)
    sha256 = crops.put(PLACES[0], b"picture")
    monkeypatch.setattr(Path, "exists", lambda path: False)  # as it was a moment before
    assert crops.get(PLACES[0], sha256) == b"picture"
