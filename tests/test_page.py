"""The report page in a real browser: no request leaves the file, it works by mouse and keyboard, and for everybody."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_report_files import BLOCKS, MIXING, NASTY, Bench, record

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
SERIOUS = ("serious", "critical")

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"needs one of {', '.join(BROWSERS)} on PATH")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A report of many cells, with a failed trial and text from outside that means harm."""
    folder = tmp_path_factory.mktemp("page")
    grid = {BLOCKS: list(range(1, 31)), MIXING: ["tied", "untied"], "backend": ["torch", "jax"], "seed": [0, 1]}
    report = {"rows": [BLOCKS, MIXING], "columns": ["backend"], "baseline": {MIXING: "tied"}}
    made = Bench(folder, cache, grid=grid, report=report, question=NASTY)
    found = [record(0.5 + i / 1000 + 0.001 * (i * i % 7)) for i in range(240)]
    failed = {"status": "failed", "reason": NASTY, "notes": [], "environment": {}, "sessions": []}
    return made.put(*found[:-1], failed).write() / "report.html"


Open = Callable[..., Any]


@pytest.fixture
def visit(browser: Any, html: Path) -> Iterator[Open]:
    """Opens the page; afterwards nothing has been said on the console, and no request was made but for the file."""
    said: list[str] = []
    opened = []

    def visit(**options: Any) -> Any:
        page = browser.new_page(**{"viewport": {"width": 1200, "height": 900}, **options})
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(html.as_uri())
        opened.append(page)
        return page

    asked: list[str] = []
    yield visit
    for page in opened:
        page.close()
    assert said == []
    assert asked and all(url == html.as_uri() or url.startswith("data:") for url in asked)


def shown(page: Any) -> list[list[str]]:
    """The texts of the rows that can be seen, without the buttons."""
    rows = page.locator("table.main tbody tr[data-row]:visible")
    return page.evaluate("rows => rows.map(row => Array.from(row.cells).slice(1).map(cell => cell.textContent))",
                         rows.element_handles())  # fmt: skip


def heads(page: Any) -> list[str]:
    """The groups that can be seen."""
    return list(page.locator("tr.group:visible").all_inner_texts())


def test_the_table_is_paged_and_sorted_by_mouse(visit: Open) -> None:
    page = visit()
    assert len(shown(page)) == 50 and page.inner_text(".pages span") == "rows 1 to 50 of 60"
    assert heads(page) == [f"{i} block{'s' * (i > 1)}" for i in range(1, 26)]
    page.click("button.next")
    assert len(shown(page)) == 10 and page.is_disabled("button.next") and len(heads(page)) == 5
    head = page.locator("th", has_text=re.compile(r"^mean"))
    head.locator("button").click()
    means = [float(re.match(r"[\d.]+", row[2])[0]) for row in shown(page)]
    assert means == sorted(means) and head.get_attribute("aria-sort") == "ascending" and heads(page) == []
    head.locator("button").click()
    means = [float(re.match(r"[\d.]+", row[2])[0]) for row in shown(page)]
    assert means == sorted(means, reverse=True) and head.get_attribute("aria-sort") == "descending"
    blocks = page.locator("table.main th", has_text="num_blocks")  # a column where the groups are not heads
    blocks.locator("button").click()
    assert [int(row[0]) for row in shown(page)] == sorted(int(row[0]) for row in shown(page))  # 10 after 9
    assert head.get_attribute("aria-sort") == "none"
    blocks.locator("button").click()
    blocks.locator("button").click()
    assert len(heads(page)) == 25 and blocks.is_hidden() and [row[1] for row in shown(page)[:2]] == ["tied", "untied"]


def test_a_filter_leaves_the_rows_with_all_its_words(visit: Open) -> None:
    page = visit()
    page.get_by_label("Filter rows").fill("untied 7")
    assert [(row[0], row[1]) for row in shown(page)] == [("7", "untied"), ("17", "untied"), ("27", "untied")]
    assert heads(page) == ["7 blocks", "17 blocks", "27 blocks"]
    assert page.inner_text(".pages span") == "rows 1 to 3 of 3"
    page.locator("th", has_text=re.compile(r"^mean")).locator("button").click()
    assert len(shown(page)) == 3
    page.get_by_label("Filter rows").fill("grouped")
    assert shown(page) == [] and page.inner_text(".pages span") == "no rows"
    page.get_by_label("Filter rows").fill("")
    assert len(shown(page)) == 50


def test_a_setting_stands_beside_its_baseline_with_its_frameworks_as_columns(visit: Open) -> None:
    page = visit()
    first, second = shown(page)[:2]
    names = [name.strip() for name in page.locator("thead th").all_text_contents()]
    assert names[6:8] == ["●\u00a0torch", "○\u00a0jax"] and {"parameters", "TFLOPs a trial", "train s"} <= set(names)
    assert first[1] == "tied" and first[3] == "—" and re.match(r"[+-]\d", second[3])
    mean = float(second[2])
    assert mean == pytest.approx(sum(float(text.split("\u00a0")[0]) for text in second[5:7]) / 2, abs=0.11)
    group = page.locator("tr[data-row]").locator("nth=0").or_(page.locator("tr[data-row]").locator("nth=1"))
    best = group.locator("strong").all_inner_texts()
    assert best == [str(max(float(first[2]), mean))]


def test_mean_difference_and_p_are_on_the_screen_of_a_phone(visit: Open) -> None:
    page = visit(viewport={"width": 390, "height": 800})
    for name in ("mean", "difference", "p "):
        box = page.locator("thead th", has_text=re.compile(f"^{name}")).bounding_box()
        assert box["x"] + box["width"] <= 390


def test_a_phone_shows_legends_whole_and_letters_of_nine_pixels(visit: Open) -> None:
    page = visit(viewport={"width": 390, "height": 800})
    for figure in page.locator("figure svg").all():
        boxes = [text.bounding_box() for text in figure.locator("g[id*=legend] text").all()]
        assert boxes and all(box["x"] >= 0 and box["x"] + box["width"] <= 390 for box in boxes)
        assert figure.evaluate("svg => svg.getScreenCTM().a * 8") >= 9  # points of the smallest letters


def test_a_figure_is_in_the_colours_of_the_page_and_says_its_values(visit: Open, browser: Any, html: Path) -> None:
    colour = "svg => getComputedStyle(svg).fill"
    seen = [visit(color_scheme=scheme).locator("figure svg").first.evaluate(colour) for scheme in ("light", "dark")]
    assert seen == ["rgb(26, 26, 26)", "rgb(236, 236, 236)"]
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(html.as_uri())
    values = page.locator("figure .value title").all_text_contents()
    assert any(re.fullmatch(r"untied, 3 blocks, jax: \d\d\.\d % \[.*\], n = 2", value) for value in values)
    context.close()
    ids = visit().evaluate("Array.from(document.querySelectorAll('[id]'), one => one.id)")
    assert len(ids) == len(set(ids))


def test_a_row_opens_its_trials_by_keyboard(visit: Open) -> None:
    page = visit()
    page.locator("button.open").first.focus()
    page.keyboard.press("Enter")
    opened = page.locator("tr.trials")
    assert opened.count() == 1 and page.locator("button.open").first.get_attribute("aria-expanded") == "true"
    assert opened.locator("tbody tr").count() == 4  # of both frameworks
    assert opened.locator("th").first.inner_text() == "trial"
    page.keyboard.press("Space")
    assert page.locator("tr.trials").count() == 0
    page.locator("button.sort:visible").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "sort"


def test_trials_stay_with_their_row_when_it_is_sorted(visit: Open) -> None:
    page = visit()
    head = page.locator("th", has_text=re.compile(r"^mean"))
    head.locator("button").click()
    last = page.locator("table.main tbody tr[data-row]:visible").first
    mean = float(re.match(r"[\d.]+", last.locator("td").nth(2).inner_text())[0])
    last.locator("button.open").click()
    values = [float(value) for value in page.locator("tr.trials tbody td:nth-child(4)").all_inner_texts()]
    assert mean == pytest.approx(sum(values) / len(values), abs=0.06)


def test_text_from_outside_is_text(visit: Open) -> None:
    page = visit()
    assert page.evaluate("document.querySelectorAll('script').length") == 2  # the trials, and ours
    assert "<script>alert(1)</script>" in page.inner_text("h1")
    page.click("button.next")
    page.locator("button.open:visible").last.click()
    assert "<script>alert(1)</script>" in page.inner_text("tr.trials")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 390)])
def test_the_page_is_accessible_and_fits_in_every_form(visit: Open, scheme: str, width: int) -> None:
    from axe_core_python.sync_playwright import Axe

    page = visit(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page.locator("button.open").first.click()
    found = Axe().run(page)["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in SERIOUS] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert back == {"light": "rgb(247, 247, 245)", "dark": "rgb(18, 18, 18)"}[scheme]
    for figure in page.locator("figure svg").all():
        assert figure.bounding_box()["width"] > 100


def test_the_accessibility_check_finds_what_is_wrong(visit: Open) -> None:
    from axe_core_python.sync_playwright import Axe

    page = visit(bypass_csp=True)
    page.evaluate("document.querySelector('figure svg').removeAttribute('aria-label')")
    assert "svg-img-alt" in [one["id"] for one in Axe().run(page)["violations"] if one["impact"] in SERIOUS]


def test_all_rows_are_printed_and_no_buttons(visit: Open) -> None:
    page = visit()
    page.emulate_media(media="print")
    assert len(shown(page)) == 60 and page.locator("button.open:visible, .pages:visible").count() == 0


def test_without_scripts_every_row_is_there(visit: Open, browser: Any, html: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(html.as_uri())
    assert page.locator("table.main tbody tr[data-row]:visible").count() == 60
    context.close()
    visit()
