"""Scores any system's predictions: compares two folders of ranked objects, in any format."""

from foir360_jax.evaluation.score.folders import Source, score_scenes
from foir360_jax.evaluation.score.report import score_folders

__all__ = ["Source", "score_folders", "score_scenes"]
