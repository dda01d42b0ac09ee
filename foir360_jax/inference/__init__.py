"""Inference: a trained model as a function, and runs over folders of panoramas.

`predict` and `weak_labels` go over folders and are imported by their full names, since each brings
along what it ranks by.
"""

from foir360_jax.inference.decision import Decision
from foir360_jax.inference.ranker import Ranker

__all__ = ["Decision", "Ranker"]
