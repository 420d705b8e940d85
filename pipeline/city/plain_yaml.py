"""YAML as plain data: mappings with text keys, lists, text, numbers, true, false and null, each with its place.

Scalars follow the core schema of YAML 1.2, so 060 is 60, and 1:30, yes, off and 2026-01-01 are text. Tags, anchors and
aliases (and with them alias bombs), repeated keys and deep nesting are refused.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.reader import ReaderError

from schemas.errors import InputError

MAX_DEPTH = 16
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((f"{sign}.{word}" for sign in ("", "+") for word in ("inf", "Inf", "INF")), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Document:
    """A parsed text. `data` is its plain data."""

    data: Any
    _root: yaml.Node | None

    def place(self, path: Sequence[str | int]) -> str:
        """Where the value at `path` (keys and indices from the root) stands, such as "line 3, column 5".

        Where there is no such value: the place of the nearest one around it.
        """
        node = self._root
        found = None if node is None else node.start_mark
        for part in path:
            if isinstance(node, yaml.MappingNode):
                entry = next(((key, value) for key, value in node.value if key.value == part), None)
                if entry is None:
                    break
                found, node = entry[0].start_mark, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                found = node.start_mark
            else:
                break
        return _place(found.line, found.column) if found else "line 1, column 1"


def parse(text: str) -> Document:
    """Parses one YAML document. Raises InputError, beginning with line and column, for all that is not plain data."""
    try:
        root = _Composer(text).get_single_node()
        return Document(None if root is None else _plain(root), root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = " ".join(part for part in (error.context, error.problem) if part) or "is not YAML"
        raise InputError(f"{_place(mark.line, mark.column) if mark else 'YAML'}: {said}") from None
    except ReaderError as error:
        line, column = text.count("\n", 0, error.position), error.position - text.rfind("\n", 0, error.position) - 1
        character = error.character if isinstance(error.character, int) else ord(error.character)
        raise InputError(f"{_place(line, column)}: the character U+{character:04X} is not allowed") from None


class _Composer(yaml.SafeLoader):
    """Builds nodes; raises MarkedYAMLError at the first tag, anchor or alias, or where nesting is too deep."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _error("anchors and aliases are not allowed", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise _error(f"the tag {event.tag} is not allowed", event.start_mark)
        if self.depth >= MAX_DEPTH:
            raise _error("nested too deeply", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _plain(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    assert isinstance(node, yaml.ScalarNode)
    return node.value if node.style else _scalar(node)  # text in quotes or in a block stays text


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _error("a key must be text; put text that begins with { or [ in quotes", key.start_mark)
        if key.value in found:
            raise _error(f"the key {key.value[:80]!r} is repeated", key.start_mark)
        found[key.value] = _plain(value)
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _DECIMAL.fullmatch(text):
            return int(text)
        if _OTHER_BASE.fullmatch(text):
            return int(text, 0)
    except ValueError:  # Python reads no more than some thousands of digits
        raise _error(f"a number of {len(text)} digits", node.start_mark) from None
    return float(text) if _FLOAT.fullmatch(text) else text


def _error(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


def _place(line: int, column: int) -> str:
    return f"line {line + 1}, column {column + 1}"
