"""Brings the console's catalogs in step with its texts: `make texts`. Prints how many texts each language lacks.

Texts are those of `_`, `ngettext`, `N_` and `{% trans %}` in `urban_reid/console`. Of the layers below, which say what
they say in English, it takes what errors say (the first argument where one is raised) and what `schemas.text.said`
marks, and what settings are for; a value in an f-string becomes a named place. `urban_reid.console.texts.told` finds
such a text again.
"""

import ast
import io
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po

import schemas.errors
from pipeline.store.errors import not_allowed

#: A refusal of a migration: a value that it begins with, and its literals.
_RULE = re.compile(r"refuse\((?:format\()?(what \|\| )?((?:'(?:[^']|'')*'\s*)+)")
ROOT = Path(__file__).parents[1]
CONSOLE = ROOT / "urban_reid" / "console"
TEMPLATE = CONSOLE / "locale" / "console.pot"
_KEYWORDS = {"_": None, "N_": None, "gettext": None, "ngettext": (1, 2)}
_JINJA = {"trimmed": "true", "silent": "false", "newstyle_gettext": "true"}
#: Templates of the report that pages of the console use.
_SHARED = (ROOT / "pipeline" / "report" / "templates" / "curves.html.jinja",)
#: Rooms whose errors and marked texts come to pages.
_BELOW = (
    "schemas",
    *(f"pipeline/{room}" for room in ("browsing", "cameras", "city", "governance", "registry", "report")),
    *(f"pipeline/{room}" for room in ("review", "search", "standing", "training")),
    "pipeline/ingest/live_camera.py",
    "reid_core/decoding.py",
    "urban_reid/console",
)
#: Modules of these rooms that work for the command line alone.
_NO_PAGE = {
    *(
        f"pipeline/cameras/{name}.py"
        for name in ("feed_file", "secrets", "recordings", "start_times", "seams", "webhook")
    ),
    *(f"pipeline/governance/{name}.py" for name in ("accounts", "account_changes", "administering", "audit_report")),
    *(f"pipeline/governance/{name}.py" for name in ("audit", "audit_chain", "audit_export", "passwords")),
    *(f"pipeline/registry/{name}.py" for name in ("changes", "folders")),
    *(f"pipeline/report/{name}.py" for name in ("folder", "one_picture", "read_contents")),
    *(f"pipeline/training/{name}.py" for name in ("confirmations", "data", "candidate", "comparison", "request")),
    *(
        "pipeline/city/plain_yaml.py",
        "schemas/settings.py",
        "schemas/attributes.py",
        "pipeline/governance/retention.py",
        "pipeline/search/several.py",
    ),
    *("urban_reid/console/api.py", "urban_reid/console/listening.py"),
}
#: Modules whose rules refuse what a field of a form says, by ValueError.
_FIELDS = ("schemas/feeds.py", "schemas/parameters.py", "schemas/text.py")
#: Settings, which a page lists with what each is for.
_SETTINGS = ROOT / "schemas" / "settings.py"
#: Errors of the system's own, which no visitor of a page can mend: they stay English.
_OWN = ("StoreError", "StoreUnavailable", "StoreConflict", "HomeError", "CoreError", "ModelFileError", "VectorError")
_ERRORS = {name for name in vars(schemas.errors) if name not in _OWN}


def collected() -> Catalog:
    """All texts, in the order of the alphabet, with the files they come from."""
    catalog = Catalog(project="urban-reid", charset="utf-8")
    catalog.header_comment = "# Texts of the console. Written by `make texts`."
    for path in sorted(CONSOLE.rglob("*.py")):
        _take(catalog, path, "python")
    for path in (*sorted(CONSOLE.rglob("*.jinja")), *_SHARED):
        _take(catalog, path, "jinja2.ext:babel_extract")
    for path in below():
        names = _ERRORS | {"said"} | ({"ValueError"} if _name(path) in _FIELDS else set())
        for text in sentences(path.read_text(encoding="utf-8"), names):
            catalog.add(text, locations=[(_name(path), 0)])
    for text in descriptions(_SETTINGS.read_text(encoding="utf-8")):
        catalog.add(text, locations=[(_name(_SETTINGS), 0)])
    for path in sorted((ROOT / "migrations" / "versions").glob("*.py")):
        for text in rules(path.read_text(encoding="utf-8")):
            catalog.add(text, locations=[(_name(path), 0)])
    return catalog


def below() -> list[Path]:
    """The modules below the console whose texts come to its pages."""
    found = [ROOT / name for name in _BELOW]
    every = (path for one in found for path in ([one] if one.suffix else one.rglob("*.py")))
    return sorted(path for path in every if _name(path) not in _NO_PAGE)


def sentences(source: str, names: Collection[str]) -> Iterator[str]:
    """The texts of a module for people: what its errors say, and what `said` marks. names: of these."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[first, *_]) if name in names:
                yield from (not_allowed(text).fact for text in _texts(first))


def descriptions(source: str) -> Iterator[str]:
    """What the fields of a module's models are for."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.keyword(arg="description", value=ast.Constant(value=str(text))):
                yield text


def rules(source: str) -> Iterator[str]:
    """What the tables' own rules refuse, in a migration: the facts, as `pipeline.store.errors` splits them."""
    for prefix, literals in _RULE.findall(source):
        text = "".join(part.replace("''", "'") for part in re.findall(r"'((?:[^']|'')*)'", literals))
        first, *others = text.split("%s")
        text = first + "".join(f"%(value{n})s{part}" for n, part in enumerate(others, 1))
        yield not_allowed(f"%(what)s{text}" if prefix else text).fact


def _texts(node: ast.expr) -> Iterator[str]:
    """The text of an expression; several where it chooses between them."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _texts(node.body)
        yield from _texts(node.orelse)
    elif isinstance(node, ast.JoinedStr):
        names: list[str] = []
        text = "".join(_part(part, names) for part in node.values)
        yield text
        for part in node.values:  # a text chosen within the text
            if isinstance(part, ast.FormattedValue) and isinstance(part.value, ast.IfExp):
                yield from (chosen for chosen in _texts(part.value) if " " in chosen)


def _part(part: ast.expr, names: list[str]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    said = next((one.id for one in ast.walk(part.value) if isinstance(one, ast.Name)), "value").strip("_")
    name = said if said not in names else f"{said}{len(names) + 1}"
    names.append(name)
    return f"%({name})s"


def _take(catalog: Catalog, path: Path, method: str) -> None:
    with path.open("rb") as file:
        options = _JINJA if path.suffix == ".jinja" else {}
        for _, text, comments, context in extract(method, file, _KEYWORDS, ("Translators:",), options):
            catalog.add(text, locations=[(_name(path), 0)], auto_comments=comments, context=context)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def written(catalog: Catalog) -> bytes:
    """A catalog as it is kept: sorted, so that two changes meet only where both say the same."""
    file = io.BytesIO()
    write_po(file, catalog, width=110, sort_output=True, no_location=True, omit_header=catalog.locale is None)
    return re.sub(rb'"(?!Language:|Plural-Forms|Content-Type)[A-Z][\w-]+: [^"\n]*\\n"\n', b"", file.getvalue())


def merged(path: Path, texts: Catalog) -> Catalog:
    """A language's catalog with all texts, and no others; what is new in it is empty."""
    with path.open("rb") as file:
        catalog = read_po(file, locale=path.parents[1].name)
    catalog.update(texts, no_fuzzy_matching=True)
    catalog.obsolete.clear()
    return catalog


def untranslated(catalog: Catalog) -> list[str]:
    """The texts that a language lacks."""
    found = []
    for one in catalog:
        forms = one.string if isinstance(one.string, list | tuple) else [one.string or ""]
        if one.id and not all(forms):
            found.append(one.id if isinstance(one.id, str) else one.id[0])
    return found


def main() -> None:
    texts = collected()
    TEMPLATE.write_bytes(written(texts))
    for path in sorted((CONSOLE / "locale").glob("*/LC_MESSAGES/console.po")):
        catalog = merged(path, texts)
        path.write_bytes(written(catalog))
        lacking = untranslated(catalog)
        sys.stdout.write(f"{path.parents[1].name}: {len(lacking)} of {len(catalog)} texts are not translated\n")


if __name__ == "__main__":
    main()
