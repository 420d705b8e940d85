"""The console's texts, dates and numbers in the language of who reads.

Texts are written in English where they are used, and looked up in `locale/*/LC_MESSAGES/console.po`: in Python by
`_("a text with %(name)s", name=...)` and `ngettext`, in templates by `_()` and `{% trans %}`. `N_` marks a text that is
looked up later. What the layers below say, errors above all, is English and whole when it comes here: `told` finds it
again by the texts that `scripts/texts.py` collects there. `make texts` brings the catalogs in step.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from gettext import NullTranslations
from importlib.resources import files
from io import BytesIO
from typing import Any

from babel import Locale, negotiate_locale
from babel.dates import format_skeleton
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent
from babel.support import Translations
from jinja2 import Environment, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from pipeline.governance.authorizations import MOST_COUNTED, is_more
from pipeline.report import pages as report
from schemas import text as words

#: A whole percent, as the layers below write it.
_PERCENT = re.compile(r"\d+%")
#: A place that a text leaves for a value.
_VALUE = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True)
class Language:
    """A language that the console speaks. `code`: as in `<html lang>`."""

    code: str
    locale: Locale
    catalog: NullTranslations = field(default_factory=NullTranslations)

    @cached_property
    def _patterns(self) -> list[tuple[str, re.Pattern[str], str]]:
        """Texts with values, the most literal ones first: how each begins, what it looks like, its translation."""
        found = []
        for text, translated in getattr(self.catalog, "_catalog", {}).items():
            parts = _VALUE.split(text) if isinstance(text, str) else []
            literal = sum(len(part) for part in parts[::2])
            if len(parts) > 1 and literal >= 4:
                regex = "".join(re.escape(p) if n % 2 == 0 else f"(?P<{p}>.+?)" for n, p in enumerate(parts))
                found.append((literal, parts[0], re.compile(regex, re.DOTALL), translated))
        return [(begins, pattern, to) for _, begins, pattern, to in sorted(found, key=lambda one: -one[0])]

    def told(self, said: str) -> str:
        """What the program said in English, in this language; as it was where the catalog does not have it."""
        if not said:  # by which a catalog names its own header
            return said
        if (found := self.catalog.gettext(said)) != said:
            return found
        if _PERCENT.fullmatch(said):
            return format_percent(int(said[:-1]) / 100, locale=self.locale)
        for begins, pattern, translated in self._patterns:
            if said.startswith(begins) and (values := pattern.fullmatch(said)):
                return translated % {name: self.told(value) for name, value in values.groupdict().items()}
        where, colon, what = said.partition(": ")  # a name, and what is wrong there
        return f"{where}{colon}{self.told(what)}" if colon else said


ENGLISH = Language("en", Locale("en", "GB"))
_reader: ContextVar[Language] = ContextVar("reader", default=ENGLISH)


@cache
def languages() -> dict[str, Language]:
    """All languages by code: English, and one for each catalog."""
    found = {"en": ENGLISH}
    for folder in sorted(files("urban_reid.console").joinpath("locale").iterdir(), key=lambda one: one.name):
        if folder.is_dir():
            compiled = BytesIO()
            with folder.joinpath("LC_MESSAGES", "console.po").open("rb") as source:
                write_mo(compiled, read_po(source, locale=folder.name))
            compiled.seek(0)
            found[folder.name] = Language(folder.name, Locale.parse(folder.name), Translations(compiled))
    return found


def language() -> Language:
    """The language of who reads."""
    return _reader.get()


@contextmanager
def reading(accepted: str) -> Iterator[Language]:
    """What is said within is said in the first language of an Accept-Language header that the console speaks."""
    known = languages()
    wanted = [part.split(";q=") for part in accepted.replace(" ", "").replace("-", "_").split(",")]
    ordered = sorted((one for one in wanted if _weight(one) > 0), key=_weight, reverse=True)  # stable
    code = negotiate_locale([name for name, *_ in ordered], list(known), sep="_")
    token = _reader.set(known[code] if code else ENGLISH)
    try:
        yield _reader.get()
    finally:
        _reader.reset(token)


def _weight(said: list[str]) -> float:
    try:
        return float(said[1]) if len(said) > 1 else 1.0
    except ValueError:
        return 0.0


def N_(text: str) -> str:
    """Marks a text that `_` or a template looks up later."""
    return text


def _(text: str, **values: object) -> str:
    found = language().catalog.gettext(text) if text else text
    return found % {name: _value(value) for name, value in values.items()} if values else found


def ngettext(one: str, many: str, num: int, **values: object) -> str:
    found = language().catalog.ngettext(one, many, num)
    return found % {name: _value(value) for name, value in {"num": num, **values}.items()}


def chance(probability: float) -> str:
    """A probability as people say it, as `schemas.text.chance`."""
    return told(words.chance(probability))


def told(said: object) -> str:
    """What a layer below said in English, in the language of who reads."""
    return language().told(str(said))


def figure(number: int) -> str:
    return format_decimal(number, locale=language().locale)


def counted(number: int) -> str:
    """A count of what an authorization opens, which ends at MOST_COUNTED."""
    return _("more than %(number)s", number=MOST_COUNTED) if is_more(number) else figure(number)


def fixed(value: float, digits: int = 2) -> str:
    return format_decimal(value, f"#,##0.{'0' * digits}", locale=language().locale)


def percent(share: float, digits: int = 1) -> str:
    pattern = language().locale.percent_formats[None].pattern
    fraction = f"0.{'0' * digits}" if digits else "0"
    return format_percent(share, str(pattern).replace("0", fraction, 1), language().locale)


def day(moment: datetime) -> str:
    """5 Sept 2026."""
    return str(format_skeleton("yMMMd", moment, locale=language().locale))


def duration(seconds: float) -> str:
    """As `pipeline.report.pages.duration`, whose units all languages share."""
    return report.duration(seconds).replace(".", language().locale.number_symbols["latn"]["decimal"])


def install(environment: Environment, shown: Any) -> None:
    """Gives templates `_`, `gettext`, `ngettext` and the filters of this module.

    shown: the environment's `finalize`, which the values of texts pass too. Numbers among them are written as the
    language writes them.
    """

    def ours(text: str) -> Markup:  # what a template itself says, or its translation: it may hold tags
        return Markup(text)  # noqa: S704 # nosec B704

    def filled(text: str, values: dict[str, object]) -> Markup:
        return ours(text) % {name: shown(_value(value)) for name, value in values.items()}

    def looked_up(text: str, **values: object) -> Markup:
        found = language().catalog.gettext(text)
        return filled(found, values) if values else ours(found)

    def trans(text: str, **values: object) -> Markup:  # a block, in which % is doubled
        return filled(language().catalog.gettext(text), values)

    def plural(one: str, many: str, num: int, **values: object) -> Markup:
        return filled(language().catalog.ngettext(one, many, num), {"num": num, **values})

    environment.add_extension("jinja2.ext.i18n")
    environment.policies["ext.i18n.trimmed"] = True
    environment.newstyle_gettext = True  # type: ignore[attr-defined]
    environment.globals |= {"_": looked_up, "gettext": trans, "ngettext": plural}
    for one in (figure, counted, fixed, percent, chance, duration, told):
        environment.filters[one.__name__] = _asked_each_time(one)


def _asked_each_time(write: Callable[..., str]) -> Callable[..., str]:
    """A filter that a template does not fold into itself, with the language of whoever asked first, for a constant."""

    @pass_context
    def filtered(_: Context, *values: Any) -> str:
        return write(*values)

    return filtered


def _value(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return figure(value) if isinstance(value, int) else fixed(value, 1)
