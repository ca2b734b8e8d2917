"""A browser that draws nothing: it asks pages of a Streamlit server in this process, and reads the answers.

What it does not do, layout and pixels, is the browser's time; what is left is the server's, which can be
measured in CPU seconds on a machine that has other things to do.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState
from streamlit.runtime import Runtime, RuntimeConfig
from streamlit.runtime.memory_media_file_storage import MemoryMediaFileStorage
from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.runtime_util import serialize_forward_msg

#: As in `lab.serving`, as far as it changes what a rerun costs.
_SETTINGS = {
    "runner.postScriptGC": False,
    "runner.magicEnabled": False,
    "server.fileWatcherType": "none",
    "server.headless": True,
    "browser.gatherUsageStats": False,
}
#: Seconds after which a page that does not answer has failed.
_PATIENCE = 120.0
_FIELDS = {
    "Arrow": "string_value",
    "Button": "trigger_value",
    "Checkbox": "bool_value",
    "NumberInput": "double_value",
    "Selectbox": "string_value",
    "TextInput": "string_value",
}


@dataclass(frozen=True)
class Cost:
    """What an answer took: CPU seconds of the server, seconds that passed, messages and bytes sent."""

    cpu: float
    wall: float
    messages: int
    sent: int


def start_server(dashboard: Path) -> Runtime:
    """A running Streamlit server without a port; call it in a running event loop, then await `start`."""
    sys.path.insert(0, str(dashboard))
    for key, value in _SETTINGS.items():
        config.set_option(key, value)
    return Runtime(
        RuntimeConfig(
            script_path=str(dashboard / "app.py"),
            media_file_storage=MemoryMediaFileStorage("/media"),
            uploaded_file_manager=MemoryUploadedFileManager("/upload"),
            session_storage=MemorySessionStorage(),
        )
    )


class Browser:
    """One session: what it holds of the page, and how it asks for more.

    Args:
        server: A started server.
    """

    client_context = None

    def __init__(self, server: Runtime) -> None:
        self._server = server
        self.session = server.connect_session(self, {})  # type: ignore[arg-type]
        self.query, self.page = "", ""
        #: Widgets and other elements with an id, as they were sent last, by id.
        self.elements: dict[str, Any] = {}
        self.fragments: dict[str, str] = {}
        #: The seconds between looks of each fragment that looks again by itself.
        self.polls: dict[str, float] = {}
        self.texts: list[str] = []
        self.problems: list[str] = []
        self._held: dict[str, ForwardMsg] = {}
        self._values: dict[str, WidgetState] = {}
        self._waiting: asyncio.Future[None] | None = None
        self._inbox: list[tuple[ForwardMsg, int]] = []

    def write_forward_msg(self, msg: ForwardMsg) -> None:
        """Take a message, as the server's socket would."""
        self._inbox.append((msg, len(serialize_forward_msg(msg))))
        over = msg.WhichOneof("type") == "script_finished" and msg.script_finished in (
            ForwardMsg.FINISHED_SUCCESSFULLY,
            ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,
        )
        if over and self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def open(self, page: str = "", **params: str | list[str]) -> Cost:
        """Open a page by its name in the address."""
        self.query = urlencode(params, doseq=True)
        self._values, self.page = {}, ""
        return await self._ask(page_name=page)

    async def turn(self, find: str, value: Any, kind: str = "") -> Cost:
        """Change a widget, found by a part of its label or id."""
        element = self.find(find, kind)
        self._values[element.id] = _state(element, value)
        try:
            return await self._ask(fragment_id=self.fragments.get(element.id, ""))
        finally:
            if type(element).__name__ == "Button":
                del self._values[element.id]

    async def poll(self) -> Cost:
        """Look once as each fragment does that looks again by itself."""
        cost = Cost(0.0, 0.0, 0, 0)
        for fragment in tuple(self.polls):
            more = await self._ask(fragment_id=fragment, is_auto_rerun=True)
            cost = Cost(*(a + b for a, b in zip(_parts(cost), _parts(more), strict=True)))
        return cost

    def find(self, text: str, kind: str = "") -> Any:
        """The element whose label or id holds a text; of several the last one sent."""
        found = [
            e
            for e in self.elements.values()
            if (text in getattr(e, "label", "") or text in e.id) and kind in type(e).__name__
        ]
        if not found:
            raise SystemExit(f"no element {kind} {text!r} among {sorted(self.elements)}")
        return found[-1]

    async def _ask(self, **more: Any) -> Cost:
        message = BackMsg()
        state = message.rerun_script
        state.query_string, state.page_script_hash = self.query, self.page
        for key, value in more.items():
            setattr(state, key, value)
        state.widget_states.widgets.extend(self._values.values())
        state.cached_message_hashes.extend(self._held)
        self._inbox = []
        # a collection that falls into one measurement and not into the next would be taken for its cost
        gc.collect()
        cpu, wall = time.process_time(), time.monotonic()
        self._waiting = asyncio.get_running_loop().create_future()
        self._server.handle_backmsg(self.session, message)
        await asyncio.wait_for(self._waiting, _PATIENCE)
        cost = time.process_time() - cpu, time.monotonic() - wall
        session = self._server.get_app_session(self.session)
        while session is not None and session._scriptrunner is not None:  # a rerun that the page asked for
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        inbox, self._inbox = self._inbox, []
        self.texts, self.problems = [], []
        for msg, _ in inbox:
            self._take(msg)
        return Cost(*cost, len(inbox), sum(size for _, size in inbox))

    def _take(self, msg: ForwardMsg) -> None:
        kind = msg.WhichOneof("type")
        if kind == "new_session":
            if not msg.metadata.run.fragment_ids:  # a new page, not a part of the old one
                self.elements, self.fragments, self.polls = {}, {}, {}
        elif kind == "navigation":
            self.page = msg.navigation.page_script_hash
        elif kind == "page_info_changed":
            self.query = msg.page_info_changed.query_string
        elif kind == "auto_rerun":
            self.polls[msg.auto_rerun.fragment_id] = msg.auto_rerun.interval
        elif kind == "ref_hash":
            self._take(self._held[msg.ref_hash])
        elif kind == "delta":
            if msg.metadata.cacheable:
                self._held[msg.hash] = msg
            if msg.delta.WhichOneof("type") == "new_element":
                self._take_element(msg)
            elif msg.delta.WhichOneof("type") == "add_block":
                self._keep(msg, msg.delta.add_block)

    def _take_element(self, msg: ForwardMsg) -> None:
        element = msg.delta.new_element
        name = element.WhichOneof("type")
        inner = getattr(element, name)
        if name == "exception":
            self.problems.append(inner.message)
        self.texts.append(str(getattr(inner, "body", "")))
        self._keep(msg, inner)

    def _keep(self, msg: ForwardMsg, inner: Any) -> None:
        if getattr(inner, "id", ""):
            self.elements[inner.id] = inner
            self.fragments[inner.id] = msg.delta.fragment_id


def _parts(cost: Cost) -> tuple[float, float, int, int]:
    return cost.cpu, cost.wall, cost.messages, cost.sent


def _state(element: Any, value: Any) -> WidgetState:
    """A widget's state as a browser sends it."""
    state = WidgetState(id=element.id)
    kind = type(element).__name__
    if kind in ("ButtonGroup", "MultiSelect"):
        state.string_array_value.data.extend([value] if isinstance(value, str) else value)
    elif kind in _FIELDS:
        setattr(state, _FIELDS[kind], value)
    else:
        raise SystemExit(f"this browser cannot turn a {kind}")
    return state
