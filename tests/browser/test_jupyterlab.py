"""A `%%sandbox` cell in a real JupyterLab, typed and run in a real browser, shows its plot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

pytestmark = pytest.mark.browser

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

# Sharp on the picture of the README, which is taken with two pixels for one.
SHARP = "%%sandbox user-123\n%config InlineBackend.figure_format = 'retina'"

PLOT = """\
%%sandbox user-123
import numpy as np
import matplotlib.pyplot as plt

walk = np.random.default_rng(7).normal(size=(250, 3)).cumsum(axis=0)
fig, ax = plt.subplots(figsize=(6.4, 2.2))
ax.plot(walk, lw=1.5)
ax.spines[["top", "right"]].set_visible(False)
print(f"{len(walk)} steps, drawn in the sandbox")"""


@pytest.fixture
def lab(engine_name: str, tmp_path: Path) -> Iterator[str]:
    """The address, with its token, of a JupyterLab of our own."""
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0"),
            *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={tmp_path}", "--LabApp.news_url=None"),
            # Nothing here may go out to look for news or for newer versions.
            *("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.extension_manager=readonly"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield address_of(server)
    finally:
        server.terminate()
        server.communicate(timeout=30)


def address_of(server: subprocess.Popen[str]) -> str:
    """The address that a server prints once it listens."""
    assert server.stderr is not None
    said = []
    for line in server.stderr:
        said.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+/\S*token=\w+", line):
            return found[0]
    raise AssertionError("JupyterLab did not start:\n" + "".join(said))


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


def run_cell(cell: Locator, source: str) -> None:
    """Type ``source`` into ``cell`` and run it.

    JupyterLab may lose a Ctrl+Enter that comes before the kernel's first answer, although it shows it as idle: the
    key is pressed again until the prompt has changed.
    """
    page = cell.page
    cell.locator(".cm-content").click()
    page.keyboard.insert_text(source)
    prompt = cell.locator(".jp-InputPrompt")
    for _ in range(10):
        page.keyboard.press("Control+Enter")
        try:
            expect(prompt).not_to_have_text("[ ]:", timeout=2000)
        except AssertionError:
            continue
        break
    expect(prompt).to_have_text(re.compile(r"\[\d+\]:"), timeout=60_000)


def open_notebook(page: Page, address: str) -> Locator:
    """Open a new notebook in its simplest form; return its cells."""
    page.goto(address.replace("/lab?", "/lab?reset&"))
    page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click(timeout=60_000)
    notebook = page.locator(".jp-Notebook")
    expect(notebook).to_be_visible(timeout=30_000)
    expect(page.locator(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator")).to_have_attribute(
        "data-status", "idle", timeout=30_000
    )
    return notebook.locator(".jp-Cell")


def test_a_cell_typed_in_jupyterlab_runs_in_the_sandbox_and_shows_its_plot(
    lab: str, browser: Browser, repository: Path
) -> None:
    page = browser.new_page(viewport={"width": 1020, "height": 900}, device_scale_factor=2)
    cells = open_notebook(page, lab)
    for number, source in enumerate(("%load_ext jupyter_sandbox", SHARP, PLOT)):
        run_cell(cells.nth(number), source)
        page.keyboard.press("Escape")
        page.keyboard.press("b")

    image = cells.nth(2).locator('.jp-RenderedImage img[src^="data:image/png"]')
    expect(image).to_be_visible(timeout=60_000)
    assert image.evaluate("picture => picture.naturalWidth") > 100
    expect(cells.nth(2).locator(".jp-OutputArea")).to_contain_text("250 steps, drawn in the sandbox")
    if target := os.environ.get("JSB_SCREENSHOT"):
        take_picture(cells.nth(2), Path(target))


def take_picture(cell: Locator, target: Path) -> None:
    """The picture of the README: the cell and its output alone."""
    page = cell.page
    page.add_style_tag(content=".jp-cell-toolbar, .jp-Collapser { visibility: hidden !important; }")
    page.mouse.move(1, 1)
    box = cell.bounding_box()
    assert box is not None
    page.screenshot(
        path=target, clip={**box, "x": box["x"] + 16, "width": box["width"] - 16, "height": box["height"] - 8}
    )
