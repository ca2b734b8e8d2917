"""The dashboard: `lab dashboard` opens it. Each page is one file beside this one; no science in here."""

from __future__ import annotations

from pathlib import Path

import access
import panels
import streamlit as st

HERE = Path(__file__).parent

#: File, title, icon; a page whose file is not there is not shown.
PAGES = (
    ("bench.py", "Bench", ":material/science:"),
    ("triggers.py", "Triggers", ":material/key:"),
    ("spectra.py", "Spectra", ":material/equalizer:"),
    ("compare.py", "Compare", ":material/table_chart:"),
    ("audit.py", "Audit", ":material/policy:"),
    ("papers.py", "Papers", ":material/menu_book:"),
    ("game.py", "Game", ":material/casino:"),
)

# a picture of our own: Streamlit fetches an icon by name from a font server
st.set_page_config(page_title="LoRA backdoor lab", page_icon=str(HERE / "icon.svg"), layout="wide")
st.html(HERE / "style.css")
if panels.page_theme() == "dark":
    st.html(HERE / "style-dark.css")
page = st.navigation(
    [
        st.Page(file, title=title, icon=icon, default=file == PAGES[0][0])
        for file, title, icon in PAGES
        if (HERE / file).is_file()
    ],
    position="top",
)
access.unlock_form()
page.run()
