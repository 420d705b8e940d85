"""The console under `urban-reid up` whose processes are killed: nothing is lost, nothing is done twice."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.governance.audit_chain import verify_city
from pipeline.store import Store
from schemas.disk import keep_private
from schemas.settings import Settings
from tests.helpers.command_line import environment_of, program
from tests.helpers.homes import stay_open_in
from tests.helpers.prefect_api import process_of as prefect_of
from tests.helpers.town import Town
from tests.urban_reid.test_up import PATIENCE_S, process_of, wait_until

pytestmark = [pytest.mark.system, pytest.mark.slow]

PAGES = ("/", "/people/d1", "/cameras", "/runs", "/models", "/audit")


@pytest.fixture
def city(home: Path, city_files: Path, model_folder: Path) -> Iterator[Store]:
    """A resolved city in a data directory with its own server, open for the test's own looks."""
    keep_private()
    stay_open_in(home)
    with Store.open(Settings(home=home), "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in((city_files / "manifest.jsonl").read_text().splitlines()[:200])
        town.resolve()
        yield store


class Visitors:
    """People who read pages, search, and review, each in a thread, until they are told to stop."""

    def __init__(self, url: str, cookies: httpx.Cookies, picture: bytes) -> None:
        self._url, self._cookies, self._picture = url, cookies, picture
        self._stopped = threading.Event()
        self.answers: list[tuple[str, int, str]] = []  # path, status, what the page says
        self.searched: list[str] = []  # reasons of searches that were answered
        self.reviewed: list[str] = []
        self.faults: list[BaseException] = []

    def __enter__(self) -> "Visitors":
        works = (self._read, self._read, self._search, self._review)
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[httpx.Client], None]) -> None:
        try:
            with httpx.Client(base_url=self._url, cookies=self._cookies, trust_env=False, timeout=PATIENCE_S) as client:
                work(client)
        except BaseException as error:
            self.faults.append(error)

    def _note(self, path: str, answer: httpx.Response) -> httpx.Response:
        self.answers.append((path, answer.status_code, answer.text))
        return answer

    def _read(self, client: httpx.Client) -> None:
        while not self._stopped.is_set():
            for path in PAGES:
                self._note(path, client.get(path))
                time.sleep(0.05)

    def _sent(self, client: httpx.Client, path: str, fields: dict[str, str], **files: Any) -> httpx.Response:
        """Sends a form, and sends again what comes back of it, as the page offers."""
        while True:
            answer = self._note(path, client.post(path, data=fields, **files))
            if answer.status_code != 503:
                return answer
            assert "was not carried out" in answer.text, answer.text
            kept = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', answer.text))
            assert kept == fields
            time.sleep(0.5)

    def _key(self, client: httpx.Client) -> str:
        found = re.search(r'name="form_key" value="(\w+)"', client.get("/search").text)
        assert found is not None
        return found[1]

    def _search(self, client: httpx.Client) -> None:
        key = self._key(client)
        for number in range(10_000):
            if self._stopped.is_set():
                return
            fields = {"unit": "d1", "reason": f"search {number}", "form_key": key}
            answer = self._sent(client, "/search", fields, files={"upload": ("p.jpg", self._picture)})
            assert answer.status_code == 200, answer.text
            self.searched.append(fields["reason"])
            time.sleep(2.1)

    def _review(self, client: httpx.Client) -> None:
        key = self._key(client)
        for number in range(10_000):
            page = client.get("/review?unit=d1")
            if self._stopped.is_set():
                return
            fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))
            if page.status_code != 200 or "left" not in fields:
                time.sleep(0.5)
                continue
            asked = {name: fields[name] for name in ("left", "right", "unit")}
            asked |= {"said": "unsure", "way": "pair", "reason": f"review {number}", "form_key": key}
            answer = self._sent(client, "/review", asked)
            assert answer.status_code == 303, answer.text
            self.reviewed.append(asked["reason"])
            said = re.search(r"last=([0-9a-f-]+)", answer.headers["location"])
            assert said is not None
            self._sent(client, "/review/undo", {"answer_id": said[1], "unit": "d1", "form_key": key})
            time.sleep(0.3)


def test_what_is_killed_comes_back_and_nothing_is_lost_or_done_twice(city: Store, home: Path, tmp_path: Path) -> None:
    with city.begin() as connection:
        row = connection.execute(
            text("SELECT camera, captured_at, picture FROM crop ORDER BY quality DESC LIMIT 1")
        ).one()
    picture = CropStore(city.settings).get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    with ExitStack() as stack:
        up = subprocess.Popen(
            program("up", "--json"),
            env=environment_of(city.settings),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        stack.callback(up.wait)
        stack.callback(up.terminate)
        assert up.stdout is not None
        stack.enter_context(up.stdout)
        pages = json.loads(up.stdout.readline())["console"]
        browser = stack.enter_context(httpx.Client(base_url=pages["url"], trust_env=False, timeout=PATIENCE_S))
        assert browser.get(pages["link"]).status_code == 303
        wait_until(lambda: (home / "search.sock").exists())
        core = "reid_core.core_process.service"

        def database() -> int:
            return int((home / "postgres" / "postmaster.pid").read_text().split()[0])

        with Visitors(pages["url"], browser.cookies, picture) as people:

            def kill(find: Callable[[], int | None]) -> None:
                searches, killed = len(people.searched), find()
                assert killed is not None
                os.kill(killed, signal.SIGKILL)
                wait_until(lambda: len(people.searched) > searches + 1 or people.faults)
                wait_until(lambda: find() not in (None, killed) or people.faults)

            wait_until(lambda: (people.searched and people.reviewed) or people.faults)
            kill(database)
            kill(lambda: process_of(home, core))
            kill(database)
            prefect, before = prefect_of(home), len(people.answers)
            kill(lambda: prefect_of(home))
            assert prefect_of(home) != prefect
            assert all(status != 503 for _, status, _ in people.answers[before:])
        assert not people.faults
        statuses = Counter(status for _, status, _ in people.answers)
        assert set(statuses) <= {200, 303, 503}, statuses
        for _, status, shown in people.answers:
            assert status != 503 or ("does not answer" in shown and re.search(r"since \d\d:\d\d:\d\d", shown)), shown
        assert all(browser.get(path).status_code == 200 for path in PAGES)
    with city.owning() as connection:
        one = "SELECT count(*) FROM {} WHERE reason = :reason"
        for reason in people.searched:
            for what in ("search_request", "(SELECT * FROM audit WHERE action = 'search.start') a"):
                assert connection.scalar(text(one.format(what)), {"reason": reason}) == 1, (what, reason)
        finished = connection.scalars(text("SELECT reason FROM search_request WHERE finished_at IS NOT NULL")).all()
        assert set(people.searched) <= set(finished)
        for reason in people.reviewed:
            for what in ("review_answer", "(SELECT * FROM audit WHERE action = 'review.answer') a"):
                assert connection.scalar(text(one.format(what)), {"reason": reason}) == 1, (what, reason)
        assert (
            connection.scalar(
                text(
                    "SELECT count(*) FROM audit a LEFT JOIN audit_chain c ON c.audit_id = a.id WHERE c.audit_id IS NULL"
                )
            )
            == 0
        )
    assert not verify_city(city).faults
