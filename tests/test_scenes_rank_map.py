import cv2
import numpy as np
import pytest
from PIL import Image

from foir360_jax.scenes import Scene, SceneError, SceneObject, open_scenes, write_scenes
from foir360_jax.scenes.rank_map import objects_of_map

HEIGHT, WIDTH = 16, 32


def save(path, array):
  path.parent.mkdir(parents=True, exist_ok=True)
  cv2.imwrite(str(path), array)


def flood(levels, seam):
  """Regions by a plain flood fill over the eight neighbours, in reading order of each level."""
  height, width = levels.shape
  regions, seen = [], np.zeros(levels.shape, bool)
  for row, column in np.argwhere(levels > 0):
    if seen[row, column]:
      continue
    region, open_ends = np.zeros(levels.shape, bool), [(row, column)]
    while open_ends:
      r, c = open_ends.pop()
      if region[r, c]:
        continue
      region[r, c] = True
      near = [(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
      if seam:
        near = [(i, j % width) for i, j in near]
        near += [(r, j) for j in range(width) if r in (0, height - 1)]
      open_ends += [
        (i, j)
        for i, j in near
        if 0 <= i < height and 0 <= j < width and levels[i, j] == levels[row, column]
      ]
    seen |= region
    regions.append((int(levels[row, column]), region))
  return regions


@pytest.mark.parametrize(("height", "width"), [(16, 32), (15, 20)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_regions_of_one_level_are_objects_joined_across_the_seam(height, width, dtype):
  rng = np.random.default_rng()
  levels = rng.choice(np.array([0, 0, 0, 3, 200], dtype), [height, width])
  levels[5, [0, -1]] = 7
  objects, _ = objects_of_map(levels)
  expected = flood(levels, seam=width == 2 * height)
  assert len(objects) == len(expected)
  found = {(item.extra["level"], item.run_lengths.counts) for item in objects}
  for level, region in expected:
    counts = SceneObject.from_mask(1, region).run_lengths.counts
    assert (level, counts) in found
  order = sorted({level for level, _ in expected}, reverse=True)
  for item in objects:
    assert item.rank == order.index(item.extra["level"]) + 1
  assert [item.id for item in objects] == list(range(1, len(objects) + 1))


@pytest.fixture
def levels():
  levels = np.zeros([HEIGHT, WIDTH], np.uint8)
  levels[4:8, 2:9] = 255
  levels[4:8, [0, 1, -1]] = 100
  levels[10:13, 4:20] = 40
  return levels


@pytest.fixture
def folder(levels, tmp_path):
  for name in ("a", "b"):
    save(tmp_path / "images" / f"{name}.jpg", np.zeros([HEIGHT, WIDTH, 3], np.uint8))
    save(tmp_path / "rank_maps" / f"{name}.png", levels)
  return tmp_path


def test_a_map_is_read_with_its_picture(folder, levels):
  scenes = open_scenes(folder)
  assert scenes.format == "rank_map" and scenes.ids == ("a", "b") and scenes.splits == {}
  scene = scenes.read("a")
  assert [item.rank for item in scene.objects] == [1, 2, 3]
  assert [item.importance for item in scene.objects] == [1.0, 2 / 3, 1 / 3]
  np.testing.assert_array_equal(scene.masks(), [levels == 255, levels == 100, levels == 40])
  assert scene.image_file.name == "a.jpg" and scene.notes == ()


def test_maps_alone_and_splits_in_folders_are_read(levels, tmp_path):
  save(tmp_path / "gt" / "train" / "x.png", levels)
  save(tmp_path / "gt" / "test" / "y.png", levels)
  scenes = open_scenes(tmp_path)
  assert scenes.splits == {"train": ("x",), "test": ("y",)}
  assert scenes.read("x").image_file is None


def test_specks_and_ties_are_noted_and_kept(levels):
  large = cv2.resize(levels, (1024, 512), interpolation=cv2.INTER_NEAREST)
  large[5, 5] = 9
  large[500, 700:800] = 40
  objects, notes = objects_of_map(large)
  assert len(objects) == 5
  assert notes == (
    "grey level 40 has 2 regions: 2 objects that tie, or one in pieces",
    "objects [5] are specks of [1] pixels",
  )


def test_a_grey_palette_counts_by_its_grey(folder, levels):
  indexed = Image.new("P", (WIDTH, HEIGHT))
  indexed.putpalette([0, 0, 0, 255, 255, 255, 40, 40, 40, 100, 100, 100])
  table = {0: 0, 255: 1, 40: 2, 100: 3}
  indexed.putdata([table[level] for level in levels.ravel().tolist()])
  indexed.save(folder / "rank_maps" / "b.png")
  scenes = open_scenes(folder)
  assert scenes.read("a").objects == scenes.read("b").objects


def colour_palette(path):
  indexed = Image.new("P", (WIDTH, HEIGHT))
  indexed.putpalette([0, 0, 0, 255, 0, 0])
  indexed.putdata([1] * (WIDTH * HEIGHT))
  indexed.save(path)


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (colour_palette, "has colours, which have no order"),
    (lambda path: save(path, np.zeros([HEIGHT, WIDTH, 3], np.uint8)), "has colours (RGB)"),
    (
      lambda path: save(path, np.ones([HEIGHT, WIDTH + 2], np.uint8)),
      "its annotation says 34 x 16",
    ),
    (lambda path: path.write_bytes(path.read_bytes()[:70]), "is not complete"),
    (lambda path: path.unlink(), "missing; add the rank map"),
    (lambda path: (path.parents[1] / "images" / "b.jpg").unlink(), "missing; add the picture"),
  ],
)
def test_a_bad_map_is_refused_and_the_others_go_through(spoil, message, folder):
  spoil(folder / "rank_maps" / "b.png")
  scenes = dict(open_scenes(folder).scan())
  assert message in str(scenes["b"]) and isinstance(scenes["b"], SceneError)
  assert not isinstance(scenes["a"], SceneError)


def test_a_map_of_noise_is_refused():
  noise = np.random.default_rng().integers(0, 256, [128, 256], dtype=np.uint8)
  with pytest.raises(ValueError, match="more than 1000 regions"):
    objects_of_map(noise)


def test_a_map_without_objects_is_a_scene_without_objects(tmp_path):
  save(tmp_path / "rank_maps" / "a.png", np.zeros([HEIGHT, WIDTH], np.uint8))
  assert open_scenes(tmp_path).read("a").objects == ()


def test_what_was_read_is_written_and_read_again(folder, tmp_path_factory):
  target = tmp_path_factory.mktemp("copy")
  scenes = list(open_scenes(folder))
  assert write_scenes(target, scenes, format="rank_map", splits={"test": ["a", "b"]}) == []
  again = open_scenes(target)
  assert again.splits == {"test": ("a", "b")}
  for before, after in zip(scenes, again, strict=True):
    assert [(o.run_lengths, o.rank) for o in before.objects] == [
      (o.run_lengths, o.rank) for o in after.objects
    ]


def test_more_ranks_than_grey_levels_need_16_bits(tmp_path):
  masks = np.zeros([300, 40, 80], bool)
  masks.reshape(300, -1)[np.arange(300), 7 * np.arange(300)] = True
  ranks = np.random.default_rng().permutation(300) + 1
  objects = tuple(
    SceneObject.from_mask(n + 1, mask, rank=int(rank), importance=(301 - int(rank)) / 300)
    for n, (mask, rank) in enumerate(zip(masks, ranks, strict=True))
  )
  write_scenes(tmp_path / "out", [Scene("a", None, 40, 80, objects)], format="rank_map")
  again = {o.run_lengths: o.rank for o in open_scenes(tmp_path / "out").read("a").objects}
  assert sorted(again.values()) == list(range(1, 301))
  assert all(again[item.run_lengths] == item.rank for item in objects[1:-1])
