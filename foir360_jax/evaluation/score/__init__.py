"""Scores of any system's predictions: two folders of ranked objects compared, in any format."""

from foir360_jax.evaluation.score.folders import Source, score_scenes
from foir360_jax.evaluation.score.report import score_folders

__all__ = ["Source", "score_folders", "score_scenes"]
