"""Inference: rankers as functions, and runs over folders of panoramas.

`Ranker` is a trained model; `PhotoRanker` segments views and needs no training. `predict`,
`photographs` and `weak_labels` go over folders and are imported by their full names, since each
brings along what it ranks by.
"""

from foir360_jax.inference.decision import Decision
from foir360_jax.inference.photo_ranker import PhotoRanker, rank
from foir360_jax.inference.ranker import Ranker

__all__ = ["Decision", "PhotoRanker", "Ranker", "rank"]
