"""Classification as a conversation: a chat model is asked, and the label is the word that it answers.

Rendering, tokenising and scoring live here, each once, so that what a model is trained on and what it is
asked later cannot differ: `Template` says what stands around a text, `ChatReading` how the answer is read.
"""

from __future__ import annotations

from lab.chat.config import Task
from lab.chat.template import Template, render_template

__all__ = ["Task", "Template", "render_template"]
