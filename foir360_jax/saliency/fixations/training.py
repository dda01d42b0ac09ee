"""Training of the readout: examples in memory, a centre bias, and the objective.

The backbone is frozen, so each view passes through it once, before training; what is kept is its
features in half precision. The steps, the loop and the optimizer are those of every training.

People look at the centre of a photograph, because photographers put things there and because a
viewer's eye starts there. A view of a panorama has no such centre. So a bias that depends on the
place in the *photograph* alone is trained beside the readout, explains the habit away, and is
dropped at use. Views at random places and scales keep the readout from learning it from the edges.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import grain
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from foir360_jax.batch import Array, Batch, Terms
from foir360_jax.data.loader import EPOCHS
from foir360_jax.models.encoders import EfficientNetLite0
from foir360_jax.saliency.fixations.pictures import FixatedPicture, draw_view
from foir360_jax.saliency.readout import CELL, COMPONENTS, FEATURES, FixationReadout, at_tiles
from foir360_jax.train.step import Objective

_VIEWS_FOR_AXES = 256  # spread over all examples; the axes need no more

Examples = dict[str, np.ndarray]
"""N views, and so a batch of them: `features_3` to `features_7` [N, h, w, C] float16 (the stages of
`FEATURES`), `mass` [N, h / 8, w / 8], `window` [N, 4] (see `pictures.View`), `data_set` [N] int32,
and in batches `seed` [B] uint32."""


class CentreBias(nnx.Module):
  """Log-density of where people look in photographs, whatever these show.

  a x^2 + b y^2 + c y with its own a, b, c for each data set, x and y from -1 to 1 over the
  photograph: symmetric in x, so that mirrored pictures have the same.
  """

  def __init__(self, num_data_sets: int):
    self.coefficients = nnx.Param(jnp.tile(jnp.array([-1.0, -1.0, 0.0]), (num_data_sets, 1)))

  def __call__(self, x: Array, y: Array, data_set: Array) -> jax.Array:
    """`x` [B, w], `y` [B, h], `data_set` [B] -> [B, h, w]."""
    a, b, c = self.coefficients[...][data_set].T[..., None]
    return (b * y**2 + c * y)[:, :, None] + (a * x**2)[:, None, :]


class BiasedReadout(nnx.Module):
  """What is trained: the readout and the bias.

  Args:
    readout: the part that is kept.
    num_data_sets: number of data sets.
  """

  def __init__(self, readout: FixationReadout, num_data_sets: int):
    self.readout = readout
    self.bias = CentreBias(num_data_sets)


def build_fixation_objective(size: tuple[int, int], dropout: float) -> Objective[BiasedReadout]:
  """Returns the objective; its one term is `kl`.

  That is the Kullback-Leibler divergence of readout plus bias from the human density, over those
  cells of a view that are in the photograph. A view counts by the share of its photograph's
  fixations that lie in it.

  Args:
    size: (h, w) of the views.
    dropout: share of the channels of the first hidden layer that a view does without.
  """
  return functools.partial(_divergence, size, dropout)


def _divergence(size: tuple[int, int], dropout: float, model: BiasedReadout, batch: Batch) -> Terms:
  features = {number: batch[f"features_{number}"] for number in FEATURES}
  keep = _keep(batch["seed"], model.readout.bias.shape[0], dropout)
  log_density = model.readout(features, size, keep)
  x, y = _places(batch["window"], log_density.shape[1:])
  log_density += model.bias(x, y, batch["data_set"])
  inside = (jnp.abs(y) <= 1)[:, :, None] & (jnp.abs(x) <= 1)[:, None, :]
  log_density -= jax.nn.logsumexp(log_density, axis=(1, 2), where=inside, keepdims=True)
  mass = jnp.where(inside, batch["mass"], 0.0)
  share = mass.sum(axis=(1, 2))
  entropy = jax.scipy.special.entr(mass).sum(axis=(1, 2)) + share * _log(share)
  cross = -jnp.where(inside, mass * log_density, 0.0).sum(axis=(1, 2))
  return {"kl": ((cross - entropy).sum(), share.sum())}


def _keep(seed: jax.Array, channels: int, dropout: float) -> jax.Array:
  """[B, channels] factors, 0 or 1 / (1 - dropout), from each example's own seed."""
  keys = jax.vmap(jax.random.key)(seed)
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - dropout, (channels,)))(keys)
  return kept / (1 - dropout)


def _log(x: jax.Array) -> jax.Array:
  return jnp.log(jnp.where(x > 0, x, 1.0))


def _places(window: jax.Array, shape: Sequence[int]) -> tuple[jax.Array, jax.Array]:
  """Places of cells in the photograph, -1 to 1 over it: x [B, w] and y [B, h]."""
  x0, y0, x1, y1 = window.T[..., None]
  rows, columns = ((np.arange(length, dtype=np.float32) + 0.5) / length for length in shape)
  return 2 * (x0 + (x1 - x0) * columns) - 1, 2 * (y0 + (y1 - y0) * rows) - 1


def compile_backbone(
  backbone: EfficientNetLite0, batch_size: int
) -> Callable[[Sequence[np.ndarray]], dict[int, np.ndarray]]:
  """Returns a function from pictures of one size to {stage: [N, h, w, C] float32}.

  Args:
    backbone: gives the features.
    batch_size: pictures that are computed at once.
  """
  compute = jax.jit(lambda backbone, images: backbone.stages(images, tuple(FEATURES)))

  def run(images: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    parts = []
    for start in range(0, len(images), batch_size):
      chunk = np.stack(images[start : start + batch_size]).astype(np.float32)
      padding = [(0, batch_size - len(chunk)), *[(0, 0)] * 3]  # always the same shape
      maps = jax.device_get(compute(backbone, np.pad(chunk, padding)))
      parts.append({number: x[: len(chunk)] for number, x in maps.items()})
    return {number: np.concatenate([part[number] for part in parts]) for number in FEATURES}

  return run


def make_examples(
  data_sets: Sequence[Sequence[FixatedPicture]],
  backbone: EfficientNetLite0,
  *,
  windows: Sequence[float],
  seed: int,
) -> Examples:
  """Draws the views and passes them through the backbone: 1.7 MB a view of 576 x 768.

  Args:
    data_sets: pictures of one size.
    backbone: gives the features.
    windows: sides of a picture's views as shares of its own, one view each.
    seed: fixes the places and the mirroring.
  """
  features_of = compile_backbone(backbone, batch_size=len(windows))
  rng = np.random.default_rng(seed)
  length = len(windows) * sum(map(len, data_sets))
  columns: Examples = {}
  start = 0
  for number, pictures in enumerate(data_sets):
    for picture in pictures:
      density = picture.density()
      views = [draw_view(picture, density, share, CELL, rng) for share in windows]
      maps = features_of([view.image for view in views])
      rows = {f"features_{number}": x.astype(np.float16) for number, x in maps.items()}
      rows |= {"mass": np.stack([view.mass for view in views])}
      rows |= {"window": np.stack([view.window for view in views])}
      rows |= {"data_set": np.full(len(views), number, np.int32)}
      for key, value in rows.items():
        if key not in columns:  # gigabytes: nothing is held twice
          columns[key] = np.empty((length, *value.shape[1:]), value.dtype)
        columns[key][start : start + len(views)] = value
      start += len(views)
  return columns


def set_statistics(readout: FixationReadout, examples: Examples, size: tuple[int, int]) -> None:
  """Sets what the readout knows of the features: mean and deviation of channels, principal axes.

  Args:
    readout: is changed.
    examples: all views.
    size: (h, w) of the views.
  """
  for number, projection in zip(FEATURES, readout.projections, strict=True):
    maps = examples[f"features_{number}"]
    cells = np.prod(maps.shape[:3])
    total = sum(x.sum((0, 1), np.float64) for x in maps)
    mean = total / cells
    squares = sum(((x - mean) ** 2).sum((0, 1)) for x in maps)
    projection.mean[...] = jnp.asarray(mean, jnp.float32)
    # The floor is for channels that are silent on these pictures.
    projection.deviation[...] = jnp.asarray(np.sqrt(squares / cells) + 1e-3, jnp.float32)
  widths = [stage.channels for stage in FEATURES.values()]
  parts = np.split(_principal_axes(readout, examples, size), np.cumsum(widths)[:-1])
  for projection, part in zip(readout.projections, parts, strict=True):
    projection.axes[...] = jnp.asarray(part, jnp.float32)


def _principal_axes(
  readout: FixationReadout, examples: Examples, size: tuple[int, int]
) -> np.ndarray:
  """[sum of C, K] unit vectors of the largest variance of the standardised features of a cell."""

  @jax.jit
  def products(features: Mapping[int, jax.Array]) -> jax.Array:
    standardised = [
      at_tiles((features[number] - projection.mean[...]) / projection.deviation[...], size, stride)
      for (number, (stride, _)), projection in zip(
        FEATURES.items(), readout.projections, strict=True
      )
    ]
    cells = jnp.concatenate(standardised, axis=-1)
    cells = cells.reshape(-1, cells.shape[-1])
    return cells.T @ cells

  number = len(examples["mass"])
  chosen = np.unique(np.linspace(0, number - 1, _VIEWS_FOR_AXES).astype(int))
  covariance = functools.reduce(
    np.add,
    (
      np.asarray(products({stage: examples[f"features_{stage}"][[index]] for stage in FEATURES}))
      for index in chosen
    ),
  )
  axes = np.linalg.eigh(covariance.astype(np.float64))[1][:, ::-1][:, :COMPONENTS]
  # Of the two directions of an axis always the same one.
  return axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(COMPONENTS)])


def sharpen(readout: FixationReadout, exponent: float) -> None:
  """Changes a readout so that its densities are what they were to the power of `exponent`."""
  last = readout.layers[-1]
  last.kernel = nnx.Param(last.kernel[...] * exponent)
  assert last.bias is not None
  last.bias = nnx.Param(last.bias[...] * exponent)


def example_batches(
  examples: Examples, batch_size: int, seed: int, rows: np.ndarray | None = None
) -> Iterator[Examples]:
  """Shuffled batches without end, with seeds; its `get_state` and `set_state` resume them.

  Args:
    examples: all views.
    batch_size: views of a batch.
    seed: fixes the order and the seeds.
    rows: the views that take part; None: all.
  """
  chosen = np.arange(len(examples["mass"])) if rows is None else rows

  def read(place: int, rng: np.random.Generator) -> Examples:
    row = {key: value[chosen[place]] for key, value in examples.items()}
    return row | {"seed": rng.integers(2**32, dtype=np.uint32)}

  stream = grain.MapDataset.range(len(chosen)).seed(seed).shuffle().repeat(EPOCHS)
  stream = stream.random_map(read)
  # No threads: an example is a look into memory.
  return iter(stream.batch(batch_size).to_iter_dataset(grain.ReadOptions(num_threads=0)))
