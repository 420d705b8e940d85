"""The city with hostile names and its report, as tests of the pages get it."""

from dataclasses import dataclass
from pathlib import Path

from tests.helpers.town import Town

HOSTILE = (
    '<script>alert("name")</script>',
    '"><img src=x onerror=alert(1)>',
    "two\nlines\tand \u202eturned\u202c 🚶",
    "{{ 7 * 7 }} {% endraw %} &amp; '",
    "../../etc/passwd\x07",
    "https://elsewhere.example/x.js",
)
LINES = 260  # of the manifest, taken in


@dataclass(frozen=True)
class Reported:
    town: Town
    out: Path  # the report's folder
