"""How much boxes were looked at: the order of the faces of crowd, made from fixations.

Used where a layout has boxes but no ranks; the JSON form brings ranks by the same rule.
"""

import numpy as np

from fixations.record import UNRANKED, Boxes

# A fixation beside a box by less than this share of the picture's width is on it: about a quarter
# of a degree in crowd, where a degree is 26 of 1024 pixels. The published boxes are tight.
MARGIN = 1 / 160


def rank_boxes(edges: np.ndarray, fixations: np.ndarray, width: int) -> Boxes:
  """Ranks boxes by the number of viewers who fixated them, then by the total duration.

  Args:
    edges: [N, 4], x0, y0, x1, y1 in pixels.
    fixations: [F, 5], the columns named in `record.COLUMNS`; all count, the first ones too.
    width: columns of the picture.

  Returns:
    The boxes with dense ranks; -1 where nobody looked. A fixation on two boxes counts for both.

  >>> fixations = np.array([[0, 0, 5, 5, 300], [0, 1, 25, 5, 100], [1, 0, 25, 6, 100]])
  >>> rank_boxes(np.array([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]]), fixations, 50).rank
  array([ 2,  1, -1])
  """
  margin = MARGIN * width
  subject, _, x, y, duration_ms = fixations.T
  x0, y0, x1, y1 = edges.T[..., None]
  on_box = (x >= x0 - margin) & (x <= x1 + margin) & (y >= y0 - margin) & (y <= y1 + margin)
  viewers = np.array([len(np.unique(subject[on])) for on in on_box], int)
  total_ms = on_box @ duration_ms
  seen = viewers > 0
  keys, place = np.unique(np.column_stack([viewers, total_ms])[seen], axis=0, return_inverse=True)
  rank = np.full(len(edges), UNRANKED)
  rank[seen] = len(keys) - place
  return Boxes(edges, rank, viewers, total_ms)
