"""`lab notebook`: JupyterLab on a copy of the lessons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.cli_options import RunsOption


def notebook_command(
    folder: Annotated[
        Path, typer.Option(help="Where your copies of the lessons lie; what is there already stays.")
    ] = Path("lab-lessons"),
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8888,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    runs: RunsOption = "",
) -> None:
    """Open JupyterLab on the lessons, copied to a folder of yours; your work is never overwritten."""
    from lab.notebook_server import copy_lessons, serve_notebooks

    copied, kept = copy_lessons(folder)
    typer.echo(f"lab: {len(copied)} files copied to {folder}, {len(kept)} kept as they were.", err=True)
    code = serve_notebooks(folder, port=port, browser=browser, runs=runs)
    if code:
        raise typer.Exit(code)
