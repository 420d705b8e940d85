"""Who may have somebody looked for in a live home, and with whose approval; and when nothing is raised any more."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from pipeline.erasure.erase import erase
from pipeline.erasure.expire import expire
from pipeline.governance.audit_chain import verify_city
from pipeline.governance.authorizations import close_case, revoke
from pipeline.governance.leads import answer_lead, leads, see_lead
from pipeline.governance.purposes import change_limits, limits
from pipeline.standing.searches import approve, end, hits, look_at_pictures, standing_search, standing_searches, start
from pipeline.standing.watch import Watch
from pipeline.store import Store, embedded
from schemas.errors import InputError, NotAllowed
from schemas.parameters import StandingParameters
from tests.helpers.governed import Governed
from tests.helpers.homes import fresh_settings, superuser_of
from tests.helpers.town import Town

PARAMETERS: dict[str, Any] = {"units": ("d1",), "bar": 0.3, "reason": "the child", "operator": "x"}


class Live:
    """A live home half of whose crops are decided, with an authorization of kind standing; `go_on` brings the rest."""

    def __init__(self, town: Town, governed: Governed, lines: list[str]) -> None:
        self.town, self.store, self.governed, self.lines = town, town.store, governed, lines
        self.failed: list[str] = []
        governed.as_("ada")
        change_limits(self.store, type(limits(self.store))(168, 720, False, True), reason="the council")
        self.authorization = governed.authorized(kind="standing")
        with town.store.begin() as connection:
            sql = (
                "SELECT encode(c.key, 'hex') FROM crop c JOIN crop_truth t ON t.crop_id = c.id WHERE truth = :truth "
                "ORDER BY c.quality DESC, c.key LIMIT 1"
            )
            seen = set(connection.scalars(text("SELECT truth FROM crop_truth")))
            truth = min(seen & {json.loads(line)["truth"] for line in lines})
            self.crop = str(connection.scalar(text(sql), {"truth": truth}))

    def start(self, by: str = "anna", authorization: UUID | None = None, **changed: Any) -> UUID:
        self.governed.as_(by, authorization or self.authorization)
        return start(self.store, StandingParameters.model_validate({**PARAMETERS, "crops": [self.crop],
            "from_time": "2026-01-01T00:00Z"} | changed))  # fmt: skip

    def approve(self, standing: UUID, by: str = "ben") -> None:
        self.governed.as_(by, self.authorization)
        assert look_at_pictures(self.store, self.town.crops, standing)
        approve(self.store, str(standing), reason="it is the child")

    def look(self) -> int:
        self.governed.as_("otto")  # whoever is signed in here
        return len(Watch(self.store, self.failed.append).look(0.0))


@pytest.fixture(scope="module")
def halves(city_files: Path) -> tuple[list[str], list[str]]:
    lines = sorted((city_files / "manifest.jsonl").read_text().splitlines(), key=lambda one: json.loads(one)["time"])
    return lines[:100], lines[100:200]


@pytest.fixture(scope="module")
def half(
    server: embedded.EmbeddedServer, city_files: Path, model_folder: Path, halves: tuple[list[str], list[str]]
) -> Iterator[Town]:
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in(halves[0])
        town.resolve()
        yield town


@pytest.fixture(scope="module")
def live(half: Town, server: embedded.EmbeddedServer, halves: tuple[list[str], list[str]]) -> Live:
    return Live(half, Governed(half.store, superuser_of(server, half.store.settings)), halves[1])


def test_one_asks_another_approves_who_saw_the_pictures_and_two_more_confirm(live: Live) -> None:
    store, governed = live.store, live.governed
    standing = live.start()
    assert live.look() == 0 and standing_search(live.store, str(standing)).state == "asked"
    governed.as_("anna", live.authorization)
    with pytest.raises(NotAllowed, match="approved by a supervisor"):
        approve(store, str(standing), reason="me")
    governed.as_("ben")
    with pytest.raises(NotAllowed, match="looks at its pictures first"):
        approve(store, str(standing), reason="unseen")
    assert look_at_pictures(store, live.town.crops, standing) == []
    governed.as_("ben", live.authorization)
    with pytest.raises(NotAllowed, match="ben has not looked at its pictures yet"):
        approve(store, str(standing), reason="unseen")
    live.approve(standing)
    with pytest.raises(NotAllowed, match="approved once"):
        approve(store, str(standing), reason="twice")
    assert live.look() == 1 and live.failed == []
    live.town.take_in(live.lines)
    live.town.resolve()
    assert live.look() == 1 and live.failed == []
    governed.as_("cleo", live.authorization)
    raised = hits(store, standing)
    assert raised and all(
        hit.lead and hit.person is hit.probability is None and hit.verdict == "open" for hit in raised
    )
    assert {row.id for row in leads(store)} == {hit.lead for hit in raised}
    for sql in ("SELECT * FROM search_hit", "SELECT * FROM search_evidence"):
        with store.signed_in() as connection:
            assert connection.execute(text(sql)).all() == []  # who confirms sees no figure
    governed.as_("anna", live.authorization)
    own = hits(store, standing)
    assert len(own) == len(raised) and all(hit.person and hit.probability >= 0.3 for hit in own)
    lead = str(raised[0].lead)
    for name, verdict in (("cleo", "open"), ("dora", "confirmed")):
        governed.as_(name, live.authorization)
        see_lead(store, lead)
        assert answer_lead(store, lead, is_same=True, reason="coat")[1] == verdict
    for name in ("anna", "ben"):
        governed.as_(name, live.authorization)
        see_lead(store, str(raised[-1].lead))
        with pytest.raises(NotAllowed, match="cannot be its verifier too"):
            answer_lead(store, str(raised[-1].lead), is_same=True, reason="mine")
    end(store, str(standing), reason="found")


def test_who_sees_what_is_looked_for(live: Live) -> None:
    standing = live.start()
    for name, sees in (("anna", True), ("cleo", True), ("ben", True), ("otto", True)):
        live.governed.as_(name)
        assert (standing in {row.id for row in standing_searches(live.store)}) is sees, name
        assert hits(live.store, standing) == [] == look_at_pictures(live.store, live.town.crops, standing)
    for other in ("emil", "ada", None):
        live.governed.as_(other)
        with pytest.raises(NotAllowed):
            standing_searches(live.store)
        with live.store.signed_in() as connection:
            for table in ("standing_search", "standing_picture", "standing_passage"):
                assert connection.execute(text(f"SELECT * FROM {table}")).all() == []
    actions = live.governed.sql("SELECT action, actor FROM audit WHERE details ->> 'standing' = %s", str(standing))
    assert actions == [("standing.start", "anna")]
    live.governed.as_("eve")
    end(live.store, str(standing), reason="a supervisor may")


def test_nobody_asks_outside_of_an_authorization_of_the_kind(live: Live) -> None:
    plain = live.governed.authorized("case 18")
    narrow = live.governed.authorized("case 19", kind="standing", units=("d1/s1",))
    for by, authorization, changed, why in (
        ("anna", plain, {}, "needs an authorization of kind standing"),
        ("anna", narrow, {}, "does not cover d1"),
        ("anna", None, {"from_time": "2025-12-31T00:00Z"}, "not within that of the authorization"),
        ("anna", None, {"to_time": "2026-02-01T00:00Z"}, "not within that of the authorization"),
        ("ben", None, {}, "ben is approver in this case"),
    ):
        with pytest.raises(NotAllowed, match=why):
            live.start(by, authorization, **changed)
    for name in ("otto", "emil", "ada", None):
        live.governed.as_(name)
        with pytest.raises(NotAllowed, match="a standing search needs"):
            start(live.store, StandingParameters.model_validate({**PARAMETERS, "crops": [live.crop]}))
    live.governed.as_("anna", narrow)
    with live.store.begin() as connection:
        sql = "SELECT encode(key, 'hex') FROM crop WHERE NOT starts_with(camera, 'd1/s1/') ORDER BY key LIMIT 1"
        hidden = str(connection.scalar(text(sql)))
    with pytest.raises(InputError, match="no crop has the key"):
        start(live.store, StandingParameters.model_validate(
            {**PARAMETERS, "units": ("d1/s1",), "crops": [hidden], "from_time": "2026-01-01T00:00Z"}))  # fmt: skip


def _expired(live: Live, standing: UUID) -> None:
    live.governed.past_rules(
        "UPDATE case_authorization SET expires_at = now() - interval '1 s' WHERE id = %s", str(live.authorization)
    )


def _locked(live: Live, standing: UUID) -> None:
    live.governed.past_rules("UPDATE case_authorization SET locked_at = now() WHERE id = %s", str(live.authorization))


def _revoked(live: Live, standing: UUID) -> None:
    live.governed.as_("eve")
    revoke(live.store, str(live.authorization), reason="no longer")


def _closed(live: Live, standing: UUID) -> None:
    live.governed.as_("eve")
    close_case(live.store, "case 17", reason="found")


def _disabled(live: Live, standing: UUID) -> None:
    live.governed.past_rules("UPDATE account SET disabled_at = now() WHERE name = 'anna'")


def _without_role(live: Live, standing: UUID) -> None:
    live.governed.past_rules(
        "UPDATE account_role SET revoked_at = now() WHERE account_id = (SELECT id FROM account WHERE name = 'anna')"
    )


def _turned_off(live: Live, standing: UUID) -> None:
    live.governed.past_rules("UPDATE authorization_limits SET standing = false")


ENDINGS: list[Callable[[Live, UUID], None]] = [
    _expired,
    _locked,
    _revoked,
    _closed,
    _disabled,
    _without_role,
    _turned_off,
]
_UNDONE = (
    "UPDATE case_authorization SET expires_at = now() + interval '7 days', revoked_at = NULL, revoked_by = NULL, "
    "locked_at = NULL",
    "UPDATE case_file SET closed_at = NULL",
    "UPDATE account SET disabled_at = NULL",
    "UPDATE account_role SET revoked_at = NULL",
    "UPDATE authorization_limits SET standing = true",
)


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_raised_when_what_allowed_it_has_ended(live: Live, ending: Callable[[Live, UUID], None]) -> None:
    standing = live.start()
    live.approve(standing)
    with live.store.begin() as connection:  # a look that began before, and is answered after it
        request = connection.scalar(text("SELECT ask_standing(:id, 'd1')"), {"id": standing})
    try:
        ending(live, standing)
        assert live.look() == 0
        live.governed.as_(None)
        with live.store.signed_in(request) as connection:
            assert connection.execute(text("SELECT granted()")).scalar() is None
        with pytest.raises(NotAllowed), live.store.signed_in(request) as connection:
            connection.execute(
                text(
                    "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance, probability) "
                    "SELECT :request, 1, i.id, m.id, 0.1, 1.0 FROM model m, generate_series(1, 9) AS i (id) LIMIT 1"
                ),
                {"request": request},
            )
        assert live.governed.sql("SELECT count(*) FROM search_hit WHERE request_id = %s", str(request)) == [(0,)]
    finally:
        for statement in _UNDONE:
            live.governed.past_rules(statement)
        live.governed.past_rules("UPDATE standing_search SET ended_at = now() WHERE id = %s", str(standing))


def test_the_key_of_a_look_opens_no_other_search_and_raises_nobody_below_the_bar(live: Live) -> None:
    standing = live.start(bar=0.9)
    live.approve(standing)
    live.governed.as_(None)
    with live.store.begin() as connection:
        ask = text("SELECT ask_standing(:id, 'd1')")
        request = connection.scalar(ask, {"id": standing})
        assert connection.scalar(ask, {"id": standing}) == request  # which is not answered yet
        assert connection.scalar(text("SELECT ask_standing(:id, 'd1/s1')"), {"id": standing}) is None
        other = connection.scalar(text("SELECT min(id) FROM identity_now WHERE unit = 'd1'"))
        model = connection.scalar(text("SELECT id FROM model WHERE in_use"))
    hit = text(
        "INSERT INTO search_hit (request_id, rank, identity_id, model_id, distance, probability) "
        "VALUES (:request, 1, :identity, :model, 0.1, :probability)"
    )
    for probability in (0.89, None):
        with pytest.raises(NotAllowed, match="raises whoever reaches its bar"), live.store.signed_in(request) as open_:
            open_.execute(hit, {"request": request, "identity": other, "model": model, "probability": probability})
    search = (
        "INSERT INTO search_request (operator, reason, unit, from_time, to_time, crop_id, top, model_id) SELECT 'x', "
        "'y', 'd1', '2026-01-01Z', '2026-01-02Z', min(id), 3, :model FROM crop"
    )
    with pytest.raises(NotAllowed, match="asks for no other search"), live.store.signed_in(request) as connection:
        connection.execute(text(search), {"model": model})
    live.governed.as_("anna", live.authorization)  # and nobody makes a look
    with live.store.signed_in() as connection:
        made = search.replace("model_id)", "model_id, standing_id, standing_run)").replace(":model", ":model, :id, 1")
        made = connection.scalar(text(f"{made} RETURNING standing_id"), {"model": model, "id": standing})
    assert made is None
    end(live.store, str(standing), reason="done")


def test_a_case_that_is_erased_takes_along_what_has_not_looked_yet(live: Live) -> None:
    waits, approved = live.start(), live.start()
    live.approve(approved)
    live.governed.as_("ada")
    erase(live.store, "case", ["case 17"], actor="ada", reason="asked for")
    live.governed.as_("otto")
    for standing in (waits, approved):
        row = standing_search(live.store, str(standing))
        assert (row.state, row.reason) == ("ended", "(erased)")
    assert live.look() == 0 and live.failed == []


def test_an_uploaded_picture_comes_with_its_standing_search_and_takes_it_along(live: Live) -> None:
    live.governed.as_("anna", live.authorization)
    probe, picture = uuid4(), next((live.town.files / "pictures").iterdir()).read_bytes()
    asked = StandingParameters.model_validate({**PARAMETERS, "probes": [probe], "from_time": "2026-01-01T00:00Z"})
    with pytest.raises(NotAllowed):
        late = asked.model_copy(update={"to_time": datetime(2100, 1, 1, tzinfo=UTC)})
        start(live.store, late, {probe: picture})
    assert live.governed.sql("SELECT count(*) FROM probe") == [(0,)]
    assert not (live.store.settings.home / "crops" / "_probes").exists()
    standing = start(live.store, asked, {probe: picture})
    live.approve(standing)
    assert live.look() == 1 and live.failed == []
    live.governed.as_("ada")
    erase(live.store, "probe", [str(probe)], actor="ada", reason="asked for")
    live.governed.as_("otto")
    row = standing_search(live.store, str(standing))
    assert (row.state, row.reason, row.ended_by) == ("ended", "(erased)", None)
    assert live.governed.sql(
        "SELECT actor FROM audit WHERE action = 'standing.end' AND details ->> 'standing' = %s", str(standing)
    ) == [("ada",)]


def test_what_was_kept_as_long_as_it_may_be_takes_standing_searches_along(live: Live) -> None:
    """The last test here: it leaves nobody. Nothing that a standing search has written outlives whom it is about."""
    authorization = live.governed.authorized("the last case", kind="standing")
    standing = live.start(authorization=authorization)
    live.governed.as_("ben", authorization)
    assert look_at_pictures(live.store, live.town.crops, standing)
    approve(live.store, str(standing), reason="it is the child")
    assert live.look() == 1 and live.failed == []
    live.governed.as_("anna", authorization)
    assert hits(live.store, standing)
    tables = ("standing_picture", "standing_passage", "standing_message")
    there = [live.governed.sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables]
    assert all(there)
    live.governed.as_("ada")
    done = expire(live.store, actor="ada", now=datetime.now(UTC) + timedelta(days=400))
    assert done.crops and done.versions
    assert [live.governed.sql(f"SELECT count(*) FROM {table}")[0][0] for table in tables] == [0, 0, 0]
    live.governed.as_("otto")
    row = standing_search(live.store, str(standing))
    assert (row.state, row.reason, row.hits) == ("ended", "(erased)", 0)
    assert "is gone" in row.ending and row.looks == 1  # that it looked stays in the audit's numbers
    looks = live.governed.sql("SELECT crop_id, probe_id FROM search_request WHERE standing_id = %s", str(standing))
    assert set(looks) == {(None, None)}
    assert live.look() == 0 and verify_city(live.store).faults == []
