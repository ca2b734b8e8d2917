"""Check what git tracks: sizes, secrets, absolute paths."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LARGEST = 1_000_000
FORBIDDEN = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a hub token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "a cloud key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
    "an absolute path": re.compile(r"(?<![\w./])/(?:root|home|work|Users)/\w"),
}


def main() -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    problems = []
    for name in filter(None, listed.split("\0")):
        path = Path(name)
        if not path.is_file():
            continue
        if path.stat().st_size > LARGEST:
            problems.append(f"{name}: {path.stat().st_size:,} bytes, more than {LARGEST:,}")
        text = path.read_text(encoding="utf-8", errors="replace")
        problems += [f"{name}: holds {what}" for what, pattern in FORBIDDEN.items() if pattern.search(text)]
    print("\n".join(problems) or "nothing found")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main())
