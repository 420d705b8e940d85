"""Journeys through the console in Chromium, as the people who use it go. Each keeps pictures in pytest's folder."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from starlette.datastructures import URL

from pipeline.cameras.changes import Wanted, add_cameras, remove_camera
from pipeline.cameras.live_server import serving
from pipeline.cameras.rows import write_health
from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.store import Store, embedded
from schemas.feeds import Feed, Health
from tests.helpers.console import on_loopback
from tests.helpers.governed import Governed
from tests.helpers.homes import fresh_settings, superuser_of
from tests.helpers.town import Town
from urban_reid.console.visitors import cookie_name, new_link

pytestmark = pytest.mark.system

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)
WIDTHS = (400, 1000, 1600)
#: axe-core 4.14.0 as Deque publishes it (docs/decisions/axe-core.md).
AXE = (Path(__file__).parents[2] / "helpers" / "axe" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def resolved(server: embedded.EmbeddedServer, city_files: Path, model_folder: Path) -> Iterator[Town]:
    """More of the city than other tests resolve, so that there are pairs enough to review."""
    with fresh_settings(server) as settings, Store.open(settings, "pytest") as store:
        town = Town(store, city_files, model_folder)
        town.take_in((city_files / "manifest.jsonl").read_text().splitlines()[:300])
        town.resolve()
        yield town


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def url_and_key(resolved: Town) -> Iterator[tuple[str, bytes]]:
    """The console on loopback."""
    with on_loopback(resolved.store) as opened:
        yield opened


@pytest.fixture(scope="module")
def open_cookies(browser: Any, url_and_key: tuple[str, bytes]) -> Any:
    """Of somebody who followed the link of an open home."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(new_link(*url_and_key))
    assert "Overview" in page.title()
    cookies = context.cookies()
    context.close()
    return cookies


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, url_and_key: tuple[str, bytes]) -> Iterator[Visit]:
    """Opens a page of somebody with these cookies, in a window of its own; faults of its scripts fail the test."""
    contexts: list[Any] = []
    faults: list[str] = []

    def enter(cookies: Any, **options: Any) -> Any:
        context = browser.new_context(base_url=url_and_key[0], **options)
        context.add_cookies(cookies)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
        return page

    yield enter
    for context in contexts:
        context.close()
    assert not faults


@pytest.fixture(scope="module")
def probe(resolved: Town, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A picture of somebody with a long journey, and the identity that holds it."""
    with resolved.store.begin() as connection:
        row = connection.execute(
            text(
                "SELECT c.camera, c.captured_at, c.picture, i.persistent_id::text AS id "
                "FROM identity_now i JOIN identity_member m ON m.identity_id = i.tracklets[1] "
                "JOIN crop c ON c.id = m.crop_id WHERE i.unit = 'd1' "
                "ORDER BY cardinality(i.tracklets) DESC, c.quality DESC LIMIT 1"
            )
        ).one()
    data = CropStore(resolved.store.settings).get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
    file = tmp_path_factory.mktemp("probe") / "person.jpg"
    file.write_bytes(data)
    return file, row.id


def search(page: Any, file: Path) -> None:
    page.goto("/search")
    page.set_input_files("input[name=upload]", file)
    page.select_option("select[name=unit]", "d1")
    page.fill("input[name=reason]", "case 17")
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector("#hits")


def test_somebody_is_found_from_a_picture_and_followed(
    visit: Visit, open_cookies: Any, probe: tuple[Path, str], tmp_path: Path
) -> None:
    page = visit(open_cookies)
    began = time.monotonic()
    search(page, probe[0])
    page.screenshot(path=tmp_path / "hits.png", full_page=True)
    cards = page.locator("li.card > a")
    cards.first.click()
    page.wait_for_selector("aside:visible h3:has-text('Journey')")
    page.screenshot(path=tmp_path / "beside.png", full_page=True)
    page.keyboard.press("ArrowRight")
    assert cards.nth(1).get_attribute("aria-current") == "true" and cards.first.get_attribute("aria-current") is None
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('Journey')")
    assert page.url.endswith(probe[1]), "the first hit is the person in the picture"
    assert page.locator("article.passage").count() >= 2
    seconds = time.monotonic() - began
    (tmp_path / "times.txt").write_text(f"found and opened: 2 clicks and a key, {seconds:.1f} s\n")
    page.screenshot(path=tmp_path / "journey.png", full_page=True)
    page.locator("summary", has_text="Figures").first.click()
    page.get_by_text("What the model looked at").first.click()
    page.wait_for_selector(".looked svg rect")
    page.screenshot(path=tmp_path / "looked.png", full_page=True)


def test_it_works_without_scripts(visit: Visit, open_cookies: Any, probe: tuple[Path, str]) -> None:
    page = visit(open_cookies, java_script_enabled=False)
    search(page, probe[0])
    assert page.locator("li.card a").count() > 0


def test_a_camera_that_fails_says_why(visit: Visit, open_cookies: Any, tmp_path: Path) -> None:
    page = visit(open_cookies)
    page.goto("/cameras")
    page.fill("input[name=camera]", "d1/s1/b1/c9")
    page.fill("input[name=name]", "Back door")
    page.fill("input[name=address]", "rtsp://127.0.0.1:9/stream")
    page.get_by_role("button", name="Add and try").click()
    page.wait_for_selector("h2:has-text('Back door does not work')")
    assert page.locator("[role=alert]").inner_text()
    page.screenshot(path=tmp_path / "camera.png", full_page=True)
    page.goto("/cameras")
    page.locator("summary", has_text="Try, pause").click()
    page.fill("form[action='/cameras/pause'] input[name=reason]", "repair")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_selector("text=paused")


def test_a_cameras_picture_stays_while_what_stands_beside_it_changes(
    visit: Visit, open_cookies: Any, resolved: Town
) -> None:
    camera = "d1/s1/b1/c6"
    feed = Feed.model_validate({"camera": camera, "address": "rtsp://127.0.0.1:9/x"})

    def fares(people: int) -> None:
        with resolved.store.begin() as connection:
            write_health(connection, Health(camera=camera, state="up", at=datetime.now(UTC), people=people))

    page = visit(open_cookies)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    add_cameras(resolved.store, [Wanted(feed)], operator="pytest")
    try:
        with serving(resolved.store, lambda _: np.zeros((360, 480, 3), np.uint8)):
            fares(0)
            page.goto("/cameras")
            page.wait_for_function("() => document.querySelector('img[data-again]')?.naturalWidth === 480")
            for people in (2, 3, 4):
                fares(people)
                page.wait_for_selector(f".cam-card:has-text('{people} people')", timeout=120_000)
        # Those with a question mark are of the clock, which a slow machine meets.
        assert len([url for url in asked if url.endswith("/picture")]) == 1
    finally:
        remove_camera(resolved.store, camera, operator="pytest", reason="the test is over")


def test_the_audit_is_checked_and_downloaded(visit: Visit, open_cookies: Any, tmp_path: Path) -> None:
    page = visit(open_cookies)
    page.goto("/audit")
    page.get_by_role("button", name="Check that nobody changed it").click()
    page.wait_for_selector("text=Nobody changed the record")
    page.fill("form[action='/audit/export'] input[name=reason]", "yearly report")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download all of it").click()
    assert download.value.suggested_filename == "audit.zip"
    page.screenshot(path=tmp_path / "audit.png", full_page=True)


def test_a_passage_is_taken_out_of_a_person_and_back(
    visit: Visit, open_cookies: Any, probe: tuple[Path, str], tmp_path: Path
) -> None:
    page = visit(open_cookies)
    page.goto(f"/person/{probe[1]}")
    page.get_by_role("link", name="Take passages out").click()
    page.locator("input[name=taken]").first.check()
    page.screenshot(path=tmp_path / "split.png")
    page.get_by_role("button", name="Take them out").click()
    page.wait_for_selector("h1:has-text('What it changed')")
    page.get_by_role("button", name="Undo that answer").click()
    page.wait_for_selector("text=That answer is undone")


_MORE_OPEN = """
INSERT INTO review_open (decision_id, run_id, unit, window_start, window_end, worth)
SELECT d.id, r.id, r.unit, r.window_start, r.window_end, worth_of(d.probability, 4) FROM match_decision d
JOIN run r ON r.id = d.run_id AND r.superseded_at IS NULL WHERE d.verdict = 'apart' ON CONFLICT DO NOTHING
"""


def test_thirty_pairs_are_reviewed_by_keyboard_without_a_wait(
    visit: Visit, open_cookies: Any, server: embedded.EmbeddedServer, resolved: Town, tmp_path: Path
) -> None:
    """Few pairs wait in a small city: pairs that the program has kept apart are put into the queue as well."""
    connection = superuser_of(server, resolved.store.settings)()
    with connection, connection.cursor() as cursor:
        cursor.execute(_MORE_OPEN)
    connection.close()
    page = visit(open_cookies)
    page.goto("/review")
    began, waited = time.monotonic(), []
    seen: set[str] = set()
    for number in range(30):
        if page.locator("[data-answers]").count() == 0:
            break
        shown = page.locator("input[name=left]").input_value() + page.locator("input[name=right]").input_value()
        assert shown not in seen, "an answered pair is shown again"
        seen.add(shown)
        if page.locator("a[rel=next]").count():
            page.wait_for_selector("main[data-ahead]")
        pressed = time.monotonic()
        page.keyboard.press("ddu"[number % 3])
        page.wait_for_function(
            "shown => { const f = document.querySelector('[data-answers]'); return !f || "
            "f.elements.left.value + f.elements.right.value !== shown }",
            arg=shown,
        )
        waited.append(time.monotonic() - pressed)
        page.wait_for_selector("[data-said] .said")
    assert len(seen) == 30
    seconds = time.monotonic() - began
    waits = f"longest wait for the next pair {max(waited[:-1]):.2f} s"
    (tmp_path / "times.txt").write_text(f"{len(seen)} pairs reviewed: {len(seen)} keys, {seconds:.1f} s; {waits}\n")
    page.screenshot(path=tmp_path / "reviewed.png")
    page.keyboard.press("z")
    page.wait_for_selector("text=That answer is undone")
    with resolved.store.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM review_answer WHERE way = 'decision'")) >= len(seen)


def test_the_whole_plan_is_seen_on_a_phone(visit: Visit, open_cookies: Any) -> None:
    page = visit(open_cookies, viewport={"width": 400, "height": 800})
    page.goto("/")
    # Measured at once: what changes by itself puts a new drawing in place of one that was found before.
    drawn = page.evaluate("() => document.querySelector('svg.plan').getBoundingClientRect().toJSON()")
    assert drawn["width"] > 0 and drawn["left"] >= 0 and drawn["right"] <= 400


def test_the_overview_changes_by_itself(visit: Visit, open_cookies: Any, resolved: Town) -> None:
    page = visit(open_cookies)
    page.goto("/cameras")
    page.wait_for_selector("text=paused")
    with resolved.store.begin() as connection:
        connection.execute(text("UPDATE camera_feed SET paused = false WHERE camera = 'd1/s1/b1/c9'"))
    page.wait_for_selector("text=not running", timeout=60_000)


def paths_with(person: str) -> tuple[str, ...]:
    """A page of each kind that an open home has."""
    by_hand = (f"/review/split/{person}", f"/review/merge/{person}", "/review", "/review/answers", "/review/agreement")
    looked_at = ("/", "/people/d1", f"/person/{person}", "/search", *by_hand, "/standing")
    return (*looked_at, "/cameras", "/runs", "/models", "/audit", "/settings", "/words", "/nowhere")


def barriers(page: Any) -> list[Any]:
    """What axe-core finds that keeps people from using the page that is shown: a rule, and where."""
    page.evaluate(AXE)
    return list(
        page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
            ".map(one => [one.impact, one.id, one.nodes.map(node => node.target.join(' '))])"
        )
    )


def test_a_picture_that_is_still_wanted_is_not_loaded_anew(visit: Visit, open_cookies: Any) -> None:
    """Each load is a look, which the audit has. The list changes twice by itself; its pictures come from nowhere."""
    page = visit(open_cookies)
    loaded: list[str] = []
    picture = "<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"

    def look(route: Any) -> None:
        loaded.append(route.request.url.rpartition("/")[2])
        route.fulfill(body=picture, content_type="image/svg+xml")

    lists = (["a"], ["a", "b"], ["b", "a"])
    said = [" ".join(f"<img src='/shots/{name}' alt=''>" for name in names) for names in lists]
    events = "retry: 600000\n\n" + "".join(
        f"data: {json.dumps(one + f'<p>list {n}</p>')}\n\n" for n, one in enumerate(said)
    )
    page.route("**/shots/*", look)
    page.route("**/events/cameras", lambda route: route.fulfill(body=events, content_type="text/event-stream"))
    page.goto("/cameras")
    page.wait_for_selector("text=list 2")
    page.wait_for_function("[...document.querySelectorAll('[data-events] img')].every(one => one.complete)")
    assert sorted(loaded) == ["a", "b"]


_HEARD = """
window.heard = 0;
window.EventSource = class extends EventSource {
  constructor(url) { super(url); this.addEventListener("message", () => { window.heard += 1; }); }
};
"""


def test_what_comes_while_somebody_reads_is_shown_once_it_is_done(visit: Visit, open_cookies: Any) -> None:
    page = visit(open_cookies)
    page.add_init_script(_HEARD)
    sent: list[int] = []

    def events(route: Any) -> None:
        """One list for each time that the page asks, which it does twice."""
        sent.append(len(sent))
        html = f"<p>list {sent[-1]}</p><details><summary>More</summary>of it</details>"
        wait_ms = 600_000 if len(sent) > 1 else 200
        body = f"retry: {wait_ms}\n\ndata: {json.dumps(html)}\n\n"
        if len(sent) > 1:
            page.wait_for_selector("[data-events] details[open]")
        route.fulfill(body=body, content_type="text/event-stream")

    page.route("**/events/cameras", events)
    page.goto("/cameras")
    page.wait_for_selector("text=list 0")
    more = page.locator("[data-events] summary")
    more.click()
    page.wait_for_function("() => window.heard === 2")
    assert page.locator("text=list 0").count() == 1 and page.locator("[data-events].stale").count() == 1
    more.click()  # closed, and it has the focus
    page.locator("h1").click()
    page.wait_for_selector("text=list 1")


def test_a_picture_is_dropped_also_after_a_filter_was_changed(visit: Visit, open_cookies: Any) -> None:
    page = visit(open_cookies)
    page.goto("/search")
    page.locator("summary", has_text="By what the person wears").click()
    page.select_option("select[name=wears] >> nth=0", index=1)
    page.fill("input[name=reason]", "case 17")
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector("#hits")
    page.evaluate("document.querySelector('main').dataset.earlier = 'true'")
    page.select_option("select[name=wears] >> nth=0", index=2)
    page.wait_for_selector("main:not([data-earlier]) .drop")
    page.evaluate(
        "() => { const data = new DataTransfer(); data.items.add(new File(['x'], 'a.png', {type: 'image/png'}));"
        "const drop = {dataTransfer: data, bubbles: true, cancelable: true};"
        "document.querySelector('.drop span').dispatchEvent(new DragEvent('drop', drop)); }"
    )
    assert page.evaluate("document.querySelector('.drop input').files[0].name") == "a.png"


#: A phone in the dark and a wide screen in the light: what is where depends on the width, contrast on the colors.
SIGHTS = (("dark", 400), ("light", 1600))


def check_barriers(page: Any) -> None:
    """Fails for what keeps people from using the page that is shown."""
    for scheme, width in SIGHTS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        assert barriers(page) == [], (page.url, scheme, width)


def test_axe_finds_no_barrier_on_any_page(visit: Visit, open_cookies: Any, probe: tuple[Path, str]) -> None:
    page = visit(open_cookies)
    for path in paths_with(probe[1]):
        page.goto(path)
        check_barriers(page)
    search(page, probe[0])
    check_barriers(page)
    page.locator("summary", has_text="Figures").first.click()
    check_barriers(page)


def test_axe_finds_what_is_a_barrier(visit: Visit, open_cookies: Any) -> None:
    page = visit(open_cookies)
    page.goto("/words")
    page.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert [rule for _, rule, _ in barriers(page)] == ["button-name"]


def test_on_paper_stands_who_saw_it_and_nothing_to_press(
    visit: Visit, open_cookies: Any, probe: tuple[Path, str], tmp_path: Path
) -> None:
    page = visit(open_cookies)
    search(page, probe[0])
    hits = page.url
    for path in (None, *paths_with(probe[1])):
        if path is not None:
            page.goto(path)
        page.emulate_media(media="print")
        for act in ("button", "input", "select", "nav:not(.crumbs)", ".act"):
            assert page.locator(f"{act}:visible").count() == 0, (path or hits, act)
        assert "a lead, not an identification" in page.inner_text("footer")
        assert "Shown to " in page.inner_text("footer")
        page.pdf(path=tmp_path / f"{(path or hits).strip('/').replace('/', '-') or 'overview'}.pdf", format="A4")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.slow)])
def test_no_page_is_wider_than_its_window(
    visit: Visit, open_cookies: Any, probe: tuple[Path, str], tmp_path: Path, scheme: str
) -> None:
    page = visit(open_cookies, color_scheme=scheme)
    for path in paths_with(probe[1]):
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)
            name = path.strip("/").replace("/", "-") or "overview"
            page.screenshot(path=tmp_path / f"{name}-{width}.png", full_page=True)


@pytest.fixture(scope="module")
def cookies_of(server: embedded.EmbeddedServer, resolved: Town, url_and_key: tuple[str, bytes]) -> Callable[..., Any]:
    """The home becomes live: cookies of somebody who has an account, under an authorization or none."""
    governed = Governed(resolved.store, superuser_of(server, resolved.store.settings))
    governed.as_(None)

    def of(name: str, authorization: Any = None) -> Any:
        governed.as_(name, authorization)
        token = resolved.store.settings.token
        governed.as_(None)
        assert token is not None
        return [{"name": cookie_name(URL(url_and_key[0])), "value": token.get_secret_value(), "url": url_and_key[0]}]

    return of


def test_a_case_is_approved_and_a_lead_confirmed_by_two_people(
    visit: Visit, cookies_of: Callable[..., Any], probe: tuple[Path, str], tmp_path: Path
) -> None:
    anna = visit(cookies_of("anna"))
    anna.goto("/people/d1")
    assert "needs an authorization" in anna.inner_text("main")
    check_barriers(anna)
    nobody = visit([])
    nobody.goto("/sign-in")
    check_barriers(nobody)
    anna.goto("/cases")
    check_barriers(anna)
    anna.fill("input[name=name]", "case 17")
    anna.fill("input[name=reason]", "reported by the parents")
    anna.get_by_role("button", name="Open").click()
    anna.wait_for_selector("#ask")
    check_barriers(anna)
    anna.fill("input[name=sought]", "a child in a red coat")
    anna.fill("input[name=legal_basis]", "police act, section 12")
    anna.select_option("select[name=units]", "d1")
    anna.fill("input[name=from_time]", "2026-01-01T00:00")
    anna.fill("input[name=to_time]", "2026-01-02T00:00")
    anna.fill("input[name=expires]", time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 86_400)))
    anna.get_by_role("button", name="Ask").click()
    anna.wait_for_selector("text=What it opens")
    authorization = anna.url.rpartition("/")[2]
    anna.screenshot(path=tmp_path / "asked.png", full_page=True)

    ben = visit(cookies_of("ben"))
    ben.goto("/cases")
    ben.locator("#waiting ~ article a").first.click()
    ben.wait_for_selector("text=What it opens")
    check_barriers(ben)
    ben.fill("input[name=reason]", "in proportion")
    ben.get_by_role("button", name="Approve").click()
    ben.wait_for_selector(".mark.right:has-text('approved')")
    ben.screenshot(path=tmp_path / "approved.png", full_page=True)

    anna = visit(cookies_of("anna", authorization))
    search(anna, probe[0])
    verdicts = []
    for name in ("cleo", "dora"):
        page = visit(cookies_of(name, authorization))
        page.goto("/leads")
        check_barriers(page)
        page.locator("tbody a").first.click()
        page.wait_for_selector(".two img")
        check_barriers(page)
        page.screenshot(path=tmp_path / f"lead-{name}.png", full_page=True)
        page.fill("input[name=reason]", "coat and gait")
        page.get_by_role("button", name="Same person").click()
        page.wait_for_selector("h1:has-text('Leads')")
        verdicts.append(page.locator("tbody tr").first.inner_text())
    assert "confirmed" not in verdicts[0] and "confirmed" in verdicts[1]
