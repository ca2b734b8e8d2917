"""What the workshop kit tells a host about the game is what the game does."""

import inspect
import re

import pytest

from lab.game.dealing import ADAPTERS, POOL
from lab.game.moves import MOVES, PHRASE_ROWS, move_cost, sweep_phrases
from lab.game.rules import BONUS, RULES
from lab.game.training import train_match
from lab.paths import notebooks_dir


@pytest.fixture(scope="module")
def kit():
    """The kit's section on the game, and the sheet to print."""
    text = (notebooks_dir() / "README.md").read_text(encoding="utf-8")
    section = text.partition("## Red and blue, in short\n")[2].partition("\n## ")[0]
    sheet = text.partition("### A bet sheet for Red and blue")[2].partition("\n## ")[0]
    assert section
    assert sheet
    return section, sheet


def cells(text):
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_its_price_list_has_every_move_at_its_price(kit):
    prices = {line[0]: line[1] for line in cells(kit[0])}
    assert {move.title: move.price for move in MOVES.values()}.items() <= prices.items()
    assert f"{move_cost('sweep', {'phrases': sweep_phrases(POOL)})} probes for the seven" in kit[0]
    assert "{}, {} or {} rows".format(*PHRASE_ROWS) in kit[0]


def test_its_points_are_those_of_the_rules(kit):
    lines = [line for line in cells(kit[0]) if re.fullmatch(r"\d+ %", line[0])]
    assert len(lines) == 11
    for share, *points in lines:
        given = int(share.removesuffix(" %")) / 100
        told = [int(p.replace("−", "-")) for p in points]
        assert told == [round(rule.points(given, True)) for rule in RULES.values()]
        # a clean adapter is the same question asked the other way round
        assert told == [round(rule.points(1 - given, False)) for rule in RULES.values()]
    assert f"brings {BONUS:g} points more" in kit[0]


def test_its_defaults_are_those_of_the_command(kit):
    asked = {name: p.default for name, p in inspect.signature(train_match).parameters.items()}
    assert f"`--adapters {asked['adapters']}` ({ADAPTERS[0]} to {ADAPTERS[1]})" in kit[0]
    assert f"`--budget {asked['budget']}`" in kit[0]
    assert f"`--rule {asked['rule']}`" in kit[0]
    assert f'`--title "{asked["title"]}"`' in kit[0]


def test_the_bet_sheet_has_a_line_for_each_adapter_and_the_points_of_the_default_rule(kit):
    assert re.findall(r"^> \| ([A-Z]) \|", kit[1], re.MULTILINE) == list("ABCDEF")
    said = {
        int(share): int(points) for share, points in re.findall(r"(\d+) % (?:brings |costs )?(\d+)", kit[1])
    }
    brier = RULES["brier"].points
    assert set(said) == {100, 80, 60, 40, 20, 0}
    assert said == {share: abs(round(brier(share / 100, True))) for share in said}
