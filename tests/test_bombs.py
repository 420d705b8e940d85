"""Small files that stand for gigabytes are refused by what their headers say, in a process that has no gigabyte."""

import json
import os
import re
import struct
import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

#: What the process below may take beside what its imports took, MB.
SPARE_MB = 512

_CHILD = """
import json, resource, sys
from pathlib import Path
import h5py
import torch
from pipeline.accuracy.label_file import read_labels
from pipeline.city.units import read_city_file
from pipeline.ingest.manifest import manifest_lines
from pipeline.ingest.video_file import VideoFile
from pipeline.report.thumbnails import Picture, thumbnail
from reid_core.datasets.cuhk03 import _read_json
from reid_core.datasets.cuhk03_release import Release
from reid_core.decoding import decode, read_picture
from reid_core.files import read_card
from reid_core.tensors import read_tensors
from schemas.errors import UrbanReidError

folder = Path(sys.argv[1])
doors = {
    "manifest": lambda path: [fault for _, fault in manifest_lines(path) if isinstance(fault, str)][0],
    "labels": lambda path: list(read_labels(path)),
    "city": read_city_file,
    "picture": read_picture,
    "thumbnail": lambda path: thumbnail(Picture("d1/s1/b1/c1", b"", 64, 128, None, 1.0), path.read_bytes()),
    "cuhk03": _read_json,
    "release": lambda path: Release(path, "detected").read(1, 1, 1),
    "card": read_card,
    "tensors": read_tensors,
}
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData"))
resource.setrlimit(resource.RLIMIT_DATA, (used * 1024 + int(sys.argv[2]) * 2**20,) * 2)
for line in sys.stdin:
    door, name = line.split()
    try:
        said = doors[door](folder / name)
        said = said if isinstance(said, str) else "taken"
    except (UrbanReidError, MemoryError) as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said), flush=True)
"""


def png(width: int, height: int, channels: int = 4) -> bytes:
    """A PNG of 16-bit zeros."""
    kind = {1: 0, 3: 2, 4: 6}[channels]
    squeeze = zlib.compressobj(9)
    row = bytes(1 + width * channels * 2)
    pixels = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))


def parquet(file: Path, **columns: pa.Array) -> None:
    pq.write_table(pa.table(columns), file, compression="zstd")


def write_false_size(file: Path) -> None:
    """A value of 300 MB in a column that says that it has a thousand bytes."""
    pq.write_table(pa.table({"path": ["x" * 300_000_000]}), file, compression="zstd", use_dictionary=False)
    size = pq.ParquetFile(file).metadata.row_group(0).column(0).total_uncompressed_size
    written, false = varint(size), bytearray(varint(1000))
    false[-1] |= 0x80
    false += b"\x80" * (len(written) - len(false) - 1) + b"\0"
    head, footer = file.read_bytes()[:-2000], file.read_bytes()[-2000:]
    assert written in footer
    file.write_bytes(head + footer.replace(written, bytes(false)))
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).total_uncompressed_size == 1000


def varint(number: int) -> bytes:
    """As Thrift's compact protocol writes a number."""
    number, found = 2 * number, bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bombs")
    (folder / "64-megapixels.png").write_bytes(png(8_000, 8_000, 1))
    (folder / "largest.png").write_bytes(png(3_200, 3_125))
    (folder / "wide.png").write_bytes(png(40_000, 200, 1))
    parquet(folder / "one-value.parquet", path=repeated("x" * 1_000_000, 50_000))
    parquet(folder / "long-value.parquet", path=pa.array(["x" * 100_000_000]))
    parquet(folder / "long-value-in-many.parquet", path=repeated("x" * 40_000_000, 20_000))
    parquet(folder / "boxes.parquet", box=pa.array([[1.0] * 8_000_000], pa.list_(pa.float64())))
    parquet(folder / "lists.parquet", path=pa.array([[["x"] * 1_000_000]], pa.list_(pa.list_(pa.string()))))
    parquet(folder / "other.parquet", path=repeated("0.jpg", 2), other=repeated("x" * 100_000_000, 2))
    write_false_size(folder / "false.parquet")
    (folder / "line.jsonl").write_bytes(b'{"path": "' + b"x" * 50_000_000)
    (folder / "deep.jsonl").write_bytes(b"[" * 60_000 + b"\n")
    (folder / "labels.csv").write_bytes(b"truth,crop\n" + b"x" * 50_000_000)
    (folder / "deep-labels.jsonl").write_bytes(b'{"truth": ' + b"[" * 60_000 + b"\n")
    lines = [f"{a}: &{a} [{', '.join([f'*{b}'] * 9)}]\n" for a, b in pairwise("jihgfedcba")]
    (folder / "city.yaml").write_text("a: &a [x, x]\n" + "".join(reversed(lines)))
    with (folder / "huge.json").open("wb") as file:
        file.truncate(2**31)
    (folder / "card").mkdir()
    with (folder / "card" / "card.json").open("wb") as file:
        file.truncate(2**31)
    with (folder / "header.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 2**30))
        file.truncate(2**31)
    with h5py.File(folder / "cuhk-03.mat", "w") as file:
        picture = file.create_dataset("picture", (3, 20_000, 20_000), "u1", compression="gzip")
        people = file.create_dataset("people", (10, 1), h5py.ref_dtype)
        people[:] = picture.ref
        file.create_dataset("detected", (1, 5), h5py.ref_dtype)[:] = people.ref
    return folder


CASES = {
    ("picture", "64-megapixels.png"): "is 8000 x 8000 pixels; at most .* URBAN_REID_MAX_CROP_PIXELS",
    ("thumbnail", "64-megapixels.png"): "is 8000 x 8000 pixels",
    ("picture", "largest.png"): "^taken",
    ("picture", "wide.png"): "is 40000 x 200 pixels",
    ("picture", "huge.json"): "larger than 64 MB",
    ("manifest", "one-value.parquet"): "row 1 or .*: path has 1000000 bytes; at most 16384",
    ("manifest", "long-value.parquet"): "the column path has 1000000.. bytes in a group of 1 rows",
    ("manifest", "long-value-in-many.parquet"): "path has 40000000 bytes; at most 16384",
    ("manifest", "boxes.parquet"): "the column box has 8000000 values in 1 rows",
    ("manifest", "lists.parquet"): "the column path holds list<.*which no manifest has there",
    ("manifest", "other.parquet"): "unknown key 'other'",
    ("manifest", "false.parquet"): "cannot be read as Parquet",
    ("manifest", "line.jsonl"): "longer than 65536 bytes",
    ("manifest", "deep.jsonl"): "JSON",
    ("labels", "labels.csv"): "longer than 65536 bytes",
    ("labels", "deep-labels.jsonl"): "not JSON",
    ("city", "city.yaml"): "anchors and aliases are not allowed",
    ("cuhk03", "huge.json"): "larger than",
    ("release", "cuhk-03.mat"): "URBAN_REID_MAX_CROP_PIXELS",
    ("card", "card"): "larger than .* bytes; not a model card",
    ("tensors", "header.safetensors"): "its header claims 1073741824 bytes",
}


def test_no_small_file_takes_much_memory(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), str(SPARE_MB)],
        input="".join(f"{door} {name}\n" for door, name in CASES),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(said) == len(CASES), (done.stderr, said)
    answers = zip(CASES.items(), said, strict=True)
    assert {case: line for (case, wanted), line in answers if not re.search(wanted, line)} == {}
