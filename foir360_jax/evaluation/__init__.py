"""What a trained model is worth, and what it says of new panoramas: evaluate, predict, pictures."""

from foir360_jax.evaluation.evaluate import evaluate
from foir360_jax.evaluation.predict import predict_folder, rank_given_masks
from foir360_jax.evaluation.ranker import Ranker

__all__ = ["Ranker", "evaluate", "predict_folder", "rank_given_masks"]
