"""The page, as people use it, in a headless Chromium."""

import json
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from .servers import DATA, NORMAL, run_cli, serving

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's package chromium")
MINUTES = 60_000
DROP = """([program, data]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([program], "my normal.stan"));
    dataTransfer.items.add(new File([data], "data.json"));
    const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
    document.body.dispatchEvent(drop);
}"""
# Of texts and what is behind them, as WCAG 2.2 has it.
CONTRASTS = """() => {
    const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const luminance = (color) => {
        const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return color === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : color;
    };
    return [...document.querySelectorAll("h1, .soft, button, textarea, .gutter")].map((element) => {
        const [a, b] = [getComputedStyle(element).color, behind(element)].map(luminance);
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
}"""
FUNNEL = (
    "parameters { real v; vector[3] x; } model { v ~ normal(0, 3); x ~ normal(0, exp(v / 2)); }"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("page") / "data", "--jobs", 2, "--threads", 1) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def visiting(browser, url, refused=(), **how):
    """A page that complains of nothing: no exception, no blocked resource, no request elsewhere."""
    context = browser.new_context(**how)
    page = context.new_page()
    page.set_default_timeout(2 * MINUTES)
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on(
        "request",
        lambda asked: (
            None if asked.url.startswith((url, "blob:")) else complaints.append(asked.url)
        ),
    )
    page.goto(f"{url}/")
    page.wait_for_selector("#program")
    yield page
    context.close()
    expected = [f"status of {status}" for status in refused]
    assert [c for c in complaints if not any(e in c for e in expected)] == []


def write(page, program, data="", **options):
    page.get_by_label("Stan program").fill(program)
    page.get_by_label("Data (JSON)").fill(data)
    if options:
        page.get_by_text("Options", exact=True).click()
        for label, value in options.items():
            page.get_by_label(label).fill(str(value))


def fit_button(page):
    return page.get_by_role("button", name="Fit", exact=True)


def test_from_a_mistake_to_a_posterior_beside_nuts(server, browser, tmp_path):
    with visiting(browser, server.url, refused=[422], accept_downloads=True) as page:
        page.get_by_role("button", name="Try an example").click()
        right = page.get_by_label("Stan program").input_value()
        page.get_by_label("Stan program").fill(right.replace("normal(0, 5)", "normal(0, nu)"))
        fit_button(page).click()
        page.wait_for_selector(".gutter .wrong")
        wrong = 1 + right[: right.index("normal(0, 5)")].count("\n")
        assert page.locator(".gutter .wrong").inner_text() == str(wrong)
        assert "nu" in page.get_by_role("alert").inner_text()

        page.get_by_label("Stan program").fill(right)
        page.get_by_role("button", name="Check", exact=True).click()
        page.get_by_text("10 unconstrained parameters, 18 scalars").wait_for()
        fit_button(page).click()
        page.wait_for_url("**/#/runs/*")
        page.wait_for_selector(".chart polyline.fit")
        page.locator(".figures", has_text="rejected draws").wait_for()
        verdict = page.get_by_label("Verdict").first
        verdict.wait_for()
        fit = page.url.rpartition("/")[2]
        result = server.client.get(f"/v1/fits/{fit}").json()["result"]
        assert verdict.locator("strong").inner_text().lower() == result["verdict"]
        assert f"{result['log_evidence']:.3f}" in page.locator(".figures").inner_text()
        mu = page.locator("tr", has=page.get_by_role("button", name="mu", exact=True))
        assert f"{result['scalars'][0]['Mean']:.3f}" in mu.inner_text()

        page.get_by_role("button", name="Run NUTS").click()
        page.get_by_role("button", name="Download the comparison").wait_for()
        page.wait_for_selector(".histogram.reference")
        assert "NUTS mean" in page.locator("thead").inner_text()
        page.get_by_label("Names that contain").fill("tau")
        page.get_by_role("button", name="tau", exact=True).click()
        page.get_by_role("img", name=re.compile("Histogram of tau")).wait_for()
        for button, beginning in (
            ("Draws (NetCDF)", b"\x89HDF"), ("Trace (CSV)", b"step,seconds,elbo"),
            ("Report", b"<!DOCTYPE html>"), ("Download the comparison", b"<!DOCTYPE html>"),
        ):  # fmt: skip
            with page.expect_download() as waiting:
                page.get_by_role("button", name=button, exact=True).click()
            waiting.value.save_as(tmp_path / "file")
            assert (tmp_path / "file").read_bytes().startswith(beginning), button

        page.reload()
        page.wait_for_selector(".histogram.reference")


def test_it_works_by_keyboard(server, browser):
    with visiting(browser, server.url) as page:
        page.keyboard.press("Tab")
        for _ in range(20):
            if page.evaluate("document.activeElement.id") == "program":
                break
            page.keyboard.press("Tab")
        page.keyboard.insert_text(NORMAL)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "data"
        page.keyboard.insert_text('{"y": 1}')
        page.keyboard.press("Control+Enter")
        page.wait_for_url("**/#/runs/*")
        cancel = page.get_by_role("button", name="Cancel")
        cancel.focus()
        page.keyboard.press("Enter")
        page.get_by_text("It was cancelled.").wait_for()
        page.get_by_role("button", name="Delete", exact=True).focus()
        page.keyboard.press("Enter")
        page.get_by_role("dialog").get_by_role("button", name="Delete").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/#/new")


def test_data_that_are_not_json_are_refused_at_their_line(server, browser):
    with visiting(browser, server.url, refused=[422]) as page:
        write(page, NORMAL, '{\n  "y": 1,\n}')
        fit_button(page).click()
        assert page.locator(".gutter .wrong").inner_text() == "3"
        page.get_by_label("Data (JSON)").fill('{"z": 1}')
        fit_button(page).click()
        page.locator("#data-problem", has_text="y").wait_for()


def test_what_people_write_is_text(server, browser):
    """A program, and so its compiler's words, may hold markup."""
    with visiting(browser, server.url, refused=[422]) as page:
        write(page, 'model { print("<img src=x id=evil>"); <b id=evil>y</b> ~ normal(0, 1); }')
        fit_button(page).click()
        page.get_by_role("alert").first.wait_for()
        assert page.locator("#evil").count() == 0


def test_files_are_dropped(server, browser):
    with visiting(browser, server.url) as page:
        page.evaluate(DROP, [NORMAL, '{"y": 1}'])
        page.get_by_text("Opened my normal.stan, data.json.").wait_for()
        assert page.get_by_label("Stan program").input_value() == NORMAL
        assert json.loads(page.get_by_label("Data (JSON)").input_value()) == {"y": 1}
        assert page.locator("#name").input_value() == "my_normal"


def test_a_fit_that_cannot_be_believed_says_so_loudly(server, browser):
    """A flow that was trained for one step."""
    short = {"family": "meanfield", "max_steps": 1, "refine": "never"}
    job = server.begin("fits", server.model(FUNNEL, "funnel"), **short)
    assert server.wait(job)["verdict"] == "unreliable"
    with visiting(browser, server.url) as page:
        row = page.locator("nav li", has_text="funnel").first
        assert row.locator(".badge").inner_text() == "unreliable"
        row.get_by_role("link").click()
        verdict = page.get_by_label("Verdict")
        verdict.wait_for()
        assert verdict.locator("strong").inner_text() == "Unreliable"
        assert "Do not rely" in verdict.inner_text()
        result = server.client.get(f"/v1/fits/{job}").json()["result"]
        assert len(result["advice"]) > 1
        said = [*result["reasons"], *result["advice"]]
        assert verdict.get_by_role("listitem").all_inner_texts() == said
        row.get_by_role("button").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.wait_for_url("**/#/new")
    assert server.client.get(f"/v1/fits/{job}").status_code == 404


def test_a_refined_fit_is_watched_and_has_no_weights_to_show(server, browser):
    model = server.model()
    with visiting(browser, server.url) as page:
        job = server.begin("fits", model, DATA, max_steps=100, refine="always")
        page.goto(f"{server.url}/#/runs/{job}")
        page.get_by_label(re.compile(r"^Refin(ing|ed): .*acceptance 0\.\d\d")).wait_for()
        verdict = page.get_by_label("Verdict")
        verdict.wait_for()
        assert "The draws can be used as they are." in verdict.inner_text()
        refine = server.client.get(f"/v1/fits/{job}").json()["result"]["refine"]
        told = page.locator(".figures").inner_text()
        assert re.search("by (bridge sampling|annealing)", told)
        for number in (f"{refine['eubo']:.3f}", f"{refine['rhat']:.3f}", f"{refine['ess']:,.0f}"):
            assert number in told
        page.wait_for_selector(".histogram.fit")
        shown = page.locator("article").inner_text()
        assert f"annealed from the flow to the posterior over {refine['temperatures']}" in shown
        assert "importance" not in shown
        assert page.locator("#weighted, .histogram.drawn").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_narrow_screen_and_can_be_read(server, browser, scheme):
    how = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    with visiting(browser, server.url, **how) as page:
        page.get_by_role("button", name="Try an example").click()
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        contrasts = page.evaluate(CONTRASTS)
        assert min(contrasts) >= 4.5  # WCAG 2.2, 1.4.3


def test_a_server_with_a_token_asks_for_it(browser, tmp_path):
    token = run_cli("token", tmp_path / "hash").stdout.strip()
    with (
        serving(tmp_path / "data", "--token-file", tmp_path / "hash") as server,
        visiting_with_token(browser, server.url) as page,
    ):
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Token").fill("a guess")
        dialog.get_by_role("button").click()
        dialog.get_by_label("Token").fill(token)
        dialog.get_by_role("button").click()
        page.get_by_text("None yet.").wait_for()
        page.wait_for_selector("#program")


@contextmanager
def visiting_with_token(browser, url):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/")
    page.get_by_role("dialog").wait_for()
    yield page
    context.close()


def test_the_server_gives_the_page_and_nothing_beside_it(server):
    page = server.client.get("/")
    assert "<title>StanFlow</title>" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in re.findall(r'"(web/[^"]+)"', page.text):
        assert server.client.get(f"/{name}").status_code == 200
    for path in (
        "/web/",
        "/web/../app.py",
        "/web/%2e%2e/app.py",
        "/web//etc/passwd",
        "/web/nothing.js",
    ):
        assert server.client.get(path).status_code == 404
    assert Path(__file__).name not in page.text
