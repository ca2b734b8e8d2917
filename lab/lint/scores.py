"""How well a feature predicts a label, whatever the balance of the classes.

A feature is counted once a text. Every class weighs the same: with p_c the share of class c's texts that have
the feature, the label's distribution given the feature is p_c / Σp. Doubling one class changes none of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: Below this z the exact tail is no matter: it is not called anyway.
_EXACT_FROM = 2.0


def conditional_entropy(counts: Counts, totals: Counts) -> Floats:
    """H(y|t), the entropy of the label given a feature, every class weighing the same.

    0: only one class has the feature. log2(classes): it tells nothing. Source: arXiv 2506.11402, which counts
    texts as they are; with classes of one size that is the same.

    Args:
        counts: Texts of each class that have each feature, shape [features, classes].
        totals: Texts of each class, shape [classes], all above 0.

    Returns:
        Bits, shape [features]; NaN for a feature that no text has.
    """
    shares = _balanced(counts, totals)
    with np.errstate(divide="ignore", invalid="ignore"):
        bits = np.where(shares > 0, shares * np.log2(shares), 0.0)
    out: Floats = np.where(np.isnan(shares).any(axis=1), np.nan, -bits.sum(axis=1))
    return np.maximum(out, 0.0)


def association_scores(counts: Counts, totals: Counts) -> pd.DataFrame:
    """Every feature with the class that it speaks for the most, one class against all others.

    Args:
        counts: Texts of each class that have each feature, shape [features, classes].
        totals: Texts of each class, shape [classes], all above 0.

    Returns:
        One line a feature: `label` (index of the class), `k` (its texts with the feature), `n` (all texts
        with it), `share` (k of the class's texts), `purity` (the class's share given the feature, every
        class weighing the same, in (0, 1]), `entropy` (bits), `pmi` (log2 of purity × classes; 0: tells
        nothing), `z` (signed root of the likelihood ratio, about standard normal by chance; higher speaks
        more for the class. The usual log odds ratio in standard errors hardly rises once no other text has
        the feature), `p` (exact one-sided p-value of as many texts of the class by chance, Fisher; times
        the classes, since the strongest was taken), `q` (Benjamini-Hochberg over all features given).
    """
    import pandas as pd

    from lab.stats import benjamini_hochberg

    balanced = _balanced(counts, totals)
    label = np.where(np.isnan(balanced), -1.0, balanced).argmax(axis=1)
    every = np.arange(len(counts))
    n = counts.sum(axis=1)
    k, of_class = counts[every, label], totals[label]
    z = _z(k, of_class, n - k, totals.sum() - of_class)
    p = np.minimum(_tails(k, of_class, n, int(totals.sum()), z) * len(totals), 1.0)
    purity = balanced[every, label]
    with np.errstate(divide="ignore"):
        pmi = np.log2(purity * len(totals))
    return pd.DataFrame(
        {
            "label": label,
            "k": k,
            "n": n,
            "share": k / of_class,
            "purity": purity,
            "entropy": conditional_entropy(counts, totals),
            "pmi": pmi,
            "z": z,
            "p": p,
            "q": benjamini_hochberg(p),
        }
    )


def _balanced(counts: Counts, totals: Counts) -> Floats:
    shares = counts / totals
    whole = shares.sum(axis=1, keepdims=True)
    return np.divide(shares, whole, out=np.full(shares.shape, np.nan), where=whole > 0)


def _z(k: Counts, of_class: Counts, others: Counts, of_others: Counts) -> Floats:
    """Signed root of G² = 2 Σ O ln(O / E) over the four cells of with or without, class or not."""
    rows, n = of_class + of_others, k + others
    terms = [
        _entropic(observed, column * line / rows)
        for observed, column, line in (
            (k, of_class, n),
            (of_class - k, of_class, rows - n),
            (others, of_others, n),
            (of_others - others, of_others, rows - n),
        )
    ]
    sign = np.sign(k * of_others - others * of_class)
    out: Floats = sign * np.sqrt(np.maximum(2 * np.sum(terms, axis=0), 0.0))
    return out


def _entropic(observed: Counts, expected: Floats) -> Floats:
    ratio = np.divide(
        observed, expected, out=np.ones(np.shape(observed), dtype=np.float64), where=observed > 0
    )
    return np.asarray(observed * np.log(ratio), dtype=np.float64)


def _tails(k: Counts, of_class: Counts, n: Counts, rows: int, z: Floats) -> Floats:
    """P(at least k of n texts in the class): exact where it may matter, from z elsewhere."""
    from scipy.stats import hypergeom, norm

    p = np.asarray(norm.sf(z), dtype=np.float64)
    near = z > _EXACT_FROM
    p[near] = hypergeom.sf(k[near] - 1, rows, n[near], of_class[near])
    return np.clip(p, 0.0, 1.0)
