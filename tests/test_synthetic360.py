"""synthetic360: what is rendered, what the rule says of it, and what lies on disk."""

import functools

import cv2
import numpy as np
import pytest

from foir360_jax.data import open_source, unpack_masks
from foir360_jax.metrics import ScoreAccumulator, rank_correlation, ranks_from_relevance
from foir360_jax.sphere import bounding_fov_deg, pixel_areas, pixel_directions, solid_angle
from synthetic360 import importance, shapes, synthetic360_dataset_builder, textures
from synthetic360 import scene as scene_module
from synthetic360.repeats import as_if_no_repeats, pick_in_turn
from synthetic360.scene import SMALLEST_SR, Scene, render_scene
from synthetic360.surroundings import draw_surroundings
from synthetic360.synthetic360_dataset_builder import SPLITS, render_example

HEIGHT = 32


def scene(seed, **kwargs):
  return render_scene(np.random.default_rng(seed), HEIGHT, **kwargs)


@pytest.fixture(scope="module")
def scenes():
  return [scene(seed) for seed in range(60)]


@pytest.fixture
def record(monkeypatch):
  """A function that wraps a tuple of functions so that their calls are counted by name."""
  calls = {}

  def wrap(functions, label):
    def counted(function, number):
      def call(*arguments):
        calls[label, number] = calls.get((label, number), 0) + 1
        return function(*arguments)

      return call

    return tuple(counted(function, number) for number, function in enumerate(functions))

  monkeypatch.setattr(textures, "SEEN", wrap(textures.SEEN, "seen texture"))
  monkeypatch.setattr(textures, "UNSEEN", wrap(textures.UNSEEN, "unseen texture"))
  classes = {
    name: (wrap(seen, f"seen {name}"), wrap(unseen, f"unseen {name}"))
    for name, (seen, unseen) in shapes.CLASSES.items()
  }
  monkeypatch.setattr(shapes, "CLASSES", classes)
  return calls


def test_the_same_seed_gives_the_same_scene_and_another_one_another():
  first, again, other = scene(7), scene(7), scene(8)
  for name in ("image", "masks", "category", "occlusion"):
    np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
  assert (first.image != other.image).mean() > 0.5


def test_an_example_depends_on_its_split_and_place_alone():
  arguments = dict(height=HEIGHT, split_number=1, unseen=False)
  first, again = render_example(3, **arguments), render_example(3, **arguments)
  assert first["image"] == again["image"]
  np.testing.assert_array_equal(first["masks"], again["masks"])
  assert render_example(4, **arguments)["image"] != first["image"]
  assert render_example(3, **arguments | {"split_number": 0})["image"] != first["image"]


def test_scenes_have_4_to_40_objects_that_are_large_enough_and_some_cross_the_seam(scenes):
  counts = [len(s.masks) for s in scenes]
  assert max(counts) <= 40 and 12 <= np.median(counts) <= 25
  for index in range(12):
    example = render_example(index, height=HEIGHT, split_number=0, unseen=False)
    assert 4 <= len(example["id"]) <= 40
  areas = pixel_areas(HEIGHT)
  for s in scenes:
    assert (np.einsum("nhw,hw->n", s.masks, areas) >= SMALLEST_SR).all()
    assert ((s.occlusion >= 0) & (s.occlusion <= 0.7)).all()
  crossing = [(m[:, 0] & m[:, -1]).any() for s in scenes for m in s.masks]
  assert 0.02 < np.mean(crossing) < 0.4
  at_poles = [m[0].any() or m[-1].any() for s in scenes for m in s.masks]
  assert 0 < np.mean(at_poles) < 0.3


class Chance(np.random.Generator):
  """A generator whose coin for "translucent" (a draw compared with 0.08) always falls one way."""

  def __init__(self, seed, value):
    super().__init__(np.random.PCG64(seed))
    self.value = value

  def random(self, *arguments, **kwargs):
    return super().random(*arguments, **kwargs) if arguments or kwargs else self.value


def test_opaque_masks_never_overlap_and_translucent_ones_may():
  overlaps = []
  for value in (0.5, 0.05):  # 0.05: every object is translucent
    drawn = [render_scene(Chance(seed, value), HEIGHT) for seed in range(6)]
    overlaps.append(max(int(s.masks.sum(0).max()) for s in drawn))
  assert overlaps[0] == 1 and overlaps[1] > 1


def test_the_mask_of_one_opaque_disc_holds_the_pixels_it_covers_most_of(monkeypatch):
  """One disc about a known direction: compared with a brute-force count of quarter pixels."""
  monkeypatch.setattr(shapes, "draw_shape", lambda *_: lambda u, v: np.hypot(u, v) < 1)
  checked = 0
  for seed in range(6):
    placements = []
    draw = scene_module._draw_placement

    def remember(*arguments, draw=draw, placements=placements):
      placements.append(draw(*arguments))
      return placements[-1]

    with monkeypatch.context() as patch:
      patch.setattr(scene_module, "_draw_placement", remember)
      s = render_scene(Chance(seed, 0.5), HEIGHT)
    last = placements[-1]  # nothing stands before what was painted last
    quarters = pixel_directions(2 * HEIGHT).astype(np.float64).reshape(-1, 3)
    covered = np.zeros(len(quarters), bool)
    for number, direction in enumerate(quarters):
      ahead = direction @ last.forward
      if ahead > 0.2:
        x = direction @ last.east / ahead / last.half_extent
        y = direction @ last.north / ahead / last.half_extent
        cos, sin = np.cos(last.turn_rad), np.sin(last.turn_rad)
        across, along = (cos * x + sin * y) * last.stretch, (cos * y - sin * x) / last.stretch
        covered[number] = across**2 + along**2 < 1
    grid = covered.reshape(HEIGHT, 2, 2 * HEIGHT, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    count = grid.sum(1)
    expected = (count > 2) | ((count == 2) & grid[:, 0])
    if (expected.reshape(HEIGHT, -1) * pixel_areas(HEIGHT)).sum() >= SMALLEST_SR:
      np.testing.assert_array_equal(s.masks[-1].ravel(), expected)
      assert s.occlusion[-1] < 0.25
      checked += 1
  assert checked >= 3


def test_the_rule_of_importance_recomputed_pixel_by_pixel(scenes):
  s = scenes[3]
  features = importance.scene_features(s)
  height, width = s.image.shape[:2]
  luminance = (s.image.astype(np.float64) * [0.299, 0.587, 0.114]).sum(-1) / 255
  areas = pixel_areas(height).astype(np.float64)
  directions = pixel_directions(height).astype(np.float64)

  def mean_and_texture(inside):
    cells = [(r, c) for r in range(height) for c in range(width) if inside[r, c]]
    weight = sum(areas[cell] for cell in cells)
    level = sum(areas[cell] * luminance[cell] for cell in cells) / weight
    total, weight = 0.0, 0.0
    for r, c in cells:
      for other in ((r, (c + 1) % width), (r + 1, c)):
        if other[0] < height and inside[other]:
          total += areas[r, c] * abs(luminance[r, c] - luminance[other])
          weight += areas[r, c]
    return level, total / weight if weight else 0.0

  for number in range(0, len(s.masks), 4):
    mask = s.masks[number]
    area = areas[mask].sum()
    centre = (areas[mask, None] * directions[mask]).sum(0)
    centre /= np.linalg.norm(centre)
    radius_rad = max(np.deg2rad(25), 3 * np.sqrt(area / np.pi))
    around = (directions @ centre > np.cos(min(radius_rad, np.pi))) & ~mask
    (level, texture), (level_around, texture_around) = map(mean_and_texture, (mask, around))
    contrast = abs(level - level_around) / 0.12 + abs(texture - texture_around) / 0.03
    latitude = np.average(np.arcsin(directions[mask][:, 2]), weights=areas[mask])
    share = (s.category == s.category[number]).sum() / len(s.masks)
    expected = [np.log(area), contrast, abs(latitude), share, s.occlusion[number]]
    np.testing.assert_allclose(features[number], expected, rtol=1e-5, atol=1e-6)

  weights = dict(zip(importance.FEATURES, importance.WEIGHTS, strict=True))
  clean = sum(
    weights[name] * (features[:, k] - importance.MEANS[k]) / importance.DEVIATIONS[k]
    for k, name in enumerate(importance.FEATURES)
  )
  np.testing.assert_allclose(importance.true_importance(features), clean, rtol=1e-9)
  signs = {name: np.sign(weight) for name, weight in weights.items()}
  assert signs["log_area"] == signs["contrast"] == 1
  assert signs["distance_from_horizon"] == signs["commonness"] == signs["occlusion"] == -1


def test_annotators_scatter_about_the_rule():
  features = np.tile(importance.MEANS, (4000, 1))
  clean, noisy = importance.annotate(features, np.random.default_rng(0))
  assert (clean == 0.5).all()
  noise = np.log(noisy / (1 - noisy))
  np.testing.assert_allclose([noise.mean(), noise.std()], [0, importance.NOISE], atol=0.02)


def test_the_features_are_about_standardised(scenes):
  features = np.concatenate([importance.scene_features(s) for s in scenes])
  z = (features - importance.MEANS) / importance.DEVIATIONS
  assert (np.abs(z.mean(0)) < 0.5).all()
  assert ((z.std(0) > 0.6) & (z.std(0) < 1.6)).all()


def test_training_scenes_never_show_what_is_kept_for_the_test(record):
  for seed in range(5):
    scene(seed)
  shown = {label for label, _ in record}
  assert "seen texture" in shown and not any(label.startswith("unseen") for label in shown)


def test_test_objects_wear_unseen_textures_only_and_some_unseen_outlines(record):
  for seed in range(5):
    scene(seed, unseen=True)
  unseen = {number for label, number in record if label == "unseen texture"}
  assert unseen == set(range(len(textures.UNSEEN)))
  outlines = {label for label, _ in record} - {"seen texture", "unseen texture"}
  assert any(label.startswith("unseen") for label in outlines)
  assert any(label.startswith("seen") for label in outlines)
  # The surroundings draw from the seen ones: without objects nothing else is left.
  record.clear()
  for seed in range(5):
    rng = np.random.default_rng(seed)
    colour_of, _ = draw_surroundings(rng)
    colour_of(pixel_directions(HEIGHT).astype(np.float64))
  assert {label for label, _ in record} <= {"seen texture"}


def test_seen_and_unseen_families_are_apart():
  assert not set(textures.SEEN) & set(textures.UNSEEN)
  grid = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41))
  outlines = [
    shape(*grid).tobytes() for variants in shapes.CLASSES.values() for v in variants for shape in v
  ]
  assert len(set(outlines)) == len(outlines)


def test_only_the_test_split_is_rendered_unseen(prepared, monkeypatch):
  for split, (number, _) in SPLITS.items():
    source = open_source("synthetic360/tests", str(prepared), split)
    example = render_example(0, height=HEIGHT, split_number=number, unseen=split == "test")
    picture = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)
    by_id = {source[i]["image_id"]: source[i] for i in range(len(source))}
    np.testing.assert_array_equal(by_id[f"{split}_000000"]["image"], picture[..., ::-1])


def test_the_labels_can_be_learnt_but_not_from_area_and_latitude(scenes):
  """The exact figures: python datasets/prepare.py --dataset=synthetic360/64x128 --difficulty."""
  rng = np.random.default_rng(0)
  scores = {"ceiling": [], "area": [], "horizon": []}
  for s in scenes:
    if len(s.masks) < 2:
      continue
    features = importance.scene_features(s)
    clean, noisy = importance.annotate(features, rng)
    for name, values in zip(scores, (clean, features[:, 0], -features[:, 2]), strict=True):
      scores[name].append(rank_correlation(noisy, values))
  mean = {
    name: ScoreAccumulator().add(*values).summary()["mean"] for name, values in scores.items()
  }
  assert 0.8 < mean["ceiling"] < 0.97
  assert 0 < mean["area"] < 0.6 and 0 < mean["horizon"] < 0.6


def test_prepared_examples_read_back_equal_to_rendered_ones(prepared):
  sizes = {"train": 12, "validation": 4, "test": 4}
  for split, size in sizes.items():
    source = open_source("synthetic360/tests", str(prepared), split)
    assert len(source) == size and source.category_names == shapes.CLASS_NAMES
    for index in range(2):
      stored = source[index]
      number = int(stored["image_id"].removeprefix(f"{split}_"))
      expected = render_example(
        number, height=HEIGHT, split_number=SPLITS[split][0], unseen=split == "test"
      )
      assert set(stored) == set(expected) | {"image_id"}
      picture = cv2.imdecode(np.frombuffer(expected.pop("image"), np.uint8), cv2.IMREAD_COLOR)
      np.testing.assert_array_equal(stored["image"], picture[..., ::-1])
      for key, value in expected.items():
        np.testing.assert_array_equal(stored[key], value, err_msg=key)
        assert np.asarray(stored[key]).dtype == np.asarray(value).dtype or np.ndim(value) == 0, key


def test_processes_render_what_one_process_renders(monkeypatch):
  render = functools.partial(render_example, height=HEIGHT, split_number=1, unseen=False)
  monkeypatch.setattr(synthetic360_dataset_builder, "MIN_SCENES_FOR_PROCESSES", 9)
  in_processes = [*synthetic360_dataset_builder._render_all(render, 9)]  # two parts
  monkeypatch.setattr(synthetic360_dataset_builder, "MIN_SCENES_FOR_PROCESSES", 10)
  here = [*synthetic360_dataset_builder._render_all(render, 9)]
  for one, other in zip(in_processes, here, strict=True):
    assert one.keys() == other.keys()
    for key, value in one.items():
      np.testing.assert_array_equal(value, other[key], err_msg=key)


def test_the_fields_of_an_example_agree_with_its_masks_and_labels(prepared):
  example = open_source("synthetic360/tests", str(prepared), "train")[0]
  masks = unpack_masks(example["masks"], 2 * HEIGHT)
  assert example["id"].tolist() == list(range(1, len(masks) + 1))
  np.testing.assert_array_equal(example["rank"], ranks_from_relevance(example["importance"]))
  for name in ("importance", "true_importance"):
    assert ((example[name] > 0) & (example[name] < 1)).all()
  np.testing.assert_allclose(example["solid_angle_sr"], [solid_angle(m) for m in masks], rtol=1e-5)
  boxes = [bounding_fov_deg(mask) for mask in masks]
  np.testing.assert_allclose(example["bfov_deg"], boxes, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
  "flag, message",
  [
    ("--dataset=imagenet", "imagenet: no such data set; known are: synthetic360"),
    ("--dataset=synthetic360/1x2", "no such configuration; known are: 64x128, 128x256, 64x128_rep"),
    ("synthetic360", "unexpected argument 'synthetic360'; write --dataset=NAME/CONFIG"),
  ],
)
def test_prepare_refuses_what_it_does_not_know_in_one_line(call_prepare, tmp_path, flag, message):
  result = call_prepare(flag, f"--data_dir={tmp_path}")
  assert result.returncode == 1
  assert message in result.stderr and "Traceback" not in result.stderr
  assert not list(tmp_path.iterdir())


def test_prepare_keeps_what_is_there_and_prints_the_difficulty_and_a_picture(
  run_command, prepared, tmp_path
):
  folder = prepared / "synthetic360/tests/1.1.0"
  before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
  result = run_command(
    "datasets/prepare.py",
    "--dataset=synthetic360/tests",
    f"--data_dir={prepared}",
    "--difficulty",
    f"--picture={tmp_path / 'panorama.png'}",
  )
  assert result.returncode == 0, result.stderr
  assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
  assert "train 12, validation 4, test 4" in result.stdout
  assert "ceiling" in result.stdout and "nothing were a repeat" not in result.stdout
  assert cv2.imread(str(tmp_path / "panorama.png")).shape == (512, 1024, 3)


def test_a_scene_without_objects_has_no_features():
  empty = Scene(
    np.zeros((HEIGHT, 2 * HEIGHT, 3), np.uint8),
    np.zeros((0, HEIGHT, 2 * HEIGHT), bool),
    np.zeros(0, int),
    np.zeros(0),
  )
  assert importance.scene_features(empty).shape == (0, 5)


def random_objects():
  """Values and classes [N], N from 0 to 40: many ties, few, none; few classes, one, one each."""
  rng = np.random.default_rng(0)
  for count in (0, 1, 2, *rng.integers(0, 41, 60)):
    for steps in (4, 16, 10**6):
      values = rng.integers(1, steps, count) / steps
      for category in (rng.integers(0, 5, count), np.full(count, 7), rng.permutation(count)):
        yield values, category


def test_with_each_better_one_of_its_class_an_object_loses_three_quarters():
  for values, category in random_objects():
    better = [
      sum(
        category[rival] == category[index] and (other > value or (other == value and rival < index))
        for rival, other in enumerate(values)
      )
      for index, value in enumerate(values)
    ]
    before = values.copy()
    found, _ = pick_in_turn(values, category)
    np.testing.assert_array_equal(found, values * 0.25 ** np.array(better, float))
    np.testing.assert_array_equal(values, before)
    assert found.shape == values.shape


def test_importance_falls_along_the_picks_so_its_order_is_theirs():
  for values, category in random_objects():
    found, picks = pick_in_turn(values, category)
    assert sorted(picks) == list(range(len(values)))
    assert (np.diff(found[picks]) <= 0).all()
    np.testing.assert_array_equal(picks, np.argsort(-found, kind="stable"))


def test_every_pick_was_the_best_of_what_was_left():
  for values, category in random_objects():
    found, picks = pick_in_turn(values, category)
    for number, pick in enumerate(picks):
      seen, left = list(category[picks[:number]]), picks[number:]
      worth = [values[i] * 0.25 ** seen.count(category[i]) for i in left]
      assert worth[0] == max(worth) == found[pick]


def test_the_penalty_of_repeats_can_be_undone_exactly_in_float32_too():
  for values, category in random_objects():
    for dtype in (np.float64, np.float32):
      found = pick_in_turn(values, category)[0].astype(dtype)
      undone = as_if_no_repeats(found, category)
      np.testing.assert_array_equal(undone, values.astype(dtype), strict=True)


@pytest.mark.parametrize("unseen", [False, True])
def test_repeats_change_nothing_but_the_importance(unseen):
  changed = 0
  for index in range(6):
    arguments = dict(height=HEIGHT, split_number=2 if unseen else 0, unseen=unseen)
    plain = render_example(index, **arguments)
    other = render_example(index, repeats=True, **arguments)
    assert set(plain) == set(other)
    for key in set(plain) - {"importance", "true_importance", "rank"}:
      np.testing.assert_array_equal(plain[key], other[key], err_msg=key, strict=True)
    for name in ("importance", "true_importance"):
      assert plain[name].dtype == other[name].dtype
      alone = as_if_no_repeats(other[name], other["category"]).astype(np.float64)
      # Without the penalty both rules differ by the term of common classes alone.
      share = np.array([np.mean(plain["category"] == label) for label in plain["category"]])
      column = importance.FEATURES.index("commonness")
      standard = (share - importance.MEANS[column]) / importance.DEVIATIONS[column]
      difference = np.log(plain[name] / (1.0 - plain[name])) - np.log(alone / (1 - alone))
      np.testing.assert_allclose(difference, importance.WEIGHTS[column] * standard, atol=1e-4)
    np.testing.assert_array_equal(other["rank"], ranks_from_relevance(other["importance"]))
    changed += (plain["rank"] != other["rank"]).any()
  assert changed >= 3


def test_a_configuration_with_repeats_is_prepared_and_its_difficulty_shows_what_they_cost(
  call_prepare, tmp_path
):
  name = "synthetic360/tests_repeats"
  result = call_prepare(f"--dataset={name}", f"--data_dir={tmp_path}", "--difficulty")
  assert result.returncode == 0, result.stderr
  source, blind = open_source(name, str(tmp_path), "test"), []
  assert len(source) == 4
  for stored in (source[i] for i in range(4)):
    number = int(stored["image_id"].removeprefix("test_"))
    arguments = dict(height=HEIGHT, split_number=SPLITS["test"][0], unseen=True)
    expected = render_example(number, repeats=True, **arguments)
    for key in ("masks", "category", "importance", "true_importance", "rank"):
      np.testing.assert_array_equal(stored[key], expected[key], err_msg=key)
    alone = as_if_no_repeats(expected["true_importance"], expected["category"])
    blind.append(rank_correlation(expected["importance"], alone))
  mean = ScoreAccumulator().add(*blind).summary()["mean"]
  title = "the rule without noise, as if nothing were a repeat"
  (line,) = [line for line in result.stdout.splitlines() if title in line]
  assert line.split(title)[1].split()[0] == f"{mean:.3f}"
