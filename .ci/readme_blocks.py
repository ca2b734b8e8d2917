"""Run every fenced `bash` and `python` block of a Markdown file, in order, in this environment.

A block is passed over only where the line before its fence is `<!-- not run: REASON -->`, and then the
reason is printed. The first failing block fails the run.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

FENCE = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<language>bash|python)\n(?P<code>.*?)\n```", re.DOTALL
)


def main(path: str) -> int:
    blocks = list(FENCE.finditer(Path(path).read_text(encoding="utf-8")))
    if not blocks:
        print(f"{path} has no code block: nothing was checked")
        return 1
    for number, block in enumerate(blocks, 1):
        title = f"block {number} of {len(blocks)} ({block['language']})"
        if block["reason"]:
            print(f"--- {title}: not run, {block['reason']}", flush=True)
            continue
        print(f"--- {title}\n{block['code']}\n---", flush=True)
        start = time.monotonic()
        command = (
            ["bash", "-euo", "pipefail", "-c"] if block["language"] == "bash" else [sys.executable, "-c"]
        )
        code = subprocess.run([*command, block["code"]], check=False).returncode
        if code:
            print(f"--- {title} of {path} failed with exit code {code}")
            return 1
        print(f"--- {title}: {time.monotonic() - start:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
