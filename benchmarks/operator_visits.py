"""What one operator does at the console, for locust; started by `benchmarks.operators`, which says who there is.

Each signs in once, and then looks at people, searches with a picture of one of them, opens journeys of what was found,
and answers pairs that wait for a review, as whoever knows who is on the pictures would. Between two pages lie some
seconds. Pictures of a page are fetched once, as a browser does. At the end the result has a row of each kind of
request (requests, failures, percentiles), and what each operator asked and gave.
"""

import json
import os
import random
import re
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from locust import HttpUser, between, events, task

_PLAN: dict[str, Any] = json.loads(Path(os.environ["OPERATORS_PLAN"]).read_text())
_NAMES = iter(_PLAN["operators"])
_LOCK = threading.Lock()
_THINK_S = 1.0, 5.0
#: Of all operators: how many audit rows of an action each has made, and answers as (who, passages, said).
_asked: Counter[tuple[str, str]] = Counter()
_given: list[tuple[str, str, str, str]] = []
#: Pages that said that a person or pair has changed since it was shown.
_changed: Counter[str] = Counter()
_CHANGED = ("there is no identity", "may have been joined to another", "no passage", "passages have changed")
_PICTURE = re.compile(r'src="(/pictures/[^"]+)"')
_PERSON = re.compile(r'href="(/person/[0-9a-f-]{36})"')
_LIKE = re.compile(r'href="/search\?[^"]*like=([^"&]+)')


class Operator(HttpUser):
    wait_time = between(*_THINK_S)

    def on_start(self) -> None:
        with _LOCK:
            who = next(_NAMES)
        self.name, self.draw, self.seen = who["name"], random.Random(who["name"]), set[str]()  # nosec B311
        self.client.trust_env = False
        self._get("/sign-in", "sign-in form")
        sent = {"name": self.name, "password": who["password"], "authorization": who["authorization"]}
        self._post("/sign-in", sent, "sign in", "session.start", 303)
        self._get("/", "overview")

    @task(2)
    def look_for_somebody(self) -> None:
        unit = self.draw.choice(_PLAN["units"])
        people = self._get(f"/people/{unit}", "people of a place", "people.show")
        persons = _PERSON.findall(people)
        if not persons:
            return
        self._think()
        likes = _LIKE.findall(self._journey(self.draw.choice(persons)))
        if not likes:
            return
        like = unquote(self.draw.choice(likes))
        self._think()
        form = self._get(f"/search?unit=d1&like={like}", "search form")
        sent = {"form_key": _form_key(form), "unit": "d1", "like": like, "reason": f"load of {self.name}"}
        self._think()
        found = self._post("/search", sent, "search", "search.start", 200)
        for person in list(dict.fromkeys(_PERSON.findall(found)))[:2]:
            self._think()
            self._journey(person)

    @task(3)
    def review(self) -> None:
        second = self.draw.random() < 0.3
        page = self._get(f"/review?unit=d1{'&second=true' if second else ''}", "review", "review.show")
        sent = dict(re.findall(r'<input type="hidden" name="(form_key|left|right|way|unit|n)" value="([^"]*)"', page))
        if "left" not in sent:  # nothing waits
            return
        self._think()
        truth = [_PLAN["truth"].get(sent[side]) for side in ("left", "right")]
        said = "unsure" if None in truth else "same" if truth[0] == truth[1] else "different"
        sent |= {"said": said, "reason": "by eye", "sure": "true"}
        if self._post("/review", sent, "answer", "review.answer", 303) != _GONE:
            _given.append((self.name, sent["left"], sent["right"], said))
            self._get(f"/review?unit=d1{'&second=true' if second else ''}", "review", "review.show")

    @task(1)
    def look_at_the_city(self) -> None:
        self._get("/", "overview")

    def _think(self) -> None:
        time.sleep(self.draw.uniform(*_THINK_S))  # of this operator alone: locust has put its own sleep in its place

    def _journey(self, path: str) -> str:
        return self._get(path, "journey", "person.show")

    def _get(self, path: str, kind: str, action: str = "") -> str:
        with self.client.get(path, name=kind, catch_response=True) as answer:
            page = self._checked(answer, kind, action, 200)
        self._pictures(page)
        return page

    def _post(self, path: str, sent: dict[str, str], kind: str, action: str, status: int) -> str:
        with self.client.post(path, sent, name=kind, allow_redirects=False, catch_response=True) as answer:
            page = self._checked(answer, kind, action, status)
        self._pictures(page)
        return page

    def _checked(self, answer: Any, kind: str, action: str, status: int) -> str:
        if answer.status_code == status:
            answer.success()
            if action:
                _asked[self.name, action] += 1
            return str(answer.text)
        said = _said(answer.text)
        if answer.status_code == 400 and any(words in said for words in _CHANGED):
            answer.success()
            _changed[f"{kind}: {said}"] += 1
        else:
            answer.failure(f"{answer.status_code}: {said}")
        return _GONE

    def _pictures(self, page: str) -> None:
        for path in dict.fromkeys(_PICTURE.findall(page)):
            if path not in self.seen:
                self.seen.add(path)
                self.client.get(path, name="picture")


#: The page that was not there any more.
_GONE = "gone"


def _form_key(page: str) -> str:
    found = re.search(r'name="form_key" value="(\w+)"', page)
    return found[1] if found else ""


def _said(page: str) -> str:
    """What a page of a refusal says."""
    found = re.search(r'role="alert"[^>]*>(.*?)</', page, re.DOTALL)
    return re.sub(r"<[^>]+>", "", found[1] if found else page).strip()[:200]


def _write(environment: Any, **_: object) -> None:
    kinds = [
        {
            "kind": one.name,
            "requests": one.num_requests,
            "failures": one.num_failures,
            "p50_ms": one.get_response_time_percentile(0.5),
            "p95_ms": one.get_response_time_percentile(0.95),
            "longest_ms": one.max_response_time,
        }
        for one in environment.stats.entries.values()
    ]
    result = {
        "kinds": sorted(kinds, key=lambda one: one["kind"]),
        "errors": [f"{one.name}: {one.error} ({one.occurrences} times)" for one in environment.stats.errors.values()],
        "changed": [f"{said} ({times} times)" for said, times in sorted(_changed.items())],
        "asked": [[*key, count] for key, count in sorted(_asked.items())],
        "given": _given,
    }
    Path(_PLAN["result"]).write_text(json.dumps(result))


events.quitting.add_listener(_write)  # type: ignore[no-untyped-call]
