"""The task "weak_labels": ranks without annotators; nothing is trained."""

from ml_collections import ConfigDict


def weak_labels_config() -> ConfigDict:
  """Returns the defaults of the task "weak_labels"; unknown fields are refused by the lock.

  Beside `saliency`, `batch_size` and `overlays` they are those of `weak_labels.Strategy`.
  """
  config = ConfigDict()
  config.task = "weak_labels"
  config.saliency = "learned"  # or "spectral", which needs no weights
  config.collector = "bradley_terry"  # or "plackett_luce", "mean_score", "borda"
  config.fill = "pull_push"  # what erased objects are replaced by; see `weak_labels.FILLS`
  config.grow_px = 4  # by which a hole reaches beyond the erased object
  config.max_erased = 8  # objects erased at most in a view; 0: no erasing
  config.max_erased_whole = 8  # the same on the whole panorama, whose saliency costs more
  config.tangent_views = True  # False: the whole panorama is the only view
  config.views_at_once = 8  # that the network gets at a time
  config.batch_size = 8  # panoramas that go through the program together
  config.overlays = True  # also draw a picture for each rank file
  return config.lock()
