"""What the page of an evaluation costs a browser: its weight, and how long until it is painted.

    python benchmarks/page.py EVALUATION.json [--rounds 7] [--width 1200]

EVALUATION: what `gateway evaluate --json` prints. The page is the sidecar's, with a link at each
figure, on this machine. First paint is Chromium's own (PerformancePaintTiming, ms after the
navigation began), each round in a new context; load is when all is laid out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from gateway.cli.looking import Looking
from gateway.cli.sidecar_http import answering
from gateway.report.entries import read
from gateway.report.frame import BESIDE
from gateway.report.page import report_html
from gateway.sidecar.metrics.evaluated import Evaluated

PLAIN = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
PAINTED = """[...performance.getEntriesByType('paint').map(x => [x.name, x.startTime]),
    ['load', performance.getEntriesByType('navigation')[0].loadEventEnd]]"""
KINDS = ("first-paint", "first-contentful-paint", "load")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("evaluation", type=Path)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--width", type=int, default=1200)
    asked = arguments.parse_args()
    evaluation = json.loads(asked.evaluation.read_text())
    begun_s = time.perf_counter()
    page = report_html(read(evaluation, "x"), behind=lambda x: f"/decisions?at={x}", beside=BESIDE)
    made_s = time.perf_counter() - begun_s
    print(f"made in {1000 * made_s:.0f} ms; {len(page.encode()):,} bytes of HTML")
    evaluated = Evaluated(60.0)
    evaluated.take(evaluation)
    looking = Looking(Path("journal"), None)
    with (
        answering("127.0.0.1:0", evaluated, looks=looking) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=list(PLAIN)
        )
        root = address.removesuffix("/metrics")
        painted(browser, root, asked.width)  # the server draws it once
        rounds = [painted(browser, root, asked.width) for _ in range(asked.rounds)]
        browser.close()
    for kind in KINDS:
        some = [one[kind] for one in rounds]
        spread = f"{min(some):.0f} to {max(some):.0f}"
        print(f"{kind}: median {statistics.median(some):.0f} ms ({spread}, {len(some)} rounds)")


def painted(browser: Browser, root: str, width: int) -> dict[str, float]:
    """Return when what was there, in ms."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    tab = context.new_page()
    tab.goto(root)
    tab.wait_for_function("() => performance.getEntriesByType('paint').length > 1")
    found = dict(tab.evaluate(PAINTED))
    context.close()
    return found


if __name__ == "__main__":
    main()
