"""Builds the docs site: `python -m docs.build [FOLDER]`, or `make docs`. A warning of the generator is an error.

FOLDER (build/docs unless given) gets `pages/`, what the generator reads, and `site/`, what it writes. Pages about the
command line, the settings and the Python modules are written from the code at each build; the others are copied.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import reid_core
from schemas.settings import Settings
from synthetic.rendered_city import simulate_city
from urban_reid.cli import PANELS, app

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
#: Pages that lie at the repository's root, where GitHub looks for them.
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
#: Docs that are not part of the site.
LEFT_OUT = {"plan.md", "build.py", "docstrings.py", "__pycache__"}
#: How a setting's type is called where not by its name in Python.
_KINDS = {
    "dict[str, str]": "JSON object",
    "tuple[str, ...]": "JSON list",
    "str": "text",
    "SecretStr": "text",
    "int": "whole number",
    "float": "number",
    "Path": "folder or file",
}
#: Packages that get a page for each room, in the order of the site's navigation.
PACKAGES = ("reid_core", "pipeline", "schemas", "synthetic", "flows", "urban_reid")


def build(folder: Path) -> Path:
    """The folder of the built site. Raises SystemExit with the generator's output where it warns or fails."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    shutil.copytree(DOCS, pages, ignore=lambda _, names: LEFT_OUT.intersection(names))
    for source, target in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        (pages / target).write_text(text.replace("(docs/", "("), encoding="utf-8")
    (pages / "images" / "rendered-people.png").write_bytes(rendered_people())
    reference = pages / "reference"
    (reference / "modules").mkdir(parents=True)
    (reference / "command-line.md").write_text(command_line_page(), encoding="utf-8")
    (reference / "settings.md").write_text(settings_page(), encoding="utf-8")
    (reference / "python.md").write_text(python_page(), encoding="utf-8")
    (reference / "examples.md").write_text(examples_page(), encoding="utf-8")
    modules = dict(module_pages())
    for name, text in modules.items():
        (reference / "modules" / f"{name}.md").write_text(text, encoding="utf-8")
    decisions = sorted(path for path in (pages / "decisions").glob("*.md"))
    (pages / "decisions" / "index.md").write_text(decisions_page(decisions), encoding="utf-8")
    config = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    config = config.replace('"decisions/*"', _nav("decisions", ["index", *(path.stem for path in decisions)]))
    config = config.replace('"reference/modules/*"', _nav("reference/modules", modules))
    (folder / "zensical.toml").write_text(config, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "zensical", "build", "--strict", "--clean"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )
    said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    if done.returncode != 0 or "warning" in said.lower():
        sys.exit(f"{said}\n{folder}: the site has faults, see above (exit code {done.returncode})")
    return folder / "site"


def command_line_page() -> str:
    """Every command with its arguments, options and example, as --help has them."""
    root = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        "Generated from the program. Every command takes `--help`; most take `--json`, which prints one JSON object on "
        "stdout and everything else on stderr. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.",
        "",
    ]
    for panel, names in PANELS.items():
        lines += [f"## {panel}", ""]
        for name in names:
            for path, command in _commands(root.commands[name], (name,)):  # type: ignore[attr-defined]
                lines += _command(path, command)
    return "\n".join(lines)


def settings_page() -> str:
    """Every setting with its variable, type, default and description."""
    lines = [
        "# Settings",
        "",
        "Generated from `schemas/settings.py`. Each setting is an environment variable; there is no settings file. A "
        "variable that is set to nothing counts as not set.",
        "",
    ]
    nested: list[str] = []
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            nested += [f"## {name.capitalize()}", "", _prose(field.annotation.__doc__ or ""), ""]
            for inner, of in field.annotation.model_fields.items():
                nested += _setting(f"{name}__{inner}", of)
        else:
            lines += _setting(name, field)
    return "\n".join([*lines, *nested])


def python_page() -> str:
    """What `import reid_core` promises, from its docstrings."""
    lines = ["# Python", "", (reid_core.__doc__ or "").strip(), ""]
    for name in reid_core.__all__:
        home = reid_core._MODULES.get(name)
        target = f"{home}.{name}" if home else f"reid_core.{name}"
        lines += [
            f"## `reid_core.{name}`",
            "",
            f"::: {_defined(target)}",
            "    options:",
            "      show_root_heading: false",
            "",
        ]
    return "\n".join(lines)


def examples_page() -> str:
    """The examples, whole."""
    lines = ["# Examples", "", "Each runs in seconds, needs no data, and is run by the tests of this project.", ""]
    for path in sorted((ROOT / "examples").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        _, said, code = text.split('"""', 2)
        lines += [f"## {path.stem.replace('_', ' ').capitalize()}", "", said.strip(), "", "```python", code.strip()]
        lines += ["```", ""]
    return "\n".join(lines)


def module_pages() -> Iterator[tuple[str, str]]:
    """A page a room: (name, text), where a room is a folder of a package, or the modules at its root together."""
    for package in PACKAGES:
        folders = [ROOT / package, *sorted(path.parent for path in (ROOT / package).glob("*/__init__.py"))]
        for folder in folders:
            if folder.name.startswith("_") or folder.name == "templates":
                continue
            name = ".".join(folder.relative_to(ROOT).parts)
            modules = [name, *(f"{name}.{path.stem}" for path in sorted(folder.glob("[!_]*.py")))]
            lines = [f"# {name.replace('.', '/')}", ""]
            for module in modules:
                lines += [f"## `{module}`", "", f"::: {module}", "    options:", "      show_root_heading: false"]
                if module == name:  # of a package, what it defines itself: what it imports stands with its own module
                    lines += [f"      members: {_own_names(folder / '__init__.py') or 'false'}"]
                lines.append("")
            yield name, "\n".join(lines)


def decisions_page(pages: list[Path]) -> str:
    """The list of decisions, by title."""
    lines = ["# Decisions", "", "One short page a decision: what was chosen, what speaks for it, what it costs.", ""]
    for page in pages:
        title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({page.name})")
    return "\n".join([*lines, ""])


def rendered_people() -> bytes:
    """A PNG: three rendered people, each before three cameras, one person a row."""
    rows: dict[str, list[np.ndarray]] = {}
    seen: set[tuple[str, str]] = set()
    for crop in simulate_city(seed=3, cameras=8, people=12).crops():
        if (crop.truth, crop.camera) not in seen and len(rows.get(crop.truth, [])) < 3:
            seen.add((crop.truth, crop.camera))
            rows.setdefault(crop.truth, []).append(cv2.resize(crop.picture, (96, 192), interpolation=cv2.INTER_AREA))
            if sum(len(row) == 3 for row in rows.values()) == 3:
                break
    sheet = np.vstack([np.hstack(row) for row in rows.values() if len(row) == 3])
    assert sheet.shape == (3 * 192, 3 * 96, 3)
    done, data = cv2.imencode(".png", sheet[..., ::-1])
    assert done
    return data.tobytes()


def _nav(folder: str, names: Any) -> str:
    return ", ".join(f'"{folder}/{name}.md"' for name in names)


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """`command` where it can be run, and every command below it."""
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, inner in below.items():
        if not inner.hidden:
            yield from _commands(inner, (*path, name))


def _command(path: tuple[str, ...], command: Any) -> list[str]:
    shown = [p for p in command.params if not getattr(p, "hidden", False) and p.name != "help"]
    arguments = [p for p in shown if type(p).__name__ == "TyperArgument"]
    words = " ".join(["urban-reid", *path, *(p.metavar or p.name.upper() for p in arguments), "[OPTIONS]"])
    lines = [f"### urban-reid {' '.join(path)}", "", "```text", words, "```", "", _prose(command.help or ""), ""]
    for parameter in shown:
        if parameter in arguments:
            name = parameter.metavar or parameter.name.upper()
        else:
            name = ", ".join((*parameter.opts, *parameter.secondary_opts))
            name += f" {parameter.metavar}" if parameter.metavar else ""
        lines += [f"`{name}`", f":   {_text(parameter.help or '')}{_more(parameter)}", ""]
    example = re.sub(r"^Example: ", "", command.epilog or "")
    return [*lines, *(["```shell", example, "```", ""] if example else [])]


def _more(parameter: Any) -> str:
    if parameter.required:
        return " Required."
    found = parameter.default
    if found is None or callable(found) or isinstance(found, bool):
        return ""
    return f" Default: `{getattr(found, 'value', found)}`."


def _setting(name: str, field: FieldInfo) -> list[str]:
    kind = str(field.annotation)
    if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        values = "one of " + ", ".join(f"`{choice}`" for choice in choices[1].replace("'", "").split(", "))
    else:
        kind = getattr(field.annotation, "__name__", kind) if "[" not in kind and "|" not in kind else kind
        kind = re.sub(r"\b(?:pathlib|pydantic\.types|typing)\.", "", kind).replace(" | None", "")
        bounds = ", ".join(f"{sign} {of}" for limit in field.metadata for sign, of in _bounds(limit))
        values = f"{_KINDS.get(kind, kind)} {bounds}".strip()
    if field.default_factory is not None:
        default = f"; default: {_text(field.default_factory.__doc__ or 'from the environment').rstrip('.')}"
    elif field.default is None or field.default in ((), {}):
        default = ""
    else:
        default = f"; default `{field.default}`"
    description = _text(field.description or "").rstrip(".")
    return [f"`URBAN_REID_{name.upper()}`", f":   {description}. *{values}*{default}.", ""]


def _bounds(limit: object) -> Iterator[tuple[str, object]]:
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(limit, name):
            yield sign, getattr(limit, name)


def _own_names(file: Path) -> list[str]:
    """The public functions, classes and constants that a module defines."""
    found = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append(node.name)
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [name for name in found if not name.startswith("_")]


def _defined(name: str) -> str:
    """Where a name is defined, for one that is imported elsewhere."""
    module, _, last = name.rpartition(".")
    found = getattr(sys.modules.get(module) or __import__(module, fromlist=[last]), last)
    return f"{getattr(found, '__module__', module)}.{last}" if isinstance(found, type) or callable(found) else name


def _prose(text: str) -> str:
    return re.sub(r"\n(?=\S)", " ", re.sub(r"\n[ \t]+", "\n", text.strip()).replace("\n\n", "\n\n\n")).strip()


def _text(text: str) -> str:
    """One line of Markdown that shows `text` as it is, but for code in backticks."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _escaped(text: str) -> str:
    return re.sub(r"[<>{}*_\[\]]", lambda found: f"&#{ord(found[0])};", text)


if __name__ == "__main__":
    target = Path(sys.argv[1]).absolute() if len(sys.argv) > 1 else ROOT / "build" / "docs"
    sys.stdout.write(f"{build(target) / 'index.html'}\n")
