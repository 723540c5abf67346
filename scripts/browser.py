#!/usr/bin/env python3
"""Shows a page in a real browser, headless chromium, and prints what came of it as JSON:

    requests   addresses that the page asked for, apart from its own
    problems   errors of scripts, and what the browser complains about
    views      light and dark, 400 and 1400 pixels wide: whether the page is wider than the window, the smallest contrast of a
               text to its background (WCAG 2.1, 1.4.3), and the picture

usage: browser.py PAGE FOLDER [--only light-1400] [--height 900]

The browser is driven by its own protocol over two pipes (--remote-debugging-pipe), so that it needs no port, and nothing else here
can drive it. All its own traffic is off.
"""

import argparse
import base64
import fcntl
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

LIMIT = 240
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (400, 1400)]
LOOK = """(() => {
  document.querySelectorAll('details').forEach(each => each.open = true);
  const channels = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const color = channels(getComputedStyle(at).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255];
  };
  let contrast = 21, words = '';
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.textContent.trim(), parent = texts.currentNode.parentElement;
    if (!text) continue;
    const [a, b] = [luminance(channels(getComputedStyle(parent).color)), luminance(behind(parent))];
    const found = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (found < contrast) [contrast, words] = [found, text.slice(0, 60)];
  }
  const wide = document.documentElement.scrollWidth;
  document.querySelectorAll('details').forEach((each, i) => each.open = i === 0);
  return {overflows: wide > innerWidth, width: wide, contrast, words, title: document.title, height: document.documentElement.scrollHeight};
})()"""


class Browser:
    """A browser with one empty page, which ends with the block."""

    def __init__(self, profile):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or sys.exit("browser: there is no chromium")
        to_read, self.to = os.pipe()
        self.come, to_write = os.pipe()
        # The browser reads at 3 and writes at 4, so that nothing else may be there.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_read, to_write)]

        def place():
            for number, end in zip((3, 4), ends):
                os.dup2(end, number)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", f"--user-data-dir={profile}", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
             "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--force-device-scale-factor=1"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=place, pass_fds=(3, 4))
        for end in (*ends, to_read, to_write):
            os.close(end)
        self.rest, self.number, self.end = b"", 0, time.monotonic() + LIMIT
        self.session, self.events = None, []

    def __enter__(self):
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        # A browser that is killed leaves processes that still write to the profile, which is removed next.
        try:
            os.write(self.to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
            self.process.wait(LIMIT)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()

    def receive(self):
        while b"\0" not in self.rest:
            left = self.end - time.monotonic()
            if left < 0 or not select.select([self.come], [], [], left)[0]:
                sys.exit("browser: it does not answer")
            piece = os.read(self.come, 1 << 20)
            if not piece:
                sys.exit("browser: it ended")
            self.rest += piece
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    sys.exit(f"browser: {method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.receive())

    def show(self, address, scheme, width, height):
        """Shows the page; returns what happened in the meantime, and how it looks."""
        self.events = []
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        failed = self.ask("Page.navigate", url=address).get("errorText")
        if failed:
            sys.exit(f"browser: {address}: {failed}")
        self.wait("Page.loadEventFired")
        look = self.ask("Runtime.evaluate", expression=LOOK, returnByValue=True)["result"]["value"]
        return self.events, look

    def picture(self, path, width, height):
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        taken = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(taken["data"]))


def look(page, folder, only=None, height=900):
    """All that the page does and looks like."""
    address = page.resolve().as_uri()
    requests, problems, views = [], [], []
    # Its processes may still write there for a moment after it was killed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(profile) as browser:
        for scheme, width in VIEWS:
            name = f"{scheme}-{width}"
            if only and name != only:
                continue
            events, seen = browser.show(address, scheme, width, height)
            for event in events:
                method, params = event.get("method"), event.get("params", {})
                if method == "Network.requestWillBeSent" and params["request"]["url"] != address:
                    requests.append(params["request"]["url"][:200])
                elif method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                    problems.append(json.dumps(params))
            picture = folder / f"{name}.png"
            browser.picture(picture, width, min(seen["height"], height))
            views.append({"name": name, "picture": str(picture), **seen})
    return {"requests": requests, "problems": problems, "views": views}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--only")
    parser.add_argument("--height", type=int, default=900)
    asked = parser.parse_args()
    print(json.dumps(look(asked.page, asked.folder, asked.only, asked.height), indent=1))


if __name__ == "__main__":
    main()
