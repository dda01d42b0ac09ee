"""Which candidates are of one object: a signed graph, and its greedy contraction.

An edge says how strongly the solid angles that two candidates share speak for one object or against
it. Two candidates can be compared on what both of their views see only, so an object that a border
has cut agrees with the whole one, and two pieces that no view sees together say nothing of each
other. Axes: N candidates, V views.
"""

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components


def pair_weights(
  shared: np.ndarray,
  in_view: np.ndarray,
  outlines_rad: np.ndarray,
  error_rad: np.ndarray,
  differ: np.ndarray,
  *,
  agree: float,
  other_category: float,
  least_common: float,
) -> np.ndarray:
  """The weights of all edges: above 0 for one object, below 0 against it.

  The intersection over union on what both views see, as a share of what it would be if the outlines
  were off by their expected error, less `agree`; times how much there is to compare. Thin objects
  need the former: an error of a pixel takes half of the union from what is three pixels across.

  Args:
    shared: [N, N] solid angles that pairs share, their areas on the diagonal.
    in_view: [N, N] solid angle of candidate i within the view of candidate j.
    outlines_rad: [N] lengths of the outlines.
    error_rad: [N] expected errors of outlines.
    differ: [N, N] bool, whether the categories contradict each other.
    agree: share of the expected intersection over union from which a pair belongs together.
    other_category: what is taken from that where categories contradict each other.
    least_common: where the part to compare is below this share of the smaller candidate, a pair
      says nothing.

  Returns:
    [N, N], symmetric; the diagonal means nothing.
  """
  areas = np.diag(shared)
  union = np.maximum(in_view + in_view.T - shared, 1e-12)
  smaller = np.minimum(areas[:, None], areas)
  thin = outlines_rad / np.maximum(areas, 1e-12)
  off = np.minimum(thin[:, None], thin) * np.maximum(error_rad[:, None], error_rad) / 2
  expected = np.maximum((1 - off) / (1 + off), 0.4)
  iou = shared / union
  # The last term only orders pairs that agree as well as can be expected.
  agreement = np.minimum(iou / expected, 1) + 1e-3 * iou
  common = np.minimum(union / np.maximum(smaller, 1e-12), 1)
  common = np.where(common >= least_common, common, 0)
  return (agreement - other_category * differ - agree) * common


def contract(weights: np.ndarray) -> np.ndarray:
  """Greedy additive edge contraction: the heaviest edge is contracted until none is positive.

  Edges of the two ends to a third are added up, so what contradicts a join counts against it, and
  chains of weak agreement do not form. What no positive edge connects can never be joined, so each
  connected part is contracted by itself.

  Args:
    weights: [N, N], symmetric; the diagonal means nothing.

  Returns:
    [N] int, the group of each, numbered from 0 by the first of each group.

  >>> contract(np.array([[0, 2, -3], [2, 0, 1], [-3, 1, 0.0]]))
  array([0, 0, 1])
  """
  count = len(weights)
  if not count:
    return np.zeros(0, int)
  positive = csr_matrix(weights > 0)
  number, part_of = connected_components(positive, directed=False)
  label = np.arange(count)
  for part in range(number):
    members = np.flatnonzero(part_of == part)
    if len(members) > 1:
      label[members] = members[_contract_part(weights[np.ix_(members, members)])]
  _, first, groups = np.unique(label, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first))[groups]


def _contract_part(weights: np.ndarray) -> np.ndarray:
  """The same without looking for connected parts; a group's label is one of its members."""
  w = np.array(weights, np.float64)
  np.fill_diagonal(w, -np.inf)
  label = np.arange(len(w))
  best = w.max(axis=1)
  while True:
    i = int(best.argmax())
    if best[i] <= 0:
      return label
    j = int(w[i].argmax())
    w[i] += w[j]
    w[:, i] = w[i]
    w[i, i] = -np.inf
    w[j] = -np.inf
    w[:, j] = -np.inf
    label[label == label[j]] = label[i]
    best = w.max(axis=1)
