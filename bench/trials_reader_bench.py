"""How fast registers' XML is read, and in how much memory, beside plain iterparse of lxml and of Python.

A made file of WHO's form, 7.3 KB a trial as real exports are, is written into a temporary folder and read by each in a
process of its own. Ours also cleans every text, reads dates and ids, and what the register states. It has to give every
record in less than 300 MB, else the script ends with 1. `--records 1000000` is the file of 7 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from numbers_page import Section, publish

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
SIZE = 7300
MOST_MB = 300
CODE = {
    "lapilli": """
from lapilli.apps.trials.readers import read_trials
count = sum(1 for _ in read_trials([Path(path)], problems=lambda told: sys.exit(told)))
""",
    "lxml, iterparse": """
from lxml import etree
count = 0
for _, element in etree.iterparse(path, tag="Trial"):
    record = {child.tag: child.text for child in element}
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]
    count += 1
""",
    "Python, iterparse": """
from xml.etree import ElementTree
events = ElementTree.iterparse(path, events=("start", "end"))
_, root = next(events)
count = 0
for event, element in events:
    if event == "end" and element.tag == "Trial":
        record = {child.tag: child.text for child in element}
        root.clear()
        count += 1
""",
}
_HEAD = "import json, resource, sys, time\nfrom pathlib import Path\npath = sys.argv[1]\nbegan = time.perf_counter()\n"
_TAIL = """
took = time.perf_counter() - began
most = [line for line in open("/proc/self/status") if line.startswith("VmHWM")][0].split()[1]
print(json.dumps({"count": count, "seconds": took, "mb": int(most) / 1024}))
"""


def main() -> int:
    """Write the file, have it read, publish the figures."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--records", type=int, default=100_000)
    options.add_argument("--folder", type=Path, default=None, help="where the file goes for a while")
    options.add_argument("--write", action="store_true", help="put the section into docs/numbers.md")
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        path = Path(folder) / "made.xml"
        write(path, given.records)
        size = path.stat().st_size
        found = {name: run(code, path) for name, code in CODE.items()}
    section = Section("Reading registers of trials")
    rows = [
        [name, f"{each['count']:,}", f"{each['count'] / each['seconds']:,.0f}", f"{size / each['seconds'] / 1e6:,.1f}",
         f"{each['mb']:,.0f}"]
        for name, each in found.items()
    ]  # fmt: skip
    section.add(f"A made export of {given.records:,} trials, {size / 1e9:.2f} GB; each reader in its own process.")
    section.table(["reader", "records", "records a second", "MB a second", "most memory, MB"], rows)
    publish(section)
    ours = found["lapilli"]
    if any(each["count"] != given.records for each in found.values()) or ours["mb"] >= MOST_MB:
        print(f"{ours['count']:,} of {given.records:,} records in {ours['mb']:.0f} MB", file=sys.stderr)
        return 1
    return 0


def write(path: Path, records: int) -> None:
    """The made file."""
    from made_register import ictrp_xml, made_record

    with path.open("wb", buffering=1 << 20) as file:
        for piece in ictrp_xml(made_record(number, SIZE) for number in range(records)):
            file.write(piece)


def run(code: str, path: Path) -> dict[str, float]:
    """One reader's figures, from a fresh process; the file has been in the cache of the disk since it was written."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _HEAD + code + _TAIL, str(path)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
