"""The HTML report: hostile names, narrow and wide windows, contrast, size, pictures."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_core_python.selenium import Axe
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

from orchestrator import html, pipeline
from orchestrator.job import Wishes
from orchestrator.progress import Quiet
from orchestrator.report import Named, Report
from tests.browser import chromium, resize, use_scheme, use_scripts
from tests.servers.base import Options, Server
from tests.site import Site

pytestmark = [pytest.mark.on("rclone_s3"), pytest.mark.filterwarnings("ignore::ResourceWarning")]

ATTACK = "document.title='taken over'"
HOSTILE = (
    f"<script>{ATTACK}<&script>.jpg",
    f'"><img src=x onerror="{ATTACK}">.png',
    f"'><svg onload={ATTACK}>.txt",
    "\u202egpj.exe\u202c.txt",
    "\u2066\u200f\u05d0 right to left.txt",
    "{{ report }}{% raw %}.txt",
    "w" * 251 + ".txt",
    "a b  c.txt",
)
WIDTHS = (360, 1400)


def picture(colour: str = "red", orientation: int = 1) -> bytes:
    """Draw a picture whose left half is black, with an EXIF orientation."""
    image = Image.new("RGB", (80, 40), colour)
    image.paste("black", (0, 0, 40, 40))
    exif = image.getexif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.fixture
def hostile(server: Server, bucket: Options, tmp_path: Path) -> Path:
    """Migrate hostile names, one of them refused, and return the page of the run."""
    site = Site.on(server, bucket, tmp_path)
    for name in HOSTILE:
        site.add(name, picture() if name.endswith("jpg") else b"x")
    site.add(b"not utf-8 \xff <b>.txt")
    assert site.migrate("--skip-refused").states() == {"verified": len(HOSTILE), "refused": 1}
    return next(site.runs.glob("*/report.html"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def violations(page: webdriver.Chrome) -> list[str]:
    found: Mapping[str, Any] = Axe().run(page)
    return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found["violations"]]


def test_no_name_runs_a_script_and_the_page_fits(hostile: Path, browser: webdriver.Chrome) -> None:
    browser.get(hostile.as_uri())
    assert "media-orchestrator" in browser.title
    assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    assert not browser.find_elements(By.CSS_SELECTOR, "[onerror], [onload]")
    for width in WIDTHS:
        resize(browser, width)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"the page is {wide} px wide in a window of {width} px"
        for cell in browser.find_elements(By.CSS_SELECTOR, ".chart td.path"):
            if cell.text in ("image/jpeg", "text/plain"):
                assert cell.size["height"] < 45, f"{cell.text} is broken at {width} px"


def test_contrast_and_structure_pass_axe(hostile: Path, browser: webdriver.Chrome) -> None:
    for scheme in ("light", "dark"):
        use_scheme(browser, scheme)
        browser.get(hostile.as_uri())
        assert violations(browser) == []


def test_axe_would_find_bad_contrast(hostile: Path, browser: webdriver.Chrome) -> None:
    use_scheme(browser, "light")
    browser.get(hostile.as_uri())
    browser.execute_script("document.styleSheets[0].insertRule('h2 {color: #f5f5f0 !important}')")
    assert any(found.startswith("color-contrast") for found in violations(browser))


def test_the_policy_stops_a_script_that_is_not_ours(
    hostile: Path, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    planted = tmp_path / "planted.html"
    text = hostile.read_text(encoding="utf-8")
    planted.write_text(text.replace("<main>", f"<main><script>{ATTACK}</script>"), encoding="utf-8")
    browser.get(planted.as_uri())
    assert browser.title != "taken over"


def test_all_can_be_read_without_scripts_and_searched_with_them(
    hostile: Path, browser: webdriver.Chrome
) -> None:
    use_scripts(browser, allowed=False)
    browser.get(hostile.as_uri())
    assert "not UTF-8" in browser.find_element(By.TAG_NAME, "main").text
    assert not browser.find_elements(By.TAG_NAME, "input")
    use_scripts(browser, allowed=True)
    browser.get(hostile.as_uri())
    row = browser.find_element(By.CSS_SELECTOR, "table[data-searchable] tbody tr")
    assert row.is_displayed()
    browser.find_element(By.TAG_NAME, "input").send_keys("no such name")
    for width in WIDTHS:
        resize(browser, width)
        assert not row.is_displayed()


def in_process(site: Site, **wishes: Any) -> Report:
    site.write_env()
    request = pipeline.Request(
        command="migrate",
        env_file=site.folder / ".env",
        source=site.media,
        runs=site.runs,
        wishes=Wishes(**wishes),
    )
    return pipeline.run(request, Quiet())[0]


def test_a_hundred_thousand_files_make_a_small_page(
    server: Server, bucket: Options, tmp_path: Path, browser: webdriver.Chrome
) -> None:
    site = Site.on(server, bucket, tmp_path)
    site.add("a.txt")
    trouble = tuple(
        Named(name=f"folder/{'name' * 20}{n}.jpg", state="failed", reason="it is not in the store")
        for n in range(100_000)
    )
    page = tmp_path / "big.html"
    page.write_text(html.page(replace(in_process(site), trouble=trouble), []), encoding="utf-8")
    assert page.stat().st_size < 3 << 20
    start = time.monotonic()
    browser.get(page.as_uri())
    assert "and 99000 more" in browser.find_element(By.TAG_NAME, "main").text.lower()
    print(f"opened in {time.monotonic() - start:.2f} s")


def test_the_contact_sheet_is_upright_capped_and_optional(
    server: Server, bucket: Options, tmp_path: Path
) -> None:
    site = Site.on(server, bucket, tmp_path)
    for number in range(30):
        site.add(f"{number:02}.jpg", picture(orientation=6))
    site.add("no picture.jpg", b"this is no JPEG")
    site.migrate()
    text = next(site.runs.glob("*/report.html")).read_text(encoding="utf-8")
    assert text.count("<figure>") == 24
    shown = _first_thumbnail(text)
    assert shown.width < shown.height, "orientation 6 stands on its side"
    assert shown.convert("L").getpixel((20, 10)) < 60, "the black half is above"


def _first_thumbnail(text: str) -> Image.Image:
    data = text.split("data:image/jpeg;base64,")[1].split('"', maxsplit=1)[0]
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_contact_sheet_can_be_left_out(server: Server, bucket: Options, tmp_path: Path) -> None:
    site = Site.on(server, bucket, tmp_path)
    site.add("a.jpg", picture())
    site.migrate("--no-thumbnails")
    assert "<figure>" not in next(site.runs.glob("*/report.html")).read_text(encoding="utf-8")
