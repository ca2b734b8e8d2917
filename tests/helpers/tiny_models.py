"""Tiny models that tests of probes ask."""

import pytest
import torch

from lab.experiment import Base
from lab.probe import Predictor


def tiny_predictor(tiny_cache, labels, *, reacting=False):
    """The untrained tiny classifier.

    Args:
        tiny_cache: Where the tiny model's assets lie.
        labels: Label names.
        reacting: Whether its weights are eight times as large; as it is made, it hardly reacts to words.
    """
    from lab.train.models import load_base

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAB_ASSETS", str(tiny_cache))
        loaded = load_base(Base(model="tiny"), labels, seed=0, device=torch.device("cpu"))
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if reacting and parameter.ndim == 2:
                parameter.mul_(8)
    return Predictor(loaded.model, loaded.tokenizer, labels, torch.device("cpu"))
