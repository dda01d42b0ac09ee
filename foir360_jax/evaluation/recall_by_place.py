"""Recall by latitude and at the seam, which a plain mean over objects hides.

Rows near a pole are stretched and an object at the seam is in two pieces; a model that treats a
panorama as a picture loses objects there.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from foir360_jax.metrics.bootstrap import percentile_interval, resampled_means

PLACES = {
  "within_30_deg": "within 30 degrees of the horizon",
  "from_30_to_60_deg": "30 to 60 degrees from it",
  "beyond_60_deg": "more than 60 degrees",
  "on_seam": "cut by the seam",
}


def recall_by_place(
  pictures: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> dict[str, dict[str, Any]]:
  """Recall over the objects of all pictures, by latitude and at the seam.

  Args:
    pictures: for each one, of its n true objects, `found [n]` bool, `latitude [n]` of their middles
      in radians (the sign does not matter), and `on_seam [n]` bool.

  Returns:
    by the names of `PLACES`, of which an object may be in two: `recall` (None without objects),
    `interval_95` by resampling pictures, and the number of `objects`.
  """
  totals: dict[str, tuple[list[int], list[int]]] = {name: ([], []) for name in PLACES}
  for found, latitude, on_seam in pictures:
    for name, here in _places(latitude, on_seam).items():
      if here.any():  # the others say nothing of this place
        totals[name][0].append(found[here].sum())
        totals[name][1].append(here.sum())
  return {name: _share(*map(np.array, numbers)) for name, numbers in totals.items()}


def _places(latitude: np.ndarray, on_seam: np.ndarray) -> dict[str, np.ndarray]:
  degrees = np.abs(np.rad2deg(latitude))
  bands = (degrees <= 30, (degrees > 30) & (degrees <= 60), degrees > 60, on_seam)
  return dict(zip(PLACES, bands, strict=True))


def _share(found: np.ndarray, objects: np.ndarray) -> dict[str, Any]:
  if not len(objects):
    return {"recall": None, "interval_95": None, "objects": 0}
  means = resampled_means(found, objects, num_resamples=2000, seed=0)
  return {
    "recall": float(found.sum() / objects.sum()),
    "interval_95": list(percentile_interval(means, 0.95)),
    "objects": int(objects.sum()),
  }
