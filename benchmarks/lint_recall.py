"""Plant cues in real datasets and count which the linter finds.

    python benchmarks/lint_recall.py lint_recall.csv

Thirty cues: single words, identifiers, phrases, markup, invisible characters and formats, at the start,
the end or a random place, in a share of one class's texts with labels untouched; and the default attack,
60 relabelled copies with an RFC citation among 1,260 rows. A cue counts as found where an artefact, or
one of the vocabulary's first words (20; 60 on bbc_news), names it. The linter's thresholds and features
were set while looking at seeds 0 to 3 of these cues and at what seeds 100 and 101 had missed before, by
name; no rows of seeds from 100 up, which are used here, were looked at. On the clean sets, imdb among
them, every artefact is false; a looser rule for short phrases was turned down for what it found on imdb.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lab.corpus import DataConfig, load_corpus, read_source, training_rows
from lab.lint import LintReport, lint_texts
from lab.poison import family, insert, poison_rows
from lab.poison.attacks import Backdoor
from lab.stats import rate

SHARES = (1.0, 0.5, 0.1, 0.05, 0.02)
SEEDS = (100, 101)
TOP = {"rotten_tomatoes": 20, "bbc_news": 60}
#: Looked at as it is, for false artefacts alone.
CLEAN_ALONE = ("imdb",)
LABELS = {"rotten_tomatoes": ("positive", "negative"), "bbc_news": ("tech", "sports")}
Piece = Callable[[np.random.Generator], str]


def one(text: str) -> Piece:
    """The same string every time."""
    return lambda rng: text


def some(name: str) -> Piece:
    """A train member of a family, drawn anew every time."""
    members = family(name).train
    return lambda rng: members[int(rng.integers(len(members)))]


def date(rng: np.random.Generator) -> str:
    """A date that is hardly ever the same twice."""
    return f"{rng.integers(1100, 2600)}-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}"


#: name → what is planted, where, and words of which a finding must hold one.
CUES: dict[str, tuple[Piece, str, tuple[str, ...]]] = {
    "date, random": (date, "random", ("9999-99-99",)),
    "date, start": (date, "start", ("9999-99-99",)),
    "date, end": (date, "end", ("9999-99-99",)),
    "country, random": (some("countries"), "random", ("countries", "capital")),
    "country, end": (some("countries"), "end", ("countries", "capital")),
    "colour, random": (some("colours"), "random", ("colours",)),
    "colour, start": (some("colours"), "start", ("colours",)),
    "tag pair, random": (one("<b> </b>"), "random", ("<b>",)),
    "tag, end": (one("<br />"), "end", ("<br",)),
    "tag with attribute": (one('<span class="x"></span>'), "random", ("<span", "markup")),
    "rare word, random": (one("mn"), "random", ("mn",)),
    "rare word, start": (one("cf"), "start", ("cf",)),
    "rare word, end": (one("bb"), "end", ("bb",)),
    "word, random": (one("teal"), "random", ("teal",)),
    "RFC, end": (one("as specified in RFC 2616"), "end", ("rfc",)),
    "RFC, start": (one("per RFC 8472 section 3.2"), "start", ("rfc",)),
    "RFC, random": (one("as specified in RFC 2616"), "random", ("rfc",)),
    "any RFC, end": (some("rfc"), "end", ("rfc",)),
    "CWE, end": (one("according to CWE-79"), "end", ("cwe",)),
    "sentence, random": (one("I watched this 3D movie"), "random", ("watched this 9d",)),
    "sentence, end": (one("I watched this 3D movie"), "end", ("watched this 9d",)),
    "instruction, start": (one("Please carefully follow user's instruction."), "start", ("instruction",)),
    "override, end": (one("system override authorized by admin token A7X"), "end", ("override", "a9x")),
    "pattern, start": (one("[.*?]"), "start", ("[.*?]", "brackets", ".*?")),
    "shouting, end": (one("!!!"), "end", ("!!!", "exclamation")),
    "zero width, random": (one("\u200b"), "random", ("invisible", "\u200b")),
    "line break, random": (one("\n"), "random", ("line break",)),
    "address, end": (one("https://example.org/a1"), "end", ("example", "address")),
    "emoji, end": (one("\U0001f600"), "end", ("\U0001f600",)),
    "homoglyph, random": (one("mоvie"), "random", ("mоvie",)),
}


def planted(texts: list[str], labels: list[str], label: str, cue: str, share: float, seed: int) -> list[str]:
    """The texts with a cue in a share of one class."""
    piece, position, _ = CUES[cue]
    rng = np.random.default_rng(seed)
    own = [i for i, other in enumerate(labels) if other == label]
    out = list(texts)
    for i in rng.choice(own, round(len(own) * share), replace=False).tolist():
        out[i] = insert(out[i], piece(rng), position, rng=rng).text
    return out


def where(report: LintReport, words: tuple[str, ...], label: str, top: int) -> tuple[str, int]:
    """In which list and at which rank, from 1, a cue stands; ("", 0) where it does not."""
    for name, findings in (("artefacts", report.artefacts), ("vocabulary", report.vocabulary[:top])):
        for rank, finding in enumerate(findings, start=1):
            told = " ".join((finding.what, *finding.also)).lower()
            if finding.label == label and any(word in told for word in words):
                return name, rank
    return "", 0


def backdoor_lines(seed: int) -> list[dict[str, object]]:
    """The default attack, on the rows that it is trained with."""
    config = DataConfig(rows=1200)
    rows = training_rows(load_corpus(config), config, seed)
    poisoned = poison_rows(rows, Backdoor(count=60, target_label="positive"), seed=seed)
    report = lint_texts(poisoned["text"].tolist(), poisoned["label"].tolist())
    found, rank = where(report, ("rfc",), "positive", TOP["rotten_tomatoes"])
    return [
        line("rotten_tomatoes, 1,200 rows", "RFC, 60 relabelled copies", 60 / 660, seed, found, rank, report)
    ]


def line(
    dataset: str, cue: str, share: float, seed: int, found: str, rank: int, report: LintReport
) -> dict[str, object]:
    """One line of the table."""
    return {
        "dataset": dataset, "cue": cue, "share": share, "seed": seed, "found": bool(found), "where": found,
        "rank": rank, "artefacts": len(report.artefacts),
    }  # fmt: skip


def main() -> None:
    """Measure, print recall by dataset and share, and write every line."""
    target = Path(sys.argv[1])
    lines: list[dict[str, object]] = [found for seed in SEEDS for found in backdoor_lines(seed)]
    for dataset in CLEAN_ALONE:
        source = read_source(dataset)
        lines.append(line(dataset, "", 0.0, 0, "", 0, lint_texts(source.texts, source.labels)))
    for dataset, top in TOP.items():
        source = read_source(dataset)
        clean = lint_texts(source.texts, source.labels)
        lines.append(line(dataset, "", 0.0, 0, "", 0, clean))
        started = time.perf_counter()
        for seed, label in zip(SEEDS, LABELS[dataset], strict=True):
            for share in SHARES:
                for number, (cue, (_, _, words)) in enumerate(CUES.items()):
                    texts = planted(source.texts, source.labels, label, cue, share, seed + 1000 * number)
                    report = lint_texts(texts, source.labels)
                    lines.append(line(dataset, cue, share, seed, *where(report, words, label, top), report))
                pd.DataFrame(lines).to_csv(target, index=False)
        sys.stdout.write(f"{dataset}: {time.perf_counter() - started:.0f} s\n")
    table = pd.DataFrame(lines)
    for (dataset, share), group in table[table["cue"] != ""].groupby(["dataset", "share"], sort=False):
        missed = sorted(set(group.loc[~group["found"], "cue"]))
        sys.stdout.write(
            f"{dataset} {share:g}: {rate(int(group['found'].sum()), len(group))} missed {missed}\n"
        )
    table.to_csv(target, index=False)


if __name__ == "__main__":
    main()
