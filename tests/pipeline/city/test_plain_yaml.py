"""YAML as plain data: what a person reads, or an error with line and column."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.city.plain_yaml import parse
from schemas.errors import InputError


@pytest.mark.parametrize(
    ("written", "read"),
    [
        # Numbers of the core schema of YAML 1.2; YAML 1.1 reads 060 as 48, 1:30 as 90 and 1_000 as 1000.
        ("060", 60),
        ("08", 8),
        ("-0", 0),
        ("+5", 5),
        ("0o17", 15),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("0777.5", 777.5),
        (".inf", math.inf),
        ("-.Inf", -math.inf),
        ("1:30", "1:30"),
        ("1:30:00", "1:30:00"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("٣", "٣"),
        # Words
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("~", None),
        ("null", None),
        ("", None),
        ("=", "="),
        ("<<", "<<"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T08:00:00Z", "2026-01-01T08:00:00Z"),
        # In quotes or as a block: text
        ("'060'", "060"),
        ('"true"', "true"),
        ("|\n  060", "060"),
        ("'{{ x }}'", "{{ x }}"),
    ],
)
def test_a_scalar_is_read_as_a_person_reads_it(written: str, read: Any) -> None:
    found = parse(f"key: {written}").data["key"]
    assert (found, type(found)) == (read, type(read))


def test_not_a_number_is_read() -> None:
    assert math.isnan(parse("key: .nan").data["key"])


@pytest.mark.parametrize("key", ["1", "true", "null", "060", "2026-01-01", "'a'", "<<"])
def test_a_key_is_text(key: str) -> None:
    assert parse(f"{key}: 1").data == {key.strip("'"): 1}


@pytest.mark.parametrize(
    "text", ["\ufeffa: [1, 2]\n", "a:\r\n  - 1\r\n  - 2\r\n", "a:\n- 1\n- 2", "%YAML 1.2\n---\na: [1, 2]"]
)
def test_forms_of_one_document(text: str) -> None:
    assert parse(text).data == {"a": [1, 2]}


@pytest.mark.parametrize("text", ["", "# nothing", "---"])
def test_an_empty_document_is_null(text: str) -> None:
    assert parse(text).data is None


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(f"b{n}: &b{n} [*a,*a,*a,*a]" for n in range(9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {{ x }}", "line 2, column 5: a key must be text; put text that begins with { or \\[ in quotes"),
        ("[a, b]: 1", "line 1, column 1: a key must be text"),
        ("a: 1\n? [a, b]\n: 1", "line 2, column 3: a key must be text"),
        ("a: 1\nb: 2\n'a': 3", "line 3, column 1: the key 'a' is repeated"),
        ("- {x: 1,\n   x: 2}", "line 2, column 4: the key 'x' is repeated"),
        (BOMB, "line 1, column 4: anchors and aliases are not allowed"),
        ("a: *a", "line 1, column 4: anchors and aliases are not allowed"),
        ("a:\n  !!python/object/apply:os.system ['true']", "line 2, column 3: the tag tag:yaml.org,2002:python/object"),
        ("a: !mine []", "line 1, column 4: the tag !mine is not allowed"),
        ("!!int 3", "line 1, column 1: the tag tag:yaml.org,2002:int is not allowed"),
        ("a: [}", "line 1, column 5: "),
        ("a:\n\t- 1", "line 2, column 1: .*found character '\\\\t' that cannot start any token"),
        ("[" * 100_000, "line 1, column 17: nested too deeply"),
        ("a: 1\n---\nb: 2", "line 2, column 1: .*another document"),
        ("a: x\nb: \x00", "line 2, column 4: the character U\\+0000 is not allowed"),
        ("a: \x1b[31m", "line 1, column 4: the character U\\+001B is not allowed"),
        ("a: " + "1" * 5000, "line 1, column 4: a number of 5000 digits"),
        ("%YAML 2.0\n---\na: 1", "line 1, column 1: "),
        ("a: @x", "line 1, column 4: "),
        ('a: "\\q"', "line 1, column 6: .*unknown escape character"),
    ],
)
def test_what_is_not_plain_data_is_one_line_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}") as refusal:
        parse(text)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), "line 2, column 1"),
        (("units",), "line 2, column 1"),
        (("units", 0), "line 3, column 5"),
        (("units", 1, "position", 1), "line 5, column 20"),
        (("units", 1, "position", "x"), "line 5, column 5"),
        (("units", 1, "missing"), "line 4, column 5"),
        (("units", 7), "line 2, column 1"),
    ],
)
def test_the_place_of_a_value_or_of_what_holds_it(path: tuple[str | int, ...], place: str) -> None:
    text = "# a comment\nunits:\n  - code: d1\n  - code: d2\n    position: [12, 40]\n"
    assert parse(text).place(path) == place


def test_an_empty_document_has_a_place() -> None:
    assert parse("").place(("units",)) == "line 1, column 1"


_LONGER = ["- ", ": ", "? ", "units", "\n  ", "---\n", "...", "\ufeff"]
_PIECES = st.sampled_from([*"abd01-+.:,#&*!|>%@`'\"{}[]?<~= \n\t\r\\", *_LONGER])


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(max_size=40) | st.lists(_PIECES, max_size=40).map("".join))
def test_any_text_is_data_or_one_line(text: str) -> None:
    try:
        document = parse(text)
    except InputError as error:
        assert str(error).startswith("line ") and "\n" not in str(error)
    else:
        assert document.place(("a", 0)).startswith("line ")
