"""One walk over every registry: an entry without a name, a goal or a source is a defect."""

import pytest

from lab.assets import ASSETS
from lab.corpus import DATASETS
from lab.defend import DEFENSES
from lab.errors import LabError
from lab.poison import ATTACKS
from lab.registry import Entry, Knobs, lookup
from lab.tables import MEASURE_KINDS
from lab.train.models import MODELS

REGISTRIES = {
    "assets": ASSETS,
    "attacks": ATTACKS,
    "datasets": DATASETS,
    "defenses": DEFENSES,
    "models": MODELS,
}
ENTRIES = [(r, name, entry) for r, entries in REGISTRIES.items() for name, entry in entries.items()]


@pytest.mark.parametrize(("registry", "name", "entry"), ENTRIES, ids=[f"{r}/{n}" for r, n, _ in ENTRIES])
def test_every_entry_says_what_it_is_for_and_where_it_comes_from(registry, name, entry):
    assert isinstance(entry, Entry)
    assert entry.name == name
    assert len(entry.goal) > 10
    assert "\n" not in entry.goal
    assert entry.paper


@pytest.mark.parametrize("entry", [*ATTACKS.values(), *DEFENSES.values()], ids=lambda e: e.name)
def test_every_knob_has_help_and_a_default(entry):
    assert issubclass(entry.knobs, Knobs)
    for key, field in entry.knobs.model_fields.items():
        assert not field.is_required(), key
        assert field.default is not None, key
        if key not in ("attack", "name"):
            assert field.description, key


def test_a_wrong_name_lists_the_valid_ones():
    with pytest.raises(
        LabError, match=r"Unknown attack 'backdor'. Did you mean 'backdoor'\? Valid: backdoor, "
    ):
        lookup(ATTACKS, "backdor", "attack")


def test_measure_kinds_are_described():
    assert all(len(text) > 20 for text in MEASURE_KINDS.values())
