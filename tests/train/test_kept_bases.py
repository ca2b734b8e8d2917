"""Kept bases: a copy for everybody, equal to what is loaded anew, and nothing leaks back."""

import pytest
import torch

from lab.experiment import Base
from lab.train.kept_bases import keep_bases
from lab.train.models import load_base

LABELS = ("negative", "positive")


@pytest.fixture
def kept():
    keep_bases()
    yield
    keep_bases(False)


def load(seed=0, labels=LABELS):
    return load_base(Base(model="tiny"), labels, seed=seed, device=torch.device("cpu"))


def test_a_copy_is_what_loading_gives_whatever_was_done_to_the_former(kept):
    keep_bases(False)
    fresh = load()
    draw = torch.rand(3)
    keep_bases()
    for _ in range(2):
        found = load()
        assert torch.equal(torch.rand(3), draw), "the generator stands where loading leaves it"
        assert found.head == fresh.head
        for (name, a), (other, b) in zip(
            fresh.model.named_parameters(), found.model.named_parameters(), strict=True
        ):
            assert name == other
            assert torch.equal(a, b)
        with torch.no_grad():
            for weight in found.model.parameters():
                weight.add_(1.0)
        found.model.config.num_labels = 7


def test_another_seed_or_other_labels_are_another_base(kept):
    first, second = load(0), load(1)
    head = first.head[-1]
    assert not torch.equal(first.model.get_submodule(head).weight, second.model.get_submodule(head).weight)
    assert load(0, ("a", "b", "c")).model.config.num_labels == 3


def test_nothing_is_kept_unless_it_is_asked_for():
    from lab.train import kept_bases

    load()
    assert not kept_bases._kept
