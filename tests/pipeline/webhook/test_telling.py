"""The webhook, with a real receiver on loopback."""

import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from pipeline.cameras.messages import untold_outages
from pipeline.cameras.rows import came_up, remove_feed, went_down
from pipeline.store import Store
from pipeline.webhook import telling as webhook
from pipeline.webhook.hook import FILE, Hook, hook_of, webhook_secret
from pipeline.webhook.telling import telling
from schemas.errors import HomeError, UsageError
from schemas.settings import Settings
from tests.helpers.receiver import SECRET, Receiver, receiving
from tests.helpers.rows import CAMERA, insert_city

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def outage(store: Store) -> Store:
    """A city with a camera that was down from noon on for a minute."""
    with store.begin() as connection:
        insert_city(connection)
        went_down(connection, CAMERA, NOON, "does not answer")
        came_up(connection, CAMERA, NOON + timedelta(minutes=1))
    return store


def test_down_and_up_are_told_once_and_signed(outage: Store, receiver: Receiver) -> None:
    hook = Hook(receiver.url, SECRET)
    assert webhook.tell(outage, hook, [untold_outages], NOON + timedelta(minutes=2)) is None
    assert [message.pop("id") for message in receiver.taken] == ["1-down", "1-up"]
    common = {"camera": CAMERA, "reason": "does not answer"}
    assert receiver.taken == [
        {"event": "camera.down", "at": "2026-01-01T12:00:00+00:00", **common},
        {"event": "camera.up", "at": "2026-01-01T12:01:00+00:00", "down_at": "2026-01-01T12:00:00+00:00", **common},
    ]
    assert (
        webhook.tell(outage, hook, [untold_outages], NOON + timedelta(minutes=3)) is None and len(receiver.taken) == 2
    )
    assert SECRET not in repr(hook) and receiver.url not in repr(hook)


@pytest.mark.parametrize("fault", ["status", "wrong secret", "slow", "nobody"])
def test_what_is_not_taken_waits_and_the_reason_holds_no_address(
    outage: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(webhook, "ANSWER_WITHIN_S", 0.3)
    secret, url = ("another" if fault == "wrong secret" else SECRET), receiver.url
    receiver.status = 500 if fault == "status" else 200
    receiver.wait_s = 1.0 if fault == "slow" else 0.0
    if fault == "nobody":
        url = "http://127.0.0.1:9/verysecret"
    why = webhook.tell(outage, Hook(url, secret), [untold_outages], NOON)
    expected = {
        "status": "answers with status 500",
        "wrong secret": "answers with status 401",
        "slow": "does not answer within 0 s",
        "nobody": "cannot be reached (ConnectError)",
    }
    assert why == expected[fault] and len(untold_outages(outage, NOON)) == 2
    receiver.status, receiver.wait_s = 200, 0.0
    monkeypatch.setattr(webhook, "ANSWER_WITHIN_S", 10.0)
    receiver.taken.clear()
    assert webhook.tell(outage, Hook(receiver.url, SECRET), [untold_outages], NOON) is None and len(receiver.taken) == 2


def test_what_nobody_took_for_a_day_is_not_told_and_a_late_up_is(outage: Store) -> None:
    with outage.begin() as connection:
        went_down(connection, CAMERA, NOON + timedelta(hours=1), "no route")
    day = NOON + timedelta(days=1, minutes=1)
    assert [message.content["id"] for message in untold_outages(outage, day)] == ["2-down"]
    with outage.begin() as connection:
        came_up(connection, CAMERA, day + timedelta(hours=2))
    assert [message.content["id"] for message in untold_outages(outage, day + timedelta(hours=3))] == ["2-up"]


def test_a_thread_tells_and_says_when_it_cannot_once(
    outage: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(webhook, "PAUSES_S", (0.02,))
    outage.settings = outage.settings.model_copy(
        update={"webhook_url": SecretStr(receiver.url), "webhook_secret": SecretStr(SECRET)}
    )
    said: list[str] = []
    receiver.status = 503
    with telling(outage, [untold_outages], said.append, lambda: NOON):
        for _ in range(6000):
            if said:
                break
            time.sleep(0.01)
        time.sleep(0.2)
        receiver.status = 200
        assert receiver.arrived.wait(60)
        for _ in range(6000):
            if len(said) > 1:
                break
            time.sleep(0.01)
    assert said == [
        "the webhook answers with status 503; its messages wait, and are sent again",
        "the webhook takes messages again",
    ]
    assert [message["id"] for message in receiver.taken] == ["1-down", "1-up"]


def test_a_camera_that_is_removed_did_not_come_up(outage: Store) -> None:
    with outage.begin() as connection:
        went_down(connection, CAMERA, NOON + timedelta(hours=1), "no route")
        remove_feed(connection, CAMERA)
    ids = [message.content["id"] for message in untold_outages(outage, NOON + timedelta(hours=2))]
    assert ids == ["1-down", "1-up", "2-down"]


def test_what_was_written_at_the_end_is_told(outage: Store, receiver: Receiver) -> None:
    outage.settings = outage.settings.model_copy(
        update={"webhook_url": SecretStr(receiver.url), "webhook_secret": SecretStr(SECRET)}
    )
    with telling(outage, [untold_outages], print, lambda: NOON):
        pass
    assert [message["id"] for message in receiver.taken] == ["1-down", "1-up"]


def test_the_end_of_several_outages_is_told(outage: Store, receiver: Receiver) -> None:
    with outage.begin() as connection:
        for minutes in (2, 4):
            went_down(connection, CAMERA, NOON + timedelta(minutes=minutes), "no route")
            came_up(connection, CAMERA, NOON + timedelta(minutes=minutes + 1))
    assert webhook.tell(outage, Hook(receiver.url, SECRET), [untold_outages], NOON + timedelta(minutes=9)) is None
    assert len(receiver.taken) == 6


def test_messages_that_are_refused_hold_up_no_other_outage_however_many_they_are(
    outage: Store, receiver: Receiver
) -> None:
    with outage.begin() as connection:
        for minutes in (2, 4, 6):
            went_down(connection, CAMERA, NOON + timedelta(minutes=minutes), "no route")
            came_up(connection, CAMERA, NOON + timedelta(minutes=minutes + 1))
    receiver.refused = {"1-down", "2-down", "3-up"}
    assert (
        webhook.tell(outage, Hook(receiver.url, SECRET), [untold_outages], NOON + timedelta(minutes=9))
        == "answers with status 400"
    )
    assert [message["id"] for message in receiver.taken] == ["3-down", "4-down", "4-up"]
    receiver.refused.clear()
    assert webhook.tell(outage, Hook(receiver.url, SECRET), [untold_outages], NOON + timedelta(minutes=9)) is None
    assert [message["id"] for message in receiver.taken[3:]] == ["1-down", "1-up", "2-down", "2-up", "3-up"]


def test_the_secret_is_made_once_for_this_user(settings: Settings) -> None:
    assert hook_of(settings) is None
    with_url = settings.model_copy(update={"webhook_url": SecretStr("https://alarms.example/x")})
    hook = hook_of(with_url)
    path = settings.home / FILE
    assert hook is not None and hook.secret not in path.read_text() and len(hook.secret) > 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and hook_of(with_url) == hook
    path.write_text("of an earlier version\n")  # as it was
    assert webhook_secret(settings) == "of an earlier version" == webhook_secret(settings)
    assert "earlier" not in path.read_text()
    for damaged, why in (("wrapped:x", "is damaged"), ("", "is empty")):
        path.write_text(damaged)
        with pytest.raises(HomeError, match=why):
            webhook_secret(settings)
    for url in ("alarms.example", "ftp://alarms.example", "https://", "https://alarms.example:x/"):
        with pytest.raises(UsageError, match="URBAN_REID_WEBHOOK_URL: is no address; write https://host/path"):
            hook_of(settings.model_copy(update={"webhook_url": SecretStr(url)}))


def test_messages_leave_the_machine_encrypted_alone(settings: Settings) -> None:
    def hook(url: str) -> Hook | None:
        return hook_of(settings.model_copy(update={"webhook_url": SecretStr(url), "webhook_secret": SecretStr("x")}))

    for url in ("http://alarms.example/x", "http://10.0.0.7/x", "http://localhost.example/x", "http://127.0.0.1.x/"):
        with pytest.raises(UsageError, match="http leaves this machine unencrypted"):
            hook(url)
    for url in ("https://alarms.example/x", "http://localhost:8000/x", "http://127.0.0.2/x", "http://[::1]:1/x"):
        assert hook(url) is not None
