"""A segmenter of ordinary pictures, whatever its library: pictures in, masks of objects out.

A segmenter is a class of anyone's. It takes no argument that it needs, and an instance gives for a
picture, uint8 `[h, w, 3]` RGB, an iterable of `(score, category, mask, touches_border)`, one of
each object: a number in [0, 1]; an index into the instance's `categories`, a name, or None; bool
`[h, w]`; whether the picture's border may cut the object. Optional are

- the keyword `confidence`: objects of a lower score may be left out;
- `segment_batch`, the same for uint8 `[V, h, w, 3]`, a list of V answers;
- the attributes `categories` (names), `name`, `version` and `settings` (JSON values), which are
  kept with everything that it made, and `confidence`, the score that suits it as a threshold.

One that knows pictures by their names (`written_masks`) may also have

- keywords `image` and `views` of what is called: the panorama's name, and a view for each picture;
- `views_of(image, views)`: which of these it can answer for, perhaps at another size;
- the attribute `needs_pixels`, False: it is called with pictures of the right size, all black.

Here such an instance gets what all of them need alike: its answers are checked and put into arrays.
Axes: V views, N objects.
"""

import inspect
import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

DEFAULT_CONFIDENCE = 0.25


class SegmenterError(ValueError):
  """A segmenter cannot be used; one line says which, why, and what to do."""


class Segments(NamedTuple):
  """What was found in one picture.

  Attributes:
    scores: [N] float32 in [0, 1].
    categories: N names, "" where there is none.
    masks: [N, h, w] bool, at least one pixel each.
    touches_border: [N] bool.
  """

  scores: np.ndarray
  categories: tuple[str, ...]
  masks: np.ndarray
  touches_border: np.ndarray

  def __len__(self) -> int:
    return len(self.scores)


class Segmenter:
  """An instance of a segmenter's class, with checked answers.

  Args:
    instance: see the module.
    name: by which it was asked for.

  Attributes:
    name: its own name, else the one that was given.
    version: "" where it does not say.
    settings: JSON values.
    confidence: the score from which on its objects are taken, unless another is asked for.
    needs_pixels: whether it looks at the pictures at all.
  """

  def __init__(self, instance: Any, name: str):
    if not callable(instance) and not hasattr(instance, "segment_batch"):
      raise SegmenterError(
        f"{name}: cannot be called with a picture; give a class whose instances can, as"
        " foir360_jax.segment.segmenter says"
      )
    self._instance = instance
    self._batched = hasattr(instance, "segment_batch")
    self._function = instance.segment_batch if self._batched else instance
    self._takes_confidence = _takes(self._function, "confidence")
    self._takes_views = _names(self._function, "views")
    self._categories = tuple(map(str, getattr(instance, "categories", None) or ()))
    self.needs_pixels = bool(getattr(instance, "needs_pixels", True))
    self.name = str(getattr(instance, "name", "") or name)
    self.version = str(getattr(instance, "version", "") or "")
    self.confidence = float(getattr(instance, "confidence", DEFAULT_CONFIDENCE))
    self.settings = _json(getattr(instance, "settings", None) or {}, name)

  def describe(self) -> dict[str, Any]:
    """Returns what results that it made say of it, as JSON values."""
    return {"name": self.name, "version": self.version, "settings": self.settings}

  def views_of(self, image: str, views: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the views of a panorama through which it can be asked: mostly all that are planned.

    Args:
      image: the panorama's name, as results are called.
      views: planned ones.

    Raises:
      SegmenterError: it knows nothing of this panorama.
    """
    chosen = getattr(self._instance, "views_of", None)
    return tuple(chosen(image, views) if chosen else views)

  def __call__(
    self,
    pictures: np.ndarray,
    confidence: float,
    *,
    image: str = "",
    views: Sequence[Any] = (),
  ) -> list[Segments]:
    """Segments pictures of one size.

    Args:
      pictures: [V, h, w, 3] uint8 RGB.
      confidence: objects of a lower score are left out.
      image: the name of the panorama that they are views of; most segmenters do not ask.
      views: the V views of `views_of` that they are.

    Returns:
      V lists of objects.

    Raises:
      SegmenterError: an answer is not what the module says.
    """
    options: dict[str, Any] = {"confidence": confidence} if self._takes_confidence else {}
    if self._takes_views:
      options |= {"image": image, "views": views}
    if self._batched:
      answers = list(self._function(pictures, **options))
      if len(answers) != len(pictures):
        raise SegmenterError(
          f"{self.name}: segment_batch gave {len(answers)} answers for {len(pictures)} pictures;"
          " give one for each"
        )
    else:
      answers = [self._function(picture, **options) for picture in pictures]
    return [self._checked(answer, pictures.shape[1:3], confidence) for answer in answers]

  def _checked(self, answer: Iterable[Any], size: tuple[int, ...], confidence: float) -> Segments:
    scores, categories, masks, touches = [], [], [], []
    for found in answer:
      try:
        score, category, mask, touches_border = found
        score, mask = float(score), np.asarray(mask)
      except (TypeError, ValueError):
        raise SegmenterError(
          f"{self.name}: gave {found!r:.60} for an object; give (score, category, mask,"
          " touches_border)"
        ) from None
      if mask.shape != size or mask.dtype != bool:
        raise SegmenterError(
          f"{self.name}: gave a mask of {mask.dtype} {list(mask.shape)} for a picture of"
          f" {size[1]} x {size[0]} pixels; give bool {list(size)}"
        )
      if not 0 <= score <= 1:
        raise SegmenterError(f"{self.name}: gave the score {score}; give one in [0, 1]")
      if score < confidence or not mask.any():
        continue
      scores.append(score)
      categories.append(self._name_of(category))
      masks.append(mask)
      touches.append(bool(touches_border))
    return Segments(
      np.array(scores, np.float32),
      tuple(categories),
      np.array(masks, bool).reshape(-1, *size),
      np.array(touches, bool),
    )

  def _name_of(self, category: Any) -> str:
    """Returns the name of a category; of an index without a name, "class N"."""
    if category is None or isinstance(category, str):
      return category or ""
    try:
      index = int(category)
    except (TypeError, ValueError):
      raise SegmenterError(
        f"{self.name}: gave the category {category!r:.60}; give a name, an index or None"
      ) from None
    if not self._categories:
      return f"class {index}"
    if not 0 <= index < len(self._categories):
      raise SegmenterError(
        f"{self.name}: gave the category {index}, and names {len(self._categories)} categories;"
        " give a name for each"
      )
    return self._categories[index]


def _parameters(function: Any) -> list[inspect.Parameter]:
  try:
    return list(inspect.signature(function).parameters.values())
  except (TypeError, ValueError):  # some built-in functions have no signature
    return []


def _takes(function: Any, keyword: str) -> bool:
  return any(p.name == keyword or p.kind == p.VAR_KEYWORD for p in _parameters(function))


def _names(function: Any, keyword: str) -> bool:
  return any(p.name == keyword for p in _parameters(function))


def _json(settings: Any, name: str) -> dict[str, Any]:
  try:
    copied = json.loads(json.dumps(settings))
  except (TypeError, ValueError) as error:
    raise SegmenterError(f"{name}: its settings are no JSON values ({error})") from None
  if not isinstance(copied, dict):
    raise SegmenterError(f"{name}: its settings are {copied!r:.60}; give a dict")
  return copied
