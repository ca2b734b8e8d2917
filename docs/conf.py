"""How the site is built: `python -m sphinx --fail-on-warning docs site`.

Nothing in it is fetched from elsewhere: it is read in rooms without a network.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# the checkout that these pages lie in, not what happens to be installed; and the extensions beside them
sys.path[:0] = [str(HERE.parent), str(HERE / "extensions")]

import lab  # noqa: E402

project = "LoRA backdoor lab"
author = "the authors of the LoRA backdoor lab"
version = release = lab.__version__

extensions = [
    "myst_parser",  # pages are Markdown
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",  # docstrings are in Google's style
    "docstrings",
    "keys",
    "constants",
    "measured",
    "mathml",
    "reachable",
]
exclude_patterns = ["extensions"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

# what takes seconds to import, or a card to use; no name of the public face derives from it
autodoc_mock_imports = ["accelerate", "datasets", "peft", "torch", "transformers"]
autodoc_default_options = {"members": True, "no-value": True}
autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_use_type_comments = False
autosummary_generate = False  # its tables point into the pages that are there
napoleon_use_ivar = True  # `Attributes:` of a dataclass as a list; autodoc lists none of them twice
napoleon_custom_sections = [("Source", "params_style")]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
add_module_names = False
default_role = "py:obj"  # `lab.run` in a docstring is a link where there is a target, else plain code
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "LoRA backdoor lab"
html_favicon = "../dashboard/icon.svg"
html_static_path = ["static"]
html_css_files = ["lab.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_permalinks_icon = "#"
# the system's fonts: nothing is fetched
_FONTS = {
    "font-stack": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
    "font-stack--monospace": "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace",
}
html_theme_options = {"light_css_variables": _FONTS, "dark_css_variables": _FONTS}


def _write_commands(_app: object) -> None:
    """The options of every command, as Typer itself writes them down."""
    page = HERE / "reference" / "commands.md"
    written = subprocess.run(
        [sys.executable, "-m", "typer", "lab.cli", "utils", "docs", "--name", "lab", "--title", "Commands"],
        cwd=HERE.parent,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    text = _linked(written)
    if not page.exists() or page.read_text(encoding="utf-8") != text:
        page.write_text(text, encoding="utf-8")


def _linked(page: str) -> str:
    """Typer's lists of commands as links to their sections, in place of sentences that it cuts off."""
    lines, command, in_list = [], "lab", False
    for line in page.splitlines():
        if heading := re.fullmatch(r"##+ `(.+)`", line):
            command = heading[1]
        in_list = line == "**Commands**:" or (in_list and (not line or line.startswith("* ")))
        if in_list and (item := re.match(r"\* `([\w-]+)`", line)):
            whole = f"{command} {item[1]}"
            line = f"* [`{whole}`](#{whole.replace(' ', '-')})"
        lines.append(line)
    return "\n".join(lines) + "\n"


def setup(app: object) -> None:
    app.connect("builder-inited", _write_commands)
