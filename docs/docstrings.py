"""How docstrings become Markdown: what griffe, which reads them for the API pages, calls for each.

The project's docstrings are plain text. Lines that explain one name each (`name: text`) become a list.
"""

import re
from typing import Any

import griffe

#: A line that explains one name or some: `queries, gallery: features ...`.
_EXPLAINED = re.compile(r"[a-z_]\w*(?:, [a-z_]\w*)*: \S")


class NamesAsLists(griffe.Extension):
    """Writes each paragraph that begins with `name: text` as a list, one item a name."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_lists(obj.docstring.value)


def with_lists(text: str) -> str:
    """`text` with its explained names as list items. Indented lines, which are code, stay."""
    found = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.split("\n")
        first = next((number for number, line in enumerate(lines) if _EXPLAINED.match(line)), None)
        if first is None or paragraph.startswith("    "):
            found.append(paragraph)
            continue
        items = lines[:first] + ([""] if first else [])
        for line in lines[first:]:
            name, _, rest = line.partition(": ")
            items.append(f"- `{name}`: {rest}" if _EXPLAINED.match(line) else f"  {line}")
        found.append("\n".join(items))
    return "\n\n".join(found)
