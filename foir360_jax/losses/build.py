"""From the name in a configuration to the ranking loss."""

from collections.abc import Callable

import jax

from foir360_jax.losses.approx_ndcg import approx_ndcg_loss
from foir360_jax.losses.listwise import softmax_loss
from foir360_jax.losses.pairwise import (
  lambdarank_loss,
  pairwise_hinge_loss,
  pairwise_logistic_loss,
)
from foir360_jax.losses.plackett_luce import listmle_loss, plackett_luce_loss

_RANKING_LOSSES = {
  "approx_ndcg": approx_ndcg_loss,
  "lambdarank": lambdarank_loss,
  "listmle": listmle_loss,
  "pairwise_hinge": pairwise_hinge_loss,
  "pairwise_logistic": pairwise_logistic_loss,
  "plackett_luce": plackett_luce_loss,
  "softmax": softmax_loss,
}


def build_ranking_loss(name: str) -> Callable[..., jax.Array]:
  """Returns the ranking loss `(scores, labels, *, where, weights, reduce_fn)` of that name.

  Raises:
    ValueError: if there is no such loss.

  >>> build_ranking_loss("listmle").__name__
  'listmle_loss'
  """
  if name not in _RANKING_LOSSES:
    raise ValueError(f"ranking loss must be one of {', '.join(_RANKING_LOSSES)}, not {name!r}")
  return _RANKING_LOSSES[name]
