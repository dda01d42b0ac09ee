"""Evaluation: of trained runs, and of any system's predictions.

Nothing is imported here: the scorer (`evaluation.score`) needs no model.
"""

__all__ = []
