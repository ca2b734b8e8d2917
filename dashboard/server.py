"""The dashboard's process: Streamlit's own command, which reads ahead what the first page needs.

A browser takes about a second to start its scripts before it asks for a page. What the Bench imports takes
as long, and is imported meanwhile.
"""

from __future__ import annotations

import contextlib
import threading
import time


def main() -> None:
    """Serve as `streamlit run` does, with its arguments."""
    # whole before the thread starts: two threads that import parts of one circle could see half a module
    from streamlit.web.cli import main as streamlit

    threading.Thread(target=_read_ahead_once_served, name="read-ahead", daemon=True).start()
    streamlit(prog_name="streamlit")


def _read_ahead_once_served() -> None:
    from streamlit import runtime

    while not runtime.exists():  # caches are the server's; made before it they are said to be lost
        time.sleep(0.02)
    # what goes wrong here goes wrong on the page too, which says so
    with contextlib.suppress(Exception):
        read_ahead()


def read_ahead() -> None:
    """Import what the Bench imports, and read what it shows first; nothing is downloaded for it."""
    import choices  # the page's own parts, with all that they import
    import live  # noqa: F401
    import readers
    import uploads  # noqa: F401

    import lab.cards  # noqa: F401
    from lab.assets import asset_status
    from lab.corpus import DATASETS
    from lab.estimates import matrix_rate
    from lab.presets import load_preset
    from lab.preview import preview_rows

    matrix_rate()
    readers.runs_table()
    experiment, _ = load_preset(choices.DEFAULT)
    assets = asset_status()
    if DATASETS[experiment.data.name].asset in set(assets.loc[assets["cached"], "name"]):
        preview_rows(experiment)


if __name__ == "__main__":
    main()
