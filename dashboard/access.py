"""Who may write: everybody, or who knows the password where `lab dashboard` was given a password file."""

from __future__ import annotations

import hmac
import os
import time
from pathlib import Path

import streamlit as st

#: How long a wrong password takes, so that guessing is slow.
_WAIT = 1.0


def _password() -> str:
    """The password, "" where none is asked for; a file that cannot be read lets nobody in."""
    name = os.environ.get("LAB_DASHBOARD_PASSWORD_FILE", "")
    if not name:
        return ""
    try:
        return Path(name).read_text(encoding="utf-8").strip() or "\0"
    except (OSError, UnicodeDecodeError):
        return "\0"


def may_write() -> bool:
    """Whether this session may start, stop and delete things."""
    password = _password()
    return not password or bool(st.session_state.get("unlocked"))


def unlock_form() -> None:
    """Ask for the password, where one is asked for and was not given yet."""
    if may_write():
        return
    with st.popover("Locked: read only", icon=":material/lock:"), st.form("unlock", border=False):
        given = st.text_input("Password for training and deleting", type="password", max_chars=200)
        if st.form_submit_button("Unlock"):
            if hmac.compare_digest(given.encode(), _password().encode()):
                st.session_state["unlocked"] = True
                st.rerun()
            time.sleep(_WAIT)
            st.error("That is not the password.")
