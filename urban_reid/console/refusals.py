"""Refusals in the words of pages, and the forms that were refused."""

import re
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from fastapi.responses import HTMLResponse
from pydantic import TypeAdapter, ValidationError

from schemas.errors import UrbanReidError
from urban_reid.console.texts import _, told
from urban_reid.console.words import INSTEAD

Route = TypeVar("Route", bound=Callable[..., Any])

_COMMAND = re.compile(r"`urban-reid (?P<command>[a-z -]+?)(?: [A-Z<-][^`]*)?`|(?P<option>--[a-z-]+)")


def on_page(error: UrbanReidError) -> str:
    """An error as a page says it: what was wrong, and what to do on pages instead of the command that helps."""
    said, instead = told(error.fact), remedy(error.do)
    return f"{said}; {instead}" if instead else said


def remedy(do: str) -> str:
    """What to do on pages where `do` helps on the command line; empty for nothing."""
    commands = list(_COMMAND.finditer(do))
    for found in commands:
        if (instead := INSTEAD.get(found["command"] or found["option"])) is not None:
            return _(instead)
    if not commands:
        return told(do)
    return _("that takes the command line: %(command)s", command=commands[0][0].strip("`"))


@dataclass
class Sent:
    """A form that was refused: where it was sent to, why, and what it said. `is_shown`: its page has said why."""

    path: str = ""
    message: str = ""
    fields: Sequence[tuple[str, str]] = ()
    is_shown: bool = False

    def why(self) -> str:
        """The message, which counts as shown from now on."""
        self.is_shown = True
        return self.message

    def get(self, name: str, otherwise: object = "") -> object:
        """What a field said, for the form that is shown again; `otherwise` where none was sent."""
        return next((said for field, said in self.fields if field == name), otherwise)

    def all(self, name: str) -> list[str]:
        return [said for field, said in self.fields if field == name]


_NONE = Sent()
#: The form that was refused, while its page is shown again.
refused: ContextVar[Sent] = ContextVar("refused", default=_NONE)


def sent(path: str) -> Sent:
    """The refused form if it was sent to `path`, or below it where `path` ends with a slash; else an empty one."""
    found = refused.get()
    is_it = found.path.startswith(path) if path.endswith("/") else found.path == path
    return found if is_it else _NONE


def shown_on(page: Callable[..., HTMLResponse]) -> Callable[[Route], Route]:
    """Of a route that takes a form: where it refuses one, `page` is shown again, with the reason and what was typed.

    `page` gets the console and the visitor, and of the fields of address and form those that it has parameters for.
    """

    def mark(route: Route) -> Route:
        route.page = page  # type: ignore[attr-defined]
        return route

    return mark


def shown_again(route: object, here: Any, found: Any, form: Sent) -> HTMLResponse | None:
    """The page of a refused form; None if it has none, or the form is not on it now. Raises as the page does."""
    page: Callable[..., HTMLResponse] | None = getattr(route, "page", None)
    if page is None:
        return None
    values: dict[str, object] = {}
    for name, kind in get_type_hints(page).items():
        said: object = form.all(name)
        if name in ("here", "found", "return") or not said:
            continue
        try:
            values[name] = TypeAdapter(kind).validate_python(said)
        except ValidationError:
            try:
                values[name] = TypeAdapter(kind).validate_python(form.get(name))
            except ValidationError:
                return None
    token = refused.set(form)
    try:
        again = page(here, found, **values)
        return again if form.is_shown else None
    finally:
        refused.reset(token)
