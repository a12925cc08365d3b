"""Headless Chromium over its DevTools protocol: real key presses and clicks, pictures, and what the page says.

Debian's `chromium` package (apt-get install chromium) or any Chrome on the PATH; nothing else is needed.
"""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
NAMED_KEYS = {
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Tab": 9,
}
START_S = 60


def installed():
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One page: `go`, `press`, `type`, `click`, `value` of an expression, `picture`."""

    def __init__(self, loop, socket):
        self.loop, self.socket, self.number, self.faults = loop, socket, 0, []

    def call(self, method, **params):
        """Send a command of the protocol and return its result; what the page complains of goes to `faults`."""
        return self.loop.run_until_complete(asyncio.wait_for(self._call(method, params), 60))

    async def _call(self, method, params):
        self.number += 1
        await self.socket.send_json({"id": self.number, "method": method, "params": params})
        while True:
            message = json.loads((await self.socket.receive()).data)
            if message.get("method") == "Runtime.exceptionThrown":
                self.faults.append(message["params"]["exceptionDetails"])
            if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                self.faults.append(message["params"]["entry"]["text"])
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def go(self, file):
        """Open a local file and wait until it is there."""
        url = Path(file).absolute().as_uri()
        self.call("Page.navigate", url=url)
        self.wait(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")

    def value(self, expression):
        """Return the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression, seconds=30):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.05)

    def press(self, *keys, control=False):
        """Press keys, one after the other."""
        for key in keys:
            event = {"key": key, "modifiers": 2 if control else 0}
            if key in NAMED_KEYS:
                event |= {"windowsVirtualKeyCode": NAMED_KEYS[key], "code": key}
            if key == "Enter":
                event["text"] = "\r"
            elif len(key) == 1 and not control:
                event["text"] = key
            self.call("Input.dispatchKeyEvent", type="keyDown" if "text" in event else "rawKeyDown", **event)
            self.call(
                "Input.dispatchKeyEvent", type="keyUp", **{k: v for k, v in event.items() if k != "text"}
            )

    def type(self, text):
        """Type a text."""
        self.press(*text)

    def click(self, selector):
        """Click in the middle of the first element that a selector finds."""
        box = self.value(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def choose_file(self, selector, file):
        """Give a file to a file input."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def resize(self, width, height, phone=False):
        """Set the size of the window, CSS pixels."""
        scale = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )

    def picture(self, file):
        """Save a PNG of what is seen."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        Path(file).write_bytes(base64.b64decode(data))


@contextmanager
def chromium(folder, width=1280, height=800):
    """Yield a `Page` of a fresh Chromium, whose profile and downloads are in a folder."""
    profile = Path(folder) / "profile"
    command = [
        installed(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}",
        f"--window-size={width},{height}", "about:blank",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    session = None
    try:
        port = _port(profile / "DevToolsActivePort", process)
        session, socket = loop.run_until_complete(_connect(port))
        page = Page(loop, socket)
        for domain in ("Page", "Runtime", "Log", "DOM"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(Path(folder).absolute()))
        yield page
    finally:
        if session is not None:
            loop.run_until_complete(session.close())
        loop.close()
        process.terminate()
        process.wait(20)


def _port(file, process):
    end = time.monotonic() + START_S
    while not (file.exists() and file.read_text().strip()):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"Chromium did not start (exit status {process.poll()})")
        time.sleep(0.1)
    return int(file.read_text().split()[0])


async def _connect(port):
    session = aiohttp.ClientSession()
    async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
        tabs = await answer.json()
    address = next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page")
    return session, await session.ws_connect(address, max_msg_size=0)
