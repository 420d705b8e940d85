"""Makes the pictures of the console's guide again: `python -m scripts.console_pictures HOME`.

HOME: the data directory of a demo (`urban-reid demo`), which holds rendered people alone; other cities are refused. The
pictures, WebP, go to docs/images/console. It takes Chromium, as the journeys' tests do.
"""

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from sqlalchemy import text

from pipeline.crops.crop_store import CropStore, place_of_crop
from pipeline.store import Store
from schemas.errors import InputError
from schemas.settings import Settings
from tests.helpers.console import on_loopback
from urban_reid.console.visitors import new_link

FOLDER = Path(__file__).parents[1] / "docs" / "images" / "console"
_WIDTH, _HEIGHT = 1180, 760
#: Somebody with a long journey: a picture of hers, and the identity.
_SOMEBODY = text(
    "SELECT c.camera, c.captured_at, c.picture, i.persistent_id::text AS id FROM identity_now i "
    "JOIN identity_member m ON m.identity_id = i.tracklets[1] JOIN crop c ON c.id = m.crop_id "
    "WHERE i.level = 'district' ORDER BY cardinality(i.tracklets) DESC, c.quality DESC LIMIT 1"
)


def take(page: Any, name: str, *, below: str = "") -> None:
    """Keeps what is to be seen as NAME.webp. below: an element that is scrolled to the top first."""
    page.wait_for_load_state("networkidle")
    if below:
        page.locator(below).evaluate("element => scrollTo(0, element.getBoundingClientRect().top + scrollY - 80)")
        page.wait_for_timeout(300)
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        picture.convert("RGB").save(FOLDER / f"{name}.webp", quality=78, method=6)


def walk(page: Any, probe: Path, identity: str) -> None:
    """Goes the ways of the guide."""
    take(page, "overview")
    page.goto("/people/d1")
    take(page, "people")
    page.goto("/search")
    page.set_input_files("input[name=upload]", probe)
    page.fill("input[name=reason]", "missing child, case 17")
    take(page, "search")
    page.click("#ask button.do")
    page.wait_for_selector("#hits")
    take(page, "leads", below="#hits")
    page.goto(f"/person/{identity}")
    take(page, "journey")
    take(page, "joins", below="#why")
    page.goto(f"/review/split/{identity}")
    take(page, "split")
    page.goto("/review")
    take(page, "review")
    page.goto("/models")
    take(page, "models")
    page.set_viewport_size({"width": 400, "height": 760})
    page.goto("/runs")
    take(page, "phone")


def main() -> None:
    from playwright.sync_api import sync_playwright

    FOLDER.mkdir(parents=True, exist_ok=True)
    settings = Settings(home=Path(sys.argv[1]), operator="anna")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with Store.open(settings, "console pictures") as store:
        with store.begin() as connection:
            if connection.execute(text("SELECT kind FROM city")).scalar() != "synthetic":
                raise InputError(f"{settings.home} holds people who are not rendered; name a demo's data directory")
            row = connection.execute(_SOMEBODY).one()
        data = CropStore(settings).get(place_of_crop(row.camera, row.captured_at), bytes(row.picture))
        probe = settings.home / "probe.jpg"
        probe.write_bytes(data)
        with on_loopback(store) as (url, key), sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            context = browser.new_context(
                base_url=url, viewport={"width": _WIDTH, "height": _HEIGHT}, color_scheme="light", locale="en"
            )
            page = context.new_page()
            page.set_default_timeout(120_000)  # the first search of a busy machine reads the model
            page.goto(new_link(url, key))
            walk(page, probe, row.id)
            browser.close()
        probe.unlink()


if __name__ == "__main__":
    main()
