"""Small ONNX files, written byte by byte."""

from pathlib import Path


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer: a varint, or bytes behind their length."""
    data = value.encode() if isinstance(value, str) else value
    if isinstance(data, int):
        return varint(number << 3) + varint(data)
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_file(path: Path, shape: tuple[int | str, ...], operator: str = "GlobalAveragePool") -> Path:
    """An ONNX model whose feature, (1, 3, 1, 1), is the mean of each color over the picture."""

    def tensor(name: str, dims: tuple[int | str, ...]) -> bytes:
        sizes = b"".join(field(1, field(2 if isinstance(size, str) else 1, size)) for size in dims)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))

    node = field(1, "image") + field(2, "feature") + field(4, operator)
    graph = field(1, node) + field(2, "g") + field(11, tensor("image", shape))
    graph += field(12, tensor("feature", (shape[0], 3, 1, 1)))
    path.write_bytes(field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph))
    return path


def varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])
