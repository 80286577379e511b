"""Checks the report that a run of market_data has written: DIRECTORY/report.html and run.json.

The page is rendered twice by headless Chromium: once as it is, to a picture, and once with a script
added that measures what is drawn where and writes that down as JSON.
"""

import json
import re
import struct
import subprocess
import sys
import tempfile
import zlib
from html.parser import HTMLParser
from pathlib import Path

WIDTH, HEIGHT = 900, 2600

PROBE = """
<script>
const box = (element) => {
  const r = element.getBoundingClientRect();
  return [r.left, r.top, r.right, r.bottom];
};
const all = (root, selector) => [...root.querySelectorAll(selector)];
const found = {
  width: document.documentElement.scrollWidth,
  rows: Object.fromEntries(all(document, "#summary tr").map((row) =>
    [row.children[0].textContent.trim(), row.children[1].textContent.trim()])),
  figures: Object.fromEntries(all(document, "figure").map((figure) => [figure.id, {
    caption: figure.querySelector("figcaption").textContent,
    svg: box(figure.querySelector("svg")),
    curves: all(figure, ".curve").map((curve) => ({
      name: curve.querySelector("title").textContent,
      points: curve.points.length,
      colour: getComputedStyle(curve).stroke,
      box: box(curve),
    })),
    phases: all(figure, ".phase").map((phase) => ({
      title: phase.textContent, colour: getComputedStyle(phase).fill, box: box(phase),
    })),
    troubles: all(figure, ".trouble").length,
    texts: all(figure, "text").map((text) => ({ text: text.textContent, box: box(text) })),
  }])),
};
const result = document.createElement("script");
result.type = "application/json";
result.id = "found";
result.textContent = JSON.stringify(found);
document.body.append(result);
</script>
"""


def chromium(page, *arguments):
    with tempfile.TemporaryDirectory() as profile:
        command = [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--hide-scrollbars", f"--user-data-dir={profile}",
            f"--window-size={WIDTH},{HEIGHT}", *arguments, page.as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


class Links(HTMLParser):
    """What a page would load, or run."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "link", "iframe", "img", "object", "embed", "base"):
            self.found.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset") or name.startswith("on"):
                self.found.append(f"{name}={value}")


def pixels(path):
    """The colours of a PNG file, with how often each occurs."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    position, packed = 8, b""
    while position < len(data):
        length, kind = struct.unpack(">I4s", data[position:position + 8])
        body = data[position + 8:position + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        position += length + 12
    assert depth == 8 and colour in (2, 6) and not interlaced
    step = 3 if colour == 2 else 4
    raw, stride = zlib.decompress(packed), width * step
    before, counts = bytearray(stride), {}
    for row in range(height):
        start = row * (stride + 1)
        method, line = raw[start], bytearray(raw[start + 1:start + 1 + stride])
        for index in range(stride if method else 0):
            left = line[index - step] if index >= step else 0
            up = before[index]
            corner = before[index - step] if index >= step else 0
            if method == 1:
                guess = left
            elif method == 2:
                guess = up
            elif method == 3:
                guess = (left + up) // 2
            else:
                near = left + up - corner
                guess = min((left, up, corner), key=lambda value: abs(near - value))
            line[index] = (line[index] + guess) & 255
        for index in range(0, stride, step):
            pixel = tuple(line[index:index + 3])
            counts[pixel] = counts.get(pixel, 0) + 1
        before = line
    return width, height, counts


def rgb(text):
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def inside(inner, outer, slack=1.0):
    return (inner[0] >= outer[0] - slack and inner[1] >= outer[1] - slack
            and inner[2] <= outer[2] + slack and inner[3] <= outer[3] + slack)


def overlap(one, other):
    return (min(one[2], other[2]) - max(one[0], other[0]) > 1
            and min(one[3], other[3]) - max(one[1], other[1]) > 3)


def main(directory):
    page = directory / "report.html"
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert not links.found, f"the page loads or runs something: {links.found}"
    assert "url(" not in text and "@import" not in text and "://" not in text

    probed = directory / "probed.html"
    probed.write_text(text.replace("</main>", "</main>" + PROBE))
    dump = chromium(probed, "--dump-dom")
    found = re.search(r'<script type="application/json" id="found">(.*?)</script>', dump, re.S)
    found = json.loads(found.group(1))
    run = json.loads((directory / "run.json").read_text())

    assert found["width"] <= WIDTH, "nothing sticks out to the right"
    rows = found["rows"]
    assert rows["connections"] == f"{run['connected']} of 60", rows
    assert rows["messages"] == str(run["messages"]), rows
    assert rows["lost / repeated"] == "0 / 0" and rows["reconnects"] == "0", rows

    figures = found["figures"]
    expected = {"throughput": 1, "bytes": 1, "latency": 3, "reconnects": 2, "connecting": 0, "timeline": 0}
    assert {name: len(figure["curves"]) for name, figure in figures.items()} == expected
    for name, figure in figures.items():
        assert figure["caption"], name
        assert figure["svg"][2] - figure["svg"][0] > 600, name
        for curve in figure["curves"]:
            assert curve["points"] >= 8, (name, curve)
            assert inside(curve["box"], figure["svg"]), (name, curve)
            assert curve["box"][2] - curve["box"][0] > 500, (name, curve)
        texts = figure["texts"]
        assert len(texts) >= 5, name
        for index, one in enumerate(texts):
            assert inside(one["box"], figure["svg"]), (name, one)
            for other in texts[index + 1:]:
                assert not overlap(one["box"], other["box"]), (name, one, other)

    # Larger latencies are drawn higher.
    p999, p99, p50 = figures["latency"]["curves"]
    assert [curve["name"] for curve in (p999, p99, p50)] == ["p99.9", "p99", "p50"]
    assert p999["box"][1] <= p99["box"][1] <= p50["box"][1]

    # Forty lanes; each connection was open nearly all the time, and closed in the end.
    assert figures["timeline"]["caption"] == "Connections over time, 40 of 60"
    for name, least in (("connecting", {"tcp", "upgrade", "open"}), ("timeline", {"open", "closing"})):
        phases = figures[name]["phases"]
        assert all(inside(phase["box"], figures[name]["svg"]) for phase in phases), name
        kinds = {re.match(r"\d+: (.*?),", phase["title"]).group(1) for phase in phases}
        assert least <= kinds, (name, kinds)
        lanes = {phase["title"].split(":")[0] for phase in phases}
        assert len(lanes) == 40, (name, len(lanes))
        assert figures[name]["troubles"] == 0
    opened = [phase for phase in figures["timeline"]["phases"] if ": open," in phase["title"]]
    assert len(opened) == 40
    assert all(phase["box"][2] - phase["box"][0] > 500 for phase in opened)

    # And all of that is really to be seen.
    picture = directory / "report.png"
    chromium(page, f"--screenshot={picture}")
    width, height, counts = pixels(picture)
    assert (width, height) == (WIDTH, HEIGHT)
    shown = {curve["colour"] for figure in figures.values() for curve in figure["curves"]}
    shown |= {phase["colour"] for phase in opened}
    for colour in shown:
        assert counts.get(rgb(colour), 0) > 200, (colour, counts.get(rgb(colour)))
    drawn = width * height - counts[(255, 255, 255)]
    assert drawn > 50_000, drawn
    print(f"6 figures, {sum(len(figure['phases']) for figure in figures.values())} phases, {drawn} pixels drawn")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
