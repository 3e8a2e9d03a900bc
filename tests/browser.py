"""A headless Chromium, by its own debugging protocol: what a page asks for, and what it complains of."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
]

# where the browser is and the width in pixels, a second after the page is there with all that it asks for
PLACE_LATER = """new Promise(tell => {
    const later = () => setTimeout(() => tell([location.href, document.documentElement.scrollWidth]), 1000);
    document.readyState == "complete" ? later() : addEventListener("load", later);
})"""


def visit(page: Path, profile: Path, *, width: int) -> tuple[list[str], list[str], int]:
    """The addresses that ``page`` requests, its errors, and the width in pixels that it takes in a window so wide."""
    assert CHROMIUM is not None
    browser = subprocess.Popen(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert browser.stderr is not None
        for line in browser.stderr:
            found = re.search(r"DevTools listening on ws://([^/]+)/", line)
            if found:
                return asyncio.run(asyncio.wait_for(_visit(f"http://{found[1]}", page, width), 120))
        raise AssertionError("Chromium ended before it listened")
    finally:
        browser.terminate()
        browser.communicate()


async def _visit(address: str, page: Path, width: int) -> tuple[list[str], list[str], int]:
    requests, errors = [], []
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{address}/json/list") as answer:
            target = next(each for each in await answer.json(content_type=None) if each["type"] == "page")
        async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            commands = [
                ("Network.enable", {}),
                ("Log.enable", {}),
                ("Runtime.enable", {}),
                ("Page.enable", {}),
                (
                    "Emulation.setDeviceMetricsOverride",
                    {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
                ),
                ("Page.navigate", {"url": page.absolute().as_uri()}),
            ]
            for number, (method, parameters) in enumerate(commands):
                await socket.send_json({"id": number, "method": method, "params": parameters})
                while method != "Page.navigate" and (await socket.receive_json()).get("id") != number:
                    pass  # nothing of the page is missed: it comes once all is being watched
            while True:
                message = await socket.receive_json()
                method, about = message.get("method"), message.get("params", {})
                if method == "Network.requestWillBeSent":
                    requests.append(about["request"]["url"])
                elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                    errors.append(about["entry"]["text"])
                elif method == "Runtime.consoleAPICalled":
                    errors.append(str(about["args"]))
                elif method == "Runtime.exceptionThrown":
                    errors.append(str(about["exceptionDetails"]))
                elif method == "Page.loadEventFired":
                    await socket.send_json(
                        {
                            "id": 99,
                            "method": "Runtime.evaluate",
                            "params": {"expression": PLACE_LATER, "awaitPromise": True, "returnByValue": True},
                        }
                    )
                elif message.get("id") == 99:
                    place, taken = message.get("result", {}).get("result", {}).get("value", (None, 0))
                    if place == page.absolute().as_uri():  # and not the empty page before it
                        return requests, errors, taken
