"""The pages in a real browser, from files: no errors, no requests, and all that can be done there.

Chromium is looked for in the environment variable CHROMIUM and on the path; without it these tests
are skipped.
"""

import csv
import io
import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from small_main_job import small_result
from small_sweep import DESCRIPTION, made_up_rows

from nce_sim.report.page import write_report
from nce_sim.report.study_page import StudyReport, write_study
from nce_sim.report.sweep_report import write_sweep

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on the path and none in the variable CHROMIUM"
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        # Without a sandbox, which root cannot have; the pages are our own.
        started = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    write_sweep(made_up_rows(), DESCRIPTION, place / "sweep")
    write_report(small_result(), place / "job")
    write_study(small_study(), place / "study")
    return place


def small_study():
    figure = Figure()
    figure.subplots().plot([1, 2], [3, 4])
    rows = [
        {"name": "b", "cost": "1,200 us [900, 1,500]", "share": 0.5},
        {"name": "a, \"quoted\"", "cost": "80 us [70, 95]", "share": 12.25},
        {"name": "c", "cost": "-", "share": -3.0},
        {"name": "B10", "cost": "-9.5 us [-10, -9]", "share": 1e4},
    ]  # fmt: skip
    return StudyReport(
        "Study", "Lead.", ["Answer."], {"one": (figure, "Caption.")}, rows, [("a", "b")]
    )


@contextmanager
def opened(browser, folder: Path, **options):
    """Open a page, and hold afterwards that it said nothing amiss and asked for nothing."""
    address = (folder / "index.html").as_uri()
    context = browser.new_context(accept_downloads=True, **options)
    page = context.new_page()
    amiss, asked = [], []
    page.on("console", lambda message: amiss.append(message.text))
    page.on("pageerror", lambda error: amiss.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    context.close()
    assert amiss == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [address]


def column(page, number, table="table"):
    return page.eval_on_selector(
        table,
        "(table, n) => Array.from(table.tBodies[0].rows, (row) => row.cells[n].textContent)",
        number,
    )


@pytest.mark.parametrize("name", ["sweep", "job", "study"])
@pytest.mark.parametrize(
    "look", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 400, "height": 700}}]
)
def test_page_opens_in_every_look_without_errors_requests_or_overflow(browser, folders, name, look):
    with opened(browser, folders / name, **look) as page:
        assert page.inner_text("h1")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(255, 255, 255)") == (look.get("color_scheme") != "dark")
        assert varies(page.screenshot())


def varies(png: bytes) -> bool:
    import matplotlib.image

    return float(matplotlib.image.imread(io.BytesIO(png)).std()) > 0.01


@pytest.mark.parametrize("name", ["sweep", "job", "study"])
def test_page_prints_in_light_colours_without_buttons(browser, folders, name):
    with opened(browser, folders / name, color_scheme="dark") as page:
        page.emulate_media(media="print")
        assert not page.is_visible(".tools")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert varies(page.screenshot())
        assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["sweep", "job", "study"])
def test_without_scripts_everything_but_the_plot_is_there(browser, folders, name):
    with opened(browser, folders / name, java_script_enabled=False) as page:
        assert page.locator("button").count() == 0
        assert page.is_visible("table")
        assert page.locator("figure svg").first.is_visible()


def test_columns_sort_as_numbers_and_as_words(browser, folders):
    with opened(browser, folders / "study") as page:
        before = column(page, 0)
        page.click("thead button >> nth=1")
        assert column(page, 0) == ["B10", 'a, "quoted"', "b", "c"]  # what says nothing is last
        assert page.get_attribute("thead th >> nth=1", "aria-sort") == "ascending"
        page.click("thead button >> nth=1")
        assert column(page, 0) == ["b", 'a, "quoted"', "B10", "c"]
        assert page.get_attribute("thead th >> nth=1", "aria-sort") == "descending"
        page.click("thead button >> nth=1")
        assert column(page, 0) == before
        page.focus("thead button >> nth=0")
        page.keyboard.press("Enter")
        assert column(page, 0) == ['a, "quoted"', "b", "B10", "c"]
        assert page.get_attribute("thead th >> nth=1", "aria-sort") == "none"
        page.click("thead button >> nth=2")
        assert column(page, 2) == ["-3.000", "0.500", "12.2", "10,000.0"]


def test_a_head_of_two_lines_sorts_the_column_below_it(browser, folders):
    with opened(browser, folders / "job") as page:
        headers = page.locator("table >> nth=0").locator("thead [aria-sort]")
        names = [name.strip() for name in headers.all_inner_texts()]
        assert names[:2] == ["Neurons", "MACs"]
        number = len(column(page, 0))
        for place in range(len(names)):
            headers.nth(place).locator("button").click()
            assert headers.nth(place).get_attribute("aria-sort") == "ascending"
        latency = next(place for place, name in enumerate(names) if name.startswith("Latency"))
        headers.nth(latency).locator("button").click()
        cells = page.locator("tbody").first.locator("tr").all()
        at = 2 + 2 * 3  # after the shares, and three methods under two faults
        shown = [float(row.locator("td").nth(at).inner_text().replace(",", "")) for row in cells]
        assert len(shown) == number
        assert shown == sorted(shown)


def downloaded(page, table):
    with page.expect_download() as download:
        page.locator(".tools button").nth(table).click()
    text = Path(download.value.path()).read_text(encoding="utf-8")
    return download.value.suggested_filename, list(csv.reader(io.StringIO(text)))


@pytest.mark.parametrize("name", ["sweep", "job", "study"])
def test_each_table_downloads_as_it_is_shown(browser, folders, name):
    with opened(browser, folders / name) as page:
        page.locator("thead button").first.click()
        page.locator("thead button").first.click()
        tables = page.locator("table")
        for number in range(tables.count()):
            file, lines = downloaded(page, number)
            assert file.endswith(".csv")
            shown = tables.nth(number).evaluate(
                "table => Array.from(table.tBodies[0].rows, row => Array.from(row.cells, "
                "cell => cell.textContent.replace(/\\s+/g, ' ').trim()))"
            )
            assert lines[-len(shown) :] == shown
            assert len({len(line) for line in lines}) == 1


def test_download_of_a_grouped_head_names_group_and_column(browser, folders):
    with opened(browser, folders / "job") as page:
        _, lines = downloaded(page, 0)
        assert lines[0][:2] == ["On PEs (%) / Neurons", "On PEs (%) / MACs"]
        assert lines[0][2].startswith("Accuracy (%) dropout")
        assert lines[0][2].endswith(" / LRP")
        assert "Latency (us)" in lines[0]


def choose(page, label, text):
    """Choose from a list by the keyboard alone: its letters."""
    choice = page.get_by_label(label, exact=True)
    choice.focus()
    page.keyboard.type(text)
    assert choice.evaluate("list => list.selectedOptions[0].textContent").startswith(text)


def test_axes_and_filters_of_the_plot_work_by_keyboard(browser, folders):
    with opened(browser, folders / "sweep") as page:
        note = page.locator("#pareto .note").first
        assert note.inner_text().startswith("Shown: 8 of 16 points. 6 of them on the front")
        assert page.locator("#pareto .point").count() == 8
        assert page.locator("#pareto .bars").count() == 2
        choose(page, "Only Fault", "all")
        assert note.inner_text().startswith("Shown: all 16 points.")
        choose(page, "Only Ranking", "Random")
        assert page.locator("#pareto .point").count() == 8
        assert page.locator("#pareto .legend li").all_inner_texts() == ["Random", "Front"]
        choose(page, "Across", "Latency")
        assert "Latency (us)" in page.locator("#pareto svg text").all_text_contents()
        choose(page, "Across", "Asked")
        assert "No front" in note.inner_text()
        assert page.locator(".plot > svg .front").count() == 0
        choose(page, "Colour", "Fault")
        assert page.locator("#pareto .legend li").all_inner_texts() == list(
            dict.fromkeys(row["fault"] for row in made_up_rows())
        )


def test_points_tell_their_numbers_and_mark_their_rows(browser, folders):
    with opened(browser, folders / "sweep") as page:
        page.locator('#pareto .point[tabindex="0"]').focus()
        page.keyboard.press("End")
        page.keyboard.press("ArrowLeft")
        tip = page.locator("#pareto .tip")
        assert tip.is_visible()
        number = int(page.evaluate("document.activeElement.dataset.point"))
        row = made_up_rows()[number]
        text = tip.inner_text()
        assert f"{row['energy_uj']:.3f} uJ [{row['energy_low_uj']:.3f}, " in text
        assert f"{100 * row['accuracy']:.1f} % [" in text
        assert row["fault"] in page.evaluate("document.activeElement.getAttribute('aria-label')")
        page.keyboard.press("Enter")
        assert page.locator("tr.chosen").get_attribute("id") == f"point-{number}"
        page.keyboard.press("Escape")
        assert not tip.is_visible()
        page.locator("#pareto .point").first.hover(force=True)
        assert tip.is_visible()
        page.keyboard.press("Enter")
        assert page.locator("tr.chosen").count() == 0


def test_front_of_the_plot_is_that_of_the_points(browser, folders):
    """The steps of the line pass through the cheapest point and end beyond the best one."""
    with opened(browser, folders / "sweep") as page:
        line = page.locator(".plot > svg .front").get_attribute("d")
        assert line.count("V") == 6
        shown = [row for row in made_up_rows() if row["fault"].endswith("0.5")]
        beaten = [
            row for row in shown
            if any(
                other["energy_uj"] <= row["energy_uj"] and other["accuracy"] >= row["accuracy"]
                and (other["energy_uj"], other["accuracy"]) != (row["energy_uj"], row["accuracy"])
                for other in shown
            )
        ]  # fmt: skip
        assert len(shown) - len(beaten) == 6
