"""Parses a report's pages: elements, links, table rows and visible text. Asserts that tags are closed in order."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

PAGES = ("index.html", "identities.html", "review.html", "joins.html")
_VOID = {"meta", "img", "br", "link", "input", "hr"}


@dataclass
class Page(HTMLParser):
    path: Path
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    style: str = ""
    policy: str = ""
    rows: list[list[str]] = field(default_factory=list)  # cells of all tables
    unclosed: list[str] = field(default_factory=list)  # open elements, the innermost last

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        assert len(names) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, names))
        if tag == "meta" and names.get("http-equiv") == "Content-Security-Policy":
            self.policy = names["content"] or ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in _VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.unclosed.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.unclosed and self.unclosed[-1] == "style":
            self.style += data
            return
        self.texts.append(data)
        if {"td", "th"} & set(self.unclosed):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    @property
    def links(self) -> list[str]:
        """The targets of all src and href attributes."""
        return [value or "" for _, names in self.elements for key, value in names.items() if key in ("src", "href")]

    @property
    def pictures(self) -> set[str]:
        return {link for link in self.links if link.startswith("crops/")}


def read_pages(out: Path) -> dict[str, Page]:
    return {name: Page(out / name) for name in PAGES}
