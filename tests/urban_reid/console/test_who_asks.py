"""Every route of the console and of the API, asked by everybody: what each gets in a live home.

The table has a row a route of the app; what a route does for whoever may is tested beside it.
"""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text
from starlette.routing import Mount

from pipeline.crops.crop_store import place_of_crop
from pipeline.governance.authorizations import ask, open_case, what_it_opens
from pipeline.report.thumbnails import Picture
from pipeline.review.answers import answer
from pipeline.review.queue import read_queue
from pipeline.search.request import upload_probe
from pipeline.standing.searches import start
from pipeline.store import embedded
from schemas.parameters import StandingParameters
from schemas.review import Said
from tests.helpers.governed import Governed, asked
from tests.helpers.homes import superuser_of
from tests.helpers.town import Town
from urban_reid.console.app import make_app
from urban_reid.console.limits import Place
from urban_reid.console.overview import changes
from urban_reid.console.pictures import address
from urban_reid.console.visitors import COOKIE, Visitor

#: Who asks, in the order of the table: the account, and the units of the authorization under which it is signed in.
ASKING: dict[str, tuple[str | None, str | None]] = {
    "nobody": (None, None),
    "operator without an authorization": ("anna", None),
    "operator under one of another street": ("anna", "d1/s2"),
    "operator": ("anna", "d1/s1"),
    "operator who confirms": ("cleo", "d1/s1"),
    "supervisor": ("ben", "d1/s1"),
    "auditor": ("otto", None),
    "engineer": ("emil", None),
}
#: Somebody else, whose session and authorization are of another street.
STRANGER = "stranger"


@dataclass
class House:
    """A live home with somebody seen in d1/s1, and everything that there may be of them."""

    town: Town
    governed: Governed
    client: TestClient
    under: dict[str | None, UUID | None]  # authorizations by unit
    has: dict[str, Any] = field(default_factory=dict)
    _tokens: dict[str, str] = field(default_factory=dict)

    @property
    def visitors(self) -> Any:
        return self.client.app.state.console.visitors  # type: ignore[attr-defined]

    def token(self, who: str) -> str:
        """Of a session that is one for the whole table, as long as nobody signs out."""
        name, unit = ASKING.get(who, ("dora", "d1/s2"))
        if who not in self._tokens:
            self._tokens[who] = "" if name is None else self.signed_in(name, unit)
        return self._tokens[who]

    def signed_in(self, name: str, unit: str | None) -> str:
        self.governed.as_(name, self.under[unit])
        if name == "dora":
            self.governed.sql(
                "UPDATE session SET units = '{d1/s2}' WHERE account_id = (SELECT id FROM account WHERE name = 'dora')"
            )
        token = self.town.store.settings.token
        self.governed.as_(None)
        assert token is not None
        return token.get_secret_value()

    def visitor(self, who: str) -> Visitor | None:
        found: Visitor | None = self.visitors.find(self.token(who))
        return found

    def ask(self, route: str, who: str, values: dict[str, Any], **instead: Any) -> Any:
        """One request of a route: its path's values are taken from `values`, and the rest is sent along.

        instead: things for those of `has` with their names.
        """
        method, path = route.split(" ")
        visitor, things = self.visitor(who), self.has | instead
        values = {name: self.of(things.get(said, said), visitor) for name, said in values.items()}
        named = re.findall(r"{(\w+)(?::path)?}", path)
        for name in named:
            path = re.sub(rf"{{{name}(:path)?}}", str(values[name]), path)
        rest = {name: said for name, said in values.items() if name not in named}
        self.client.cookies.clear()
        headers = {}
        if path.startswith("/api/"):
            headers = {"Authorization": f"Bearer {self.token(who)}"} if visitor else {}
        elif visitor is not None:
            self.client.cookies.set(COOKIE, visitor.token)
        if method == "GET":
            return self.client.get(path, params=rest, headers=headers)
        key = {"form_key": visitor.form_key} if visitor else {}
        if path == "/sign-out":
            del self._tokens[who]
        return self.client.post(path, data=rest | key, headers=headers)

    @staticmethod
    def of(said: Any, visitor: Visitor | None) -> Any:
        """A picture by its address for who asks, and anything else as it is."""
        if not isinstance(said, Picture):
            return said
        return address(said, visitor, 160).rpartition("/")[2] if visitor else "x.y"


def got(answer: Any) -> int:
    """The status of an answer; 401 for one that leads to where one signs in."""
    is_sent_away = answer.headers.get("location", "").startswith("/sign-in")
    return 401 if is_sent_away else int(answer.status_code)


@pytest.fixture(scope="module")
def house(server: embedded.EmbeddedServer, resolved: Town) -> Iterator[House]:
    store = resolved.store
    governed = Governed(store, superuser_of(server, store.settings))
    governed.past_rules("UPDATE authorization_limits SET standing = true")
    soon = datetime.now(UTC) + timedelta(days=1)
    under: dict[str | None, UUID | None] = {None: None}
    for unit in ("d1/s1", "d1/s2"):
        under[unit] = governed.authorized(f"case of {unit}", kind="standing", units=(unit,), expires_at=soon)
    governed.past_rules("UPDATE case_authorization SET to_time = %s", soon)
    with TestClient(make_app(store, ["testserver"]), follow_redirects=False) as client:
        made = House(resolved, governed, client, under)
        made.has = _things(made)
        yield made
    governed.as_(None)


def _things(house: House) -> dict[str, Any]:
    store, now = house.town.store, datetime.now(UTC)
    house.governed.as_("anna", house.under["d1/s1"])
    with store.signed_in() as connection:
        person = connection.execute(text(_PERSON), {"unit": "d1/s1"}).one()
        crops = connection.execute(text(_CROPS), {"tracklets": person.tracklets}).all()
        (pair,) = read_queue(connection, "d1/s1", "anna", most=1).items
    pictures = [Picture(c.camera, bytes(c.picture), c.width_px, c.height_px, c.captured_at, 1.0) for c in crops]
    keys = [side.passage.key.hex() for side in (pair.left, pair.right)]
    given = answer(store, keys[0], keys[1], Said.UNSURE, reviewer="anna", reason="a test").id
    wanted = StandingParameters(
        units=("d1/s1",), crops=(crops[0].key,), bar=0.5, from_time=datetime(2026, 1, 1, tzinfo=UTC),
        to_time=datetime(2026, 1, 2, tzinfo=UTC), reason="the child", operator="anna",
    )  # fmt: skip
    standing = start(store, wanted)
    stored = house.town.crops.get(place_of_crop(crops[0].camera, crops[0].captured_at), bytes(crops[0].picture))
    probe = upload_probe(store, house.town.crops, stored, "anna")
    house.governed.as_(None)
    searched = {"unit": "d1/s1", "reason": "the child", "like": pictures[0]}
    assert house.ask("POST /search", "operator", searched).status_code == 200
    with store.owning() as connection:
        lead = connection.scalar(text("SELECT id FROM lead ORDER BY id LIMIT 1"))
        own = connection.scalar(text(_PERSON.replace("persistent_id, tracklets", "persistent_id")), {"unit": "d1/s2"})
        case = connection.scalar(text("SELECT case_id FROM case_authorization WHERE units = '{d1/s1}'"))
    house.governed.as_("anna")
    other_case = open_case(store, "a case without authorizations", reason="a test")
    pending = ask(store, str(case), asked(units=("d1/s1",)))
    house.governed.as_("ben")
    _, opens = what_it_opens(store, str(pending))
    house.governed.as_(None)
    return {
        "person": person.persistent_id,
        "own person": own,
        "tracklet": person.tracklets[0],
        "picture": pictures[0],
        "other picture": pictures[1],
        "left": keys[0],
        "right": keys[1],
        "answer": given,
        "standing": standing,
        "lead": lead,
        "case": case,
        "other case": other_case,
        "authorization": house.under["d1/s1"],
        "asked": pending,
        "probe": probe,
        "tomorrow": f"{now + timedelta(days=1):%Y-%m-%dT%H:%M}",
        **vars(opens),
    }


_PERSON = "SELECT persistent_id, tracklets FROM identity_now WHERE unit = :unit ORDER BY crops DESC, key LIMIT 1"
_CROPS = (
    "SELECT encode(c.key, 'hex') AS key, c.camera, c.picture, c.width_px, c.height_px, c.captured_at FROM crop c "
    "JOIN identity_member m ON m.crop_id = c.id WHERE m.identity_id = ANY(:tracklets) ORDER BY c.captured_at, c.key "
    "LIMIT 2"
)


def routes_of(app: Any, above: str = "") -> set[str]:
    """METHOD and path of each route of an app, and of what it includes and mounts."""
    found: set[str] = set()
    for route in app.routes:
        if isinstance(route, Mount):
            found |= routes_of(route.app, above + route.path)
        elif hasattr(route, "original_router"):
            found |= routes_of(route.original_router, above)
        else:
            found |= {f"{method} {above}{route.path}" for method in route.methods - {"HEAD"}}
    return found


_UNIT, _WHY = {"unit": "d1/s1"}, {"reason": "a test"}
_PERSON_, _ONE = {"identity": "person"}, {"answer_id": "answer"}
_PAIR = {"left": "left", "right": "right"}
_ASKED = {
    "purpose": "missing-person", "legal_basis": "law 1", "sought": "x", "units": "d1/s1",
    "from_time": "2026-01-01T00:00", "to_time": "2026-01-02T00:00", "expires": "tomorrow",
}  # fmt: skip
_CAMERA = {"camera": "d1/s1/b1/c1"}

#: Of each route what it is asked with, where a value may name what is there (`House.has`), and what it answers to
#: each of ASKING in turn. 401: sign in first; 403: it is not for you; 400 and 404: for you there is no such thing.
TABLE: dict[str, tuple[dict[str, Any], str]] = {
    "GET /": ({}, "401 200 200 200 200 200 200 200"),
    "GET /events/{name}": ({"name": "nothing"}, "401 404 404 404 404 404 404 404"),
    "GET /plan.png": ({}, "401 404 404 404 404 404 404 404"),
    "POST /plan": ({}, "401 403 403 403 403 403 403 303"),
    "GET /words": ({}, "401 200 200 200 200 200 200 200"),
    "GET /enter/{key}": ({"key": "1.x.y"}, "403 403 403 403 403 403 403 403"),
    "GET /sign-in": ({}, "200 200 200 200 200 200 200 200"),
    "POST /sign-in": (
        {"name": "x", "password": "x", "authorization": "x"},
        "403 403 403 403 403 403 403 403",
    ),
    "GET /static/{name}": ({"name": "console.css"}, "200 200 200 200 200 200 200 200"),
    "GET /people/{unit:path}": (_UNIT, "401 403 403 200 200 200 403 403"),
    "GET /person/{identity}": (_PERSON_, "401 403 400 200 200 200 403 403"),
    "GET /person/{identity}/beside": (_PERSON_, "401 403 400 200 200 200 403 403"),
    "GET /pictures/{name}": ({"name": "picture"}, "401 404 404 200 200 200 404 404"),
    "GET /search": ({}, "401 200 200 200 200 200 403 403"),
    "GET /search/people/{name}": ({"name": "x"}, "401 404 404 404 404 404 404 404"),
    # Who may still confirm a lead sees no figures; who has searched confirms none.
    "GET /compare": ({"left": "picture", "right": "other picture"}, "401 403 400 200 403 200 403 403"),
    "GET /leads": ({}, "401 403 200 200 200 200 403 403"),
    "GET /leads/{lead}": ({"lead": "lead"}, "401 403 400 200 200 200 403 403"),
    "GET /leads/{lead}/{side}": ({"lead": "lead", "side": "found"}, "401 403 400 200 200 200 403 403"),
    "POST /leads/{lead}": (_WHY | {"lead": "lead", "same": True}, "401 403 400 403 303 403 403 403"),
    # Whoever approved an authorization asks for no search under it.
    "POST /search": (_UNIT | _WHY | {"wears": "red top"}, "401 403 403 200 403 403 403 403"),
    "GET /review": (_UNIT, "401 403 403 200 200 200 403 403"),
    "POST /review": (_UNIT | _PAIR | _WHY | {"said": "unsure", "way": "pair"}, "401 403 400 303 303 303 403 403"),
    "POST /review/undo": (_UNIT | _ONE, "401 403 400 303 400 400 403 403"),  # once
    "GET /review/undo/{answer_id}": (_ONE, "401 403 400 400 400 400 403 403"),  # it is undone
    "POST /review/follow": (_ONE | {"other": "00000000"}, "401 403 400 400 400 400 403 403"),
    "GET /review/answers": (_UNIT, "401 403 403 200 200 200 403 403"),
    "GET /review/agreement": (_UNIT, "401 403 403 403 403 200 403 403"),
    "GET /review/try": (_UNIT | {"left": "left", "right": "left", "said": "same"}, "401 403 400 400 400 400 403 403"),
    "GET /review/changed/{answer_id}": (_ONE, "401 403 400 200 200 200 403 403"),
    "GET /review/split/{identity}": (_PERSON_, "401 403 400 200 200 200 403 403"),
    "POST /review/split/{identity}": (
        _PERSON_ | {"act": "say", "taken": "tracklet"},
        "401 403 400 400 400 400 403 403",
    ),
    "GET /review/merge/{identity}": (_PERSON_, "401 403 400 200 200 200 403 403"),
    "POST /review/merge/{identity}": (
        _PERSON_ | {"act": "say", "other": "person"},
        "401 403 400 400 400 400 403 403",
    ),
    "GET /cases": ({}, "401 200 200 200 200 200 200 403"),
    "POST /cases": (_WHY | {"name": "a new one"}, "401 303 400 400 400 400 403 403"),  # once
    "GET /cases/{case}": ({"case": "case"}, "401 200 200 200 200 200 200 403"),
    "POST /cases/{case}/ask": ({"case": "case"} | _ASKED, "401 303 303 303 403 403 403 400"),
    "POST /cases/{case}/close": (_WHY | {"case": "other case"}, "401 303 403 403 403 403 403 400"),  # once
    "GET /authorizations/{authorization}": ({"authorization": "authorization"}, "401 200 200 200 200 200 200 403"),
    "POST /authorizations/{authorization}/approve": (
        _WHY | {"authorization": "asked", "crops": "crops", "cameras": "cameras", "identities": "identities"},
        "401 403 403 403 403 303 403 403",
    ),
    "POST /authorizations/{authorization}/refuse": (
        _WHY | {"authorization": "asked"},
        "401 403 403 403 403 403 403 403",  # it was approved
    ),
    "POST /authorizations/{authorization}/revoke": (
        _WHY | {"authorization": "asked"},
        "401 303 403 403 403 403 403 403",  # once
    ),
    "GET /standing": ({}, "401 200 200 200 200 200 200 403"),
    "POST /standing": (
        _WHY | {"units": "d1/s1", "bar": 0.5, "like": "picture"},
        "401 403 400 303 403 403 403 403",
    ),
    "GET /standing/{standing}": ({"standing": "standing"}, "401 200 200 200 200 200 200 403"),
    "GET /standing/{standing}/{number}": (
        {"standing": "standing", "number": 1},
        "401 404 404 200 200 200 404 404",
    ),
    "POST /standing/{standing}/approve": (_WHY | {"standing": "standing"}, "401 403 403 403 403 303 403 400"),
    "POST /standing/{standing}/end": (_WHY | {"standing": "standing"}, "401 303 403 403 403 403 403 400"),  # once
    "GET /cameras": ({}, "401 200 200 200 200 200 200 200"),
    "GET /cameras/{camera:path}/picture": (_CAMERA, "401 403 403 404 404 404 403 403"),
    "GET /cameras/{camera:path}/tried": (_CAMERA, "401 403 403 404 404 404 403 403"),
    "POST /cameras": (_CAMERA | {"address": "no address"}, "401 403 403 403 403 403 403 400"),
    "POST /cameras/try": (_CAMERA, "401 403 403 403 403 403 403 400"),
    "POST /cameras/pause": (_CAMERA | _WHY | {"paused": True}, "401 403 403 403 403 403 403 400"),
    "GET /runs": ({}, "401 403 403 403 403 403 403 200"),
    "GET /models": ({}, "401 403 403 403 403 403 403 200"),
    "POST /models/promote": (_WHY | {"name": "none"}, "401 403 403 403 403 403 403 400"),
    "POST /models/rollback": ({"reason": " "}, "401 403 403 403 403 403 403 400"),
    "GET /settings": ({}, "401 403 403 403 403 403 403 200"),
    "GET /audit": ({}, "401 403 403 403 403 403 200 403"),
    "POST /audit/verify": ({}, "401 403 403 403 403 403 200 403"),
    "POST /audit/export": (_WHY, "401 403 403 403 403 403 200 403"),
    "GET /api/openapi.json": ({}, "200 200 200 200 200 200 200 200"),
    "GET /api/": ({}, "307 307 307 307 307 307 307 307"),
    "GET /api/me": ({}, "401 200 200 200 200 200 200 200"),
    "GET /api/city": ({}, "401 200 200 200 200 200 200 200"),
    "GET /api/cameras": ({}, "401 200 200 200 200 200 200 200"),
    "GET /api/people": (_UNIT, "401 403 403 200 200 200 403 403"),
    "GET /api/people/{identity}": (_PERSON_, "401 403 404 200 200 200 403 403"),
    "GET /api/pictures/{name}": ({"name": "picture"}, "401 404 404 200 200 200 404 404"),
    "POST /api/searches": (_UNIT | _WHY | {"attributes": "red top"}, "401 403 403 200 403 403 403 403"),
    "GET /api/leads": ({}, "401 403 200 200 200 200 403 403"),
    "POST /sign-out": ({}, "401 401 401 401 401 401 401 401"),  # and leads to where one signs in again
}


def test_every_route_answers_whoever_may_and_nobody_else(house: House) -> None:
    assert routes_of(house.client.app) == set(TABLE)
    found, expected = {}, {}
    for route, (values, answers) in TABLE.items():
        expected[route] = answers
        found[route] = " ".join(str(got(house.ask(route, who, values))) for who in ASKING)
    assert found == expected


#: What is there and hidden from who asks, or is nowhere: asked with the one and with the other.
ALIKE: list[tuple[str, dict[str, Any]]] = [
    ("GET /person/{identity}", _PERSON_),
    ("GET /person/{identity}/beside", _PERSON_),
    ("GET /api/people/{identity}", _PERSON_),
    ("GET /pictures/{name}", {"name": "picture"}),
    ("GET /api/pictures/{name}", {"name": "picture"}),
    ("GET /compare", {"left": "picture", "right": "other picture"}),
    ("GET /search", {"like": "picture"}),
    ("POST /search", {"unit": "d1/s2", "like": "picture"} | _WHY),
    ("POST /search", {"unit": "d1/s2", "wears": "red top", "unlike": "picture"} | _WHY),
    ("POST /search", {"unit": "d1/s2", "probe": "probe"} | _WHY),
    ("POST /standing", {"units": "d1/s2", "bar": 0.5, "like": "picture"} | _WHY),
    ("POST /standing", {"units": "d1/s2", "bar": 0.5, "probe": "probe"} | _WHY),
    ("GET /standing", {"like": "picture", "probe": "probe", "unit": "d1/s2"}),
    ("GET /standing/{standing}", {"standing": "standing"}),
    ("GET /standing/{standing}/{number}", {"standing": "standing", "number": 1}),
    ("POST /standing/{standing}/approve", {"standing": "standing"} | _WHY),
    ("POST /standing/{standing}/end", {"standing": "standing"} | _WHY),
    ("POST /review", {"unit": "d1/s2", "said": "same", "way": "pair"} | _PAIR | _WHY),
    ("GET /review/try", {"unit": "d1/s2", "said": "same"} | _PAIR),
    ("POST /review/undo", {"unit": "d1/s2"} | _ONE),
    ("GET /review/undo/{answer_id}", _ONE),
    ("POST /review/follow", _ONE | {"other": "left"}),
    ("GET /review", {"unit": "d1/s2", "last": "answer"}),
    ("GET /review/changed/{answer_id}", _ONE),
    ("GET /review/split/{identity}", _PERSON_),
    ("POST /review/split/{identity}", _PERSON_ | {"act": "say", "taken": "tracklet"}),
    ("POST /review/split/{identity}", {"identity": "own person", "act": "say", "taken": "tracklet"}),
    ("GET /review/merge/{identity}", _PERSON_),
    ("GET /review/merge/{identity}", {"identity": "own person", "other": "person"}),
    ("POST /review/merge/{identity}", {"identity": "own person", "other": "person", "act": "say"} | _WHY),
    ("POST /review/merge/{identity}", {"identity": "person", "other": "own person", "act": "try"}),
    ("GET /cases/{case}", {"case": "case"}),
    ("POST /cases/{case}/ask", {"case": "case"} | _ASKED),
    ("POST /cases/{case}/close", {"case": "case"} | _WHY),
    ("GET /authorizations/{authorization}", {"authorization": "authorization"}),
    ("POST /authorizations/{authorization}/revoke", {"authorization": "authorization"} | _WHY),
    ("GET /leads/{lead}", {"lead": "lead"}),
    ("GET /leads/{lead}/{side}", {"lead": "lead", "side": "sought"}),
    ("POST /leads/{lead}", {"lead": "lead", "same": True} | _WHY),
]


def test_what_is_hidden_and_what_is_nowhere_read_alike(house: House) -> None:
    nowhere = {
        **{name: uuid4() for name in ("person", "answer", "standing", "lead", "case", "authorization", "probe")},
        **{name: sha256(name.encode()).hexdigest() for name in ("left", "right")},
        **{
            name: replace(house.has[name], sha256=sha256(name.encode()).digest())
            for name in ("picture", "other picture")
        },
        "tracklet": 2**40,
    }
    differ = {}
    for route, values in ALIKE:
        hidden, unknown = (house.ask(route, STRANGER, values, **instead) for instead in ({}, nowhere))
        said = [(got(one), _without_names(one.text)) for one in (hidden, unknown)]
        if said[0] != said[1] or got(hidden) >= 500:
            differ[route, tuple(values)] = said
    assert differ == {}


def test_a_stream_that_is_not_for_somebody_is_refused_once(house: House) -> None:
    def refusals() -> int:
        with house.town.store.owning() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM audit WHERE action = 'access.refuse'")) or 0)

    async def heard() -> list[str]:
        async def stays() -> bool:
            return False

        here = house.client.app.state.console  # type: ignore[attr-defined]
        stream = changes(here, house.token("engineer"), "standing", Place("emil"), stays)
        return [event async for event in stream]

    before = refusals()
    assert got(house.ask("GET /events/{name}", "engineer", {"name": "standing"}, standing="standing")) == 403
    assert refusals() == before + 1
    # As of somebody whose role went while the stream was open.
    (last,) = asyncio.run(asyncio.wait_for(heard(), 120))
    assert last.startswith("event: over\n") and refusals() == before + 2


def _without_names(page: str) -> str:
    """A page without ids, keys and the last parts of pictures' addresses."""
    return re.sub(r"[0-9a-f-]{8,}|[\w-]{100,}\.[\w-]{10,}", "*", page)
