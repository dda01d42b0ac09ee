"""A rule on top of the rule: a repeat is worth less, so importance depends on what came before.

Objects are picked one after the other, always the one of the greatest effective value among those
left. An object's effective value is its value v in (0, 1) by the plain rule (`importance.py`) as
long as nothing of its class has been picked, and KEPT * v afterwards; its importance is its
effective value at the time it is picked.

Importance falls along the picks, so its order is theirs: an effective value changes once, and
downwards, so whatever is picked next was worth no more than the present pick when that was made,
and is worth no more now. Hence the first pick of a class is its best object and alone keeps its
value. Ties go to the object that comes first in the arrays.

All arrays are [N], one entry an object; the rule is this project's own, a plain stand-in for the
attention that moves on to what it has not seen yet.
"""

import numpy as np

KEPT = 0.25  # what a repeat keeps of its value; a power of 2, so that it divides out exactly


def pick_in_turn(values: np.ndarray, category: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Picks all objects one after the other.

  Args:
    values: `[N]` float, importance by the plain rule, in (0, 1).
    category: `[N]` int, class of the outline.

  Returns:
    importance: `[N]` in (0, 1), the effective value of each object when it was picked.
    picks: `[N]` int, indices of the objects in the order in which they were picked.
  """
  effective = np.array(values, dtype=np.float64)
  picks, seen = [], set()
  for _ in range(len(effective)):
    left = [index for index in range(len(effective)) if index not in picks]
    best = max(left, key=lambda index: effective[index])  # the first of several
    picks.append(best)
    if category[best] not in seen:
      seen.add(category[best])
      for index in left:
        if index != best and category[index] == category[best]:
          effective[index] *= KEPT
  return effective, np.array(picks, dtype=int)


def as_if_no_repeats(importance: np.ndarray, category: np.ndarray) -> np.ndarray:
  """Undoes `pick_in_turn`: importance and category [N] -> values [N] by the plain rule.

  A class's best object is the best one after the picks, too, so it is known which one kept its
  value. Exact, and so in float32.
  """
  values = importance / KEPT
  for name in np.unique(category):
    (members,) = np.nonzero(category == name)
    best = members[importance[members].argmax()]
    values[best] = importance[best]
  return values
