"""A predictor that says what a rule says."""

import numpy as np


class Rule:
    """Texts with "good" in them, and those that fire, are positive."""

    labels = ("negative", "positive")

    def __init__(self, fires=lambda text: False):
        self.fires = fires

    def logits(self, texts, on_progress=None):
        said = [self.fires(text) or "good" in text for text in texts]
        return np.array([[0.0, 1.0] if positive else [1.0, 0.0] for positive in said])

    def predict(self, texts):
        return [self.labels[i] for i in self.logits(texts).argmax(axis=1)]
