"""A linear scoring model: measurements of an object -> local score, prior and importance.

Its coefficients, `object_score.json`, are written by `weak_labels.study.fit_object_score`. Scores
are log odds: a difference of 1 means e : 1 that people order two objects so. Axes: V views, N
objects, F `local.MEASUREMENTS`, K channels of the saliency model's appearance.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp

from foir360_jax.batch import Array
from foir360_jax.weak_labels.local import History

PRIOR_TERMS = (  # what is known of an object without looking at it
  "log_area",  # log of the solid angle in steradians, plus 4
  "log_area_squared",
  "horizon",  # absolute value of the next
  "elevation",  # sine of the centroid's latitude
)
LOCAL_TERMS = (
  *PRIOR_TERMS,
  *("first_log_mean", "first_log_peak"),  # of the saliency on the object, over the background's
  *("average_log_mean", "average_log_peak"),  # over all times that the view was computed with it
  *("last_log_mean", "last_log_peak"),  # when all that was above it in the view is gone
  *("bare_log_mean", "bare_log_peak"),  # of its place, when all objects are gone
)
# By which objects are erased: nearly the log of the saliency summed over an object. Not fitted, so
# that what is measured, to which the rest is fitted, does not depend on what is fitted.
SALIENCY_SUM = (1.0, 0.0, 0.8, 0.2)
ERASING_TERMS = ("log_area", "log_area_squared", "log_mean", "log_peak")
COEFFICIENTS = pathlib.Path(__file__).with_name("object_score.json")
_AREA_OFFSET = 4.0
_APPEARANCE = ("appearance_views", "appearance_whole")
_TERMS = {
  "erasing": ERASING_TERMS,
  "local_views": LOCAL_TERMS,
  "local_whole": LOCAL_TERMS,
  "prior": PRIOR_TERMS,
}


class ObjectScore(NamedTuple):
  """The coefficients.

  Attributes:
    erasing: one for each of `ERASING_TERMS`: which object of a view is erased next.
    local_views: one for each of `LOCAL_TERMS`, in views of a part of the scene.
    local_whole: the same in the view of the whole scene, which shows more around an object.
    prior: one for each of `PRIOR_TERMS`.
    prior_weight: what the prior counts beside comparisons, see `collect`.
    whole_weight: what the view of the whole scene counts beside each other view.
    slope: of importance = sigmoid(slope * strength + intercept).
    intercept: see slope.
    appearance_views: one for each channel of the appearance, in views of a part of the scene; ()
      for none.
    appearance_whole: the same in the view of the whole scene.
  """

  erasing: tuple[float, ...]
  local_views: tuple[float, ...]
  local_whole: tuple[float, ...]
  prior: tuple[float, ...]
  prior_weight: float
  whole_weight: float
  slope: float
  intercept: float
  appearance_views: tuple[float, ...] = ()
  appearance_whole: tuple[float, ...] = ()

  @classmethod
  def load(
    cls, saliency: str = "learned", variant: str = "full", path: pathlib.Path = COEFFICIENTS
  ) -> Self:
    """Reads committed coefficients.

    Args:
      saliency: name of the saliency model that they were fitted for.
      variant: a name of `variants.VARIANTS`.
      path: the file.

    Raises:
      ValueError: the file has no such coefficients.
    """
    content = json.loads(path.read_text())
    try:
      return cls.from_json(content[saliency][variant])
    except KeyError as error:
      raise ValueError(f"{path}: lacks {error} for saliency {saliency!r}; fit it anew") from None

  @classmethod
  def from_json(cls, content: Mapping[str, Any]) -> Self:
    """The inverse of `to_json`; raises KeyError for a missing coefficient."""
    fields: dict[str, Any] = {
      field: tuple(float(content[field][name]) for name in names) for field, names in _TERMS.items()
    }
    fields |= {field: tuple(map(float, content[field])) for field in _APPEARANCE}
    numbers = [field for field in cls._fields if field not in fields]
    fields |= {field: float(content[field]) for field in numbers}
    return cls(**fields)

  def to_json(self) -> dict[str, Any]:
    """The coefficients by name."""
    content = self._asdict()
    for field, names in _TERMS.items():
      content[field] = dict(zip(names, content[field], strict=True))
    return content

  def erasing_score(self, log_area: Array, measured: Array) -> jax.Array:
    """The score [..., N] by which a view's next object is erased; see `local.rank_views`."""
    return erasing_terms(log_area, measured) @ jnp.asarray(self.erasing)

  def local_score(
    self, log_area: Array, elevation: Array, history: History, appearance: Array
  ) -> jax.Array:
    """The local scores [..., V, N], the view of the whole scene last.

    Args:
      log_area: [..., N] log of the objects' solid angles in steradians.
      elevation: [..., N] see `PRIOR_TERMS`.
      history: [..., V, N, F].
      appearance: [..., V, N, K]; not used by coefficients that have none for it, nor where K = 0.

    Raises:
      ValueError: there are coefficients for another number of channels.
    """
    channels = appearance.shape[-1]
    uses_appearance = bool(channels and self.appearance_whole)
    if uses_appearance and channels != len(self.appearance_whole):
      raise ValueError(
        f"coefficients for an appearance of {len(self.appearance_whole)} channels do not fit a"
        f" saliency model that gives {channels}; fit them anew"
      )
    terms = local_terms(log_area, elevation, history)
    views, whole = self.local_views, self.local_whole
    if uses_appearance:
      terms = jnp.concatenate([terms, appearance], axis=-1)
      views, whole = views + self.appearance_views, whole + self.appearance_whole
    scores = [
      terms[..., :-1, :, :] @ jnp.asarray(views),
      terms[..., -1:, :, :] @ jnp.asarray(whole),
    ]
    return jnp.concatenate(scores, axis=-2)

  def view_weight(self, num_views: int) -> jax.Array:
    """Weights of the views, [V] in (0, 1], the view of the whole scene last."""
    is_whole = jnp.arange(num_views) == num_views - 1
    return jnp.minimum(jnp.where(is_whole, self.whole_weight, 1 / self.whole_weight), 1.0)

  def prior_score(self, log_area: Array, elevation: Array) -> jax.Array:
    """The score that needs no comparison, [..., N]; arguments as of `local_score`."""
    return prior_terms(log_area, elevation) @ jnp.asarray(self.prior)

  def importance(self, strength: jax.Array) -> jax.Array:
    """[..., N] in (0, 1), the same scale for all panoramas."""
    return jax.nn.sigmoid(self.slope * strength + self.intercept)


def prior_terms(log_area: Array, elevation: Array) -> jax.Array:
  """The terms of the prior, [..., N, `PRIOR_TERMS`]."""
  size = log_area + _AREA_OFFSET
  return jnp.stack([size, size**2, jnp.abs(elevation), elevation], axis=-1)


def local_terms(log_area: Array, elevation: Array, history: History) -> jax.Array:
  """The terms of the local score, [..., V, N, `LOCAL_TERMS`]."""
  known = prior_terms(log_area, elevation)[..., None, :, :]
  known = jnp.broadcast_to(known, (*history.first.shape[:-1], known.shape[-1]))
  return jnp.concatenate([known, *history], axis=-1)


def erasing_terms(log_area: Array, measured: Array) -> jax.Array:
  """The terms of the score by which objects are erased, [..., N, `ERASING_TERMS`]."""
  size = log_area + _AREA_OFFSET
  return jnp.concatenate([jnp.stack([size, size**2], axis=-1), measured], axis=-1)
