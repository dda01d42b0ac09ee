"""What a trained model is worth: evaluation of runs, and scores of any system's predictions.

Nothing is imported here: the scorer (`evaluation.score`) needs no model.
"""

__all__ = []
