"""Passwords: what may be one, what is stored, and that hashes of other parameters are made new."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from pipeline.governance import passwords
from pipeline.governance.passwords import matches, new_password, renewed
from schemas.errors import InputError

GOOD = "correct horse battery"


def test_the_stored_hash_is_argon2id_with_the_stated_parameters_and_a_salt_of_its_own() -> None:
    first, second = new_password(GOOD, "anna"), new_password(GOOD, "anna")
    assert first != second and GOOD not in first
    found = extract_parameters(first)
    assert (found.type, found.time_cost, found.memory_cost, found.parallelism) == (Type.ID, 3, 65_536, 4)
    assert matches(first, GOOD) and not matches(first, GOOD + " ") and not matches(first, "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("short", "15 to 256 characters and this one 5"),
        ("x" * 257, "15 to 256 characters"),
        ("aaaabbbbaaaabbbb", "five different characters"),
        ("the cat of Anna sleeps", "does not hold the account's name"),
    ],
)
def test_what_may_be_no_password(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        new_password(text, "anna")


def test_a_letter_is_the_same_however_it_is_composed() -> None:
    assert matches(new_password("\u00e9t\u00e9 correct horse", "anna"), "e\u0301te\u0301 correct horse")


def test_half_a_character_is_a_wrong_password_and_no_error() -> None:
    assert not matches(new_password(GOOD, "anna"), "\udcff")


def test_a_hash_of_other_parameters_is_made_new() -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(GOOD)
    assert matches(weak, GOOD)
    made = renewed(weak, GOOD)
    assert made is not None and matches(made, GOOD) and renewed(made, GOOD) is None


@pytest.mark.parametrize("name", ["none", "damaged", "right"])
def test_a_missing_account_costs_as_much_work_as_a_wrong_password(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"none": None, "damaged": "no hash", "right": new_password(GOOD, "anna")}[name]
    passwords._nobodys()
    done: list[str] = []
    verify = PasswordHasher.verify

    def counted(self: PasswordHasher, hashed: str, text: bytes) -> bool:
        done.append(hashed)
        return verify(self, hashed, text)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    assert not matches(stored, "wrong horse battery")
    assert len(done) == 1
    if name != "damaged":
        assert extract_parameters(done[0]) == extract_parameters(new_password(GOOD, "anna"))


def test_many_who_sign_in_at_once_take_the_memory_of_a_few() -> None:
    """Each hash takes 64 MiB, and whoever reaches the console may ask for many."""
    with ThreadPoolExecutor(1) as threads:
        with ExitStack() as taken:
            while passwords._seats.acquire(blocking=False):
                taken.callback(passwords._seats.release)
            waits = threads.submit(matches, None, GOOD)
            with pytest.raises(TimeoutError):
                waits.result(0.5)
        assert waits.result() is False
