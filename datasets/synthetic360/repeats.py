"""A rule on top of the rule: a repeat is worth less, so importance depends on what came before.

Objects are picked one after the other, always the one of the greatest effective value among those
left. To begin with, an object's effective value is its value v in (0, 1) by the plain rule
(`importance.py`) without its term for common classes, which this takes the place of. Each time one
of its class is picked it loses most of it: it is multiplied by KEPT. An object's importance is its
effective value at the time it is picked.

Importance falls along the picks, so its order is theirs: effective values change downwards only, so
whatever is picked next was worth no more than the present pick when that was made, and is worth no
more now. Hence objects of one class are picked in the order of their values, and the k-th of them
(from 0) keeps KEPT^k of its own. Ties go to the object that comes first in the arrays.

All arrays are [N], one entry an object; the rule is this project's own, a plain stand-in for the
attention that moves on to what it has not seen yet.
"""

import numpy as np

KEPT = 0.25  # what is left at each pick of the class; a power of 2, so that it divides out exactly


def pick_in_turn(values: np.ndarray, category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Picks all objects one after the other.

  Args:
    values: `[N]` float in (0, 1), what each object would be worth alone.
    category: `[N]` int, class of the outline.

  Returns:
    importance: `[N]` in (0, 1), the effective value of each object when it was picked.
    picks: `[N]` int, indices of the objects in the order in which they were picked.
  """
  effective = np.array(values, dtype=np.float64)
  picks = []
  for _ in range(len(effective)):
    left = [index for index in range(len(effective)) if index not in picks]
    best = max(left, key=lambda index: effective[index])  # the first of several
    picks.append(best)
    for index in left:
      if index != best and category[index] == category[best]:
        effective[index] *= KEPT
  return effective, np.array(picks, dtype=int)


def as_if_no_repeats(importance: np.ndarray, category: np.ndarray) -> np.ndarray:
  """Undoes `pick_in_turn`: importance and category [N] -> values [N].

  Within a class the order of the picks is that of the importance, so it is known how often each one
  was multiplied. Exact, and so in float32.
  """
  values = np.array(importance)
  for name in np.unique(category):
    (members,) = np.nonzero(category == name)
    in_turn = members[np.argsort(-importance[members], kind="stable")]
    values[in_turn] /= (KEPT ** np.arange(len(in_turn))).astype(values.dtype)
  return values
