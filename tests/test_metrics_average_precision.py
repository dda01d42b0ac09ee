import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from foir360_jax import metrics


def random_image(rng, num_objects, num_predictions, height=24, width=48):
  """Predictions are true masks, moved and worn; some twice, some anywhere. Scores have ties."""
  masks = np.zeros((max(num_objects, num_predictions), height, width), np.uint8)
  for mask in masks:
    row, column = rng.integers(0, height - 8), rng.integers(0, width - 8)
    mask[row : row + rng.integers(3, 12), column : column + rng.integers(3, 12)] = 1
  pred = [
    np.roll(masks[rng.integers(len(masks))], rng.integers(-1, 2, 2), (0, 1))
    * (rng.random((height, width)) < 0.95)
    for _ in range(num_predictions)
  ]
  pred = np.array(pred, np.uint8).reshape(-1, height, width)
  return masks[:num_objects], pred, rng.integers(0, 12, num_predictions) / 12


def untied(images):
  rng = np.random.default_rng(0)
  return [(gt, pred, rng.random(len(scores))) for gt, pred, scores in images]


def random_images(seed, sizes=((4, 6), (5, 3), (0, 4), (3, 0), (0, 0), (7, 12), (6, 9))):
  rng = np.random.default_rng(seed)
  return [random_image(rng, *size) for size in sizes]


def encode(mask):
  return coco_mask.encode(np.asfortranarray(mask))


def coco_statistics(images, max_detections):
  """AP, AP50, AP75 and AR by pycocotools' own COCOeval, with one class."""
  truth, results = [], []
  for image_id, (gt, pred, scores) in enumerate(images):
    labels = {"image_id": image_id, "category_id": 1}
    for mask in gt:
      box = {"bbox": [0, 0, 1, 1], "area": int(mask.sum()), "iscrowd": 0}
      truth.append({**labels, **box, "id": len(truth) + 1, "segmentation": encode(mask)})
    results += [
      {**labels, "score": float(score), "segmentation": encode(mask)}
      for mask, score in zip(pred, scores, strict=True)
    ]
  with contextlib.redirect_stdout(io.StringIO()):
    coco = COCO()
    coco.dataset = {
      "info": {},
      "images": [{"id": i, "height": 24, "width": 48} for i in range(len(images))],
      "annotations": truth,
      "categories": [{"id": 1}],
    }
    coco.createIndex()
    program = COCOeval(coco, coco.loadRes(results), "segm")
    program.params.maxDets = [max_detections]
    program.params.areaRng, program.params.areaRngLbl = [[0, 1e10]], ["all"]
    program.evaluate()
    program.accumulate()
  precision, recall = program.eval["precision"][..., 0, 0, 0], program.eval["recall"][:, 0, 0, 0]
  return precision.mean(), precision[0].mean(), precision[5].mean(), recall.mean()


def matches_of(images, max_detections=100):
  return [
    metrics.match_masks(metrics.mask_iou(gt, pred), scores, max_detections=max_detections)
    for gt, pred, scores in images
  ]


@pytest.mark.parametrize("max_detections", [1, 5, 100])
@pytest.mark.parametrize("seed", range(6))
def test_average_precision_equals_pycocotools(seed, max_detections):
  images = random_images(seed)
  expected = coco_statistics(images, max_detections)
  value = metrics.average_precision(matches_of(images, max_detections))
  np.testing.assert_allclose(value, expected, atol=1e-12)
  assert 0 < value.ap < value.ap_50 < 1


def test_perfect_masks_have_1_whatever_their_scores():
  gt, _, _ = random_image(np.random.default_rng(1), 6, 0)
  gt = np.unique(gt, axis=0)
  matches = matches_of([(gt, gt, np.zeros(len(gt)))])
  np.testing.assert_allclose(metrics.average_precision(matches), 1)


def test_a_prediction_takes_what_a_better_one_left():
  iou = [[0.9, 0.8], [0.6, 0.7]]
  matches = metrics.match_masks(iou, [0.2, 0.9])
  np.testing.assert_array_equal(matches.scores, [0.9, 0.2])
  # The first takes object 0 while its 0.8 counts; what is left for the second one is 0.6.
  np.testing.assert_array_equal(matches.is_match[:, 0], [True] * 7 + [False] * 3)
  np.testing.assert_array_equal(
    matches.is_match[:, 1], [True] * 3 + [False] * 4 + [True] * 2 + [False]
  )


@pytest.mark.parametrize(
  ("num_objects", "num_predictions", "expected"), [(0, 3, np.nan), (0, 0, np.nan), (3, 0, 0.0)]
)
def test_data_sets_with_little_in_them(num_objects, num_predictions, expected):
  iou = np.zeros((num_objects, num_predictions))
  matches = [metrics.match_masks(iou, np.ones(num_predictions))] * 2
  np.testing.assert_equal(tuple(metrics.average_precision(matches)), (expected,) * 4)


def test_no_images_have_no_average_precision_and_no_interval():
  assert np.isnan(metrics.average_precision([])).all()
  assert np.isnan(metrics.bootstrap_average_precision([])).all()


def test_bootstrap_draws_images_with_all_that_is_in_them():
  matches = matches_of(untied(random_images(3)))
  interval = metrics.bootstrap_average_precision(matches, num_resamples=200, seed=5)
  rng, values = np.random.default_rng(5), []
  for _ in range(200):
    drawn = np.sort(rng.integers(len(matches), size=len(matches)))
    values.append(metrics.average_precision([matches[i] for i in drawn]))
  values = [value for value in values if not np.isnan(value.ap)]
  np.testing.assert_allclose(interval, np.quantile(values, [0.025, 0.975], axis=0), atol=1e-9)


def test_copies_of_one_image_have_the_recall_of_one_and_an_interval_of_no_width():
  matches = matches_of(random_images(4, sizes=[(6, 9)]))
  low, high = metrics.bootstrap_average_precision(matches * 5, num_resamples=20)
  assert low == high
  assert low.ar == metrics.average_precision(matches).ar


@pytest.mark.parametrize(
  ("iou", "scores", "message"),
  [
    (np.eye(2), [1, 2, 3], r"iou \(2, 2\) must be \[objects, 3 scores\]"),
    (np.eye(2), [1, np.nan], "NaN"),
    (np.full((1, 1), np.nan), [1], "NaN"),
  ],
)
def test_matches_of_inputs_that_do_not_fit_are_refused(iou, scores, message):
  with pytest.raises(ValueError, match=message):
    metrics.match_masks(iou, scores)
