"""Segmenters by name or import path.

Libraries are imported when a segmenter that needs them is asked for.
"""

import difflib
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

from foir360_jax.segment.segmenter import Segmenter, SegmenterError

INSTALL = "pip install 'foir360_jax[segment]'"
SMALL, TORCHVISION, TRANSFORMERS = "small", "torchvision", "transformers"
ONNX, MASKS = "onnx", "masks"
FORMS = (
  SMALL,
  f"{TORCHVISION}[:MODEL]",
  f"{TRANSFORMERS}[:MODEL]",
  f"{ONNX}:FILE",
  f"{MASKS}:FOLDER",
  "package.module:Class",
)
"""What may be asked for; the words before a colon are reserved."""

_CLASSES = {
  SMALL: ("foir360_jax.segment.small", "SmallSegmenter"),
  TORCHVISION: ("foir360_jax.segment.torchvision_models", "TorchvisionSegmenter"),
  TRANSFORMERS: ("foir360_jax.segment.transformers_models", "TransformersSegmenter"),
  ONNX: ("foir360_jax.segment.onnx_models", "OnnxSegmenter"),
  MASKS: ("foir360_jax.segment.written_masks", "WrittenMasks"),
}
_LIBRARIES = {
  TORCHVISION: ("torch", "torchvision"),
  TRANSFORMERS: ("torch", "torchvision", "transformers"),
  ONNX: ("onnxruntime",),
}


def load_segmenter(source: str | Any, **settings: Any) -> Segmenter:
  """Returns a segmenter.

  Args:
    source: one of `FORMS`; or an instance of anyone's class as `foir360_jax.segment.segmenter` says
      it, or the class itself.
    **settings: arguments of the segmenter's class, as `device="cpu"` for `torchvision`.

  Raises:
    SegmenterError: there is no such segmenter, or it cannot be used; one line with the cure.
  """
  if isinstance(source, Segmenter):
    return source
  if not isinstance(source, str | os.PathLike):
    kind = source if isinstance(source, type) else type(source)
    name = f"{kind.__module__}:{kind.__qualname__}"
    if isinstance(source, type):
      source = _made(source, name, settings)
    elif settings:
      raise SegmenterError(
        f"{name}: an instance has its settings already; give the class, or leave out"
        f" {', '.join(settings)}"
      )
    return Segmenter(source, name)
  source = os.fspath(source)
  word, colon, rest = source.partition(":")
  if word not in _CLASSES:
    if not rest:
      raise _unknown(source)
    return Segmenter(_made(_imported(source, word, rest), source, settings), source)
  if word == SMALL and colon or word in (ONNX, MASKS) and not rest:
    form = next(form for form in FORMS if form.startswith(word))
    raise SegmenterError(f"{source}: is written {form}")
  missing = [name for name in _LIBRARIES.get(word, ()) if importlib.util.find_spec(name) is None]
  if missing:
    verb = "is" if len(missing) == 1 else "are"
    raise SegmenterError(f"{source}: {' and '.join(missing)} {verb} not installed; {INSTALL}")
  arguments = [rest] if rest else []
  try:
    module, class_name = _CLASSES[word]
    instance = getattr(importlib.import_module(module), class_name)(*arguments, **settings)
  except SegmenterError:
    raise
  except TypeError as error:
    raise SegmenterError(f"{source}: {_line(error)}; check its settings") from error
  except (ImportError, RuntimeError) as error:  # as of a torchvision that is for another torch
    raise SegmenterError(
      f"{source}: its libraries do not work ({_line(error)}); {INSTALL} in a fresh environment"
    ) from error
  return Segmenter(instance, source)


def _unknown(source: str) -> SegmenterError:
  """Returns what to say of a name without a colon that is none of ours."""
  if source.endswith(".onnx"):
    hint = f"for a file write {ONNX}:{source}"
  elif os.path.isdir(source):
    hint = f"for a folder of masks write {MASKS}:{source}"
  else:
    near = difflib.get_close_matches(source, list(_CLASSES), 1, 0.6)
    hint = f"did you mean {near[0]}?" if near else "for a class of your own write its import path"
  return SegmenterError(f"{source!r} is no segmenter; there are {', '.join(FORMS)}; {hint}")


def _imported(source: str, module_name: str, class_name: str) -> Callable[..., Any]:
  try:
    module = importlib.import_module(module_name)
  except ModuleNotFoundError as error:
    if error.name and not f"{module_name}.".startswith(f"{error.name}."):
      raise SegmenterError(f"{source}: it needs {error.name}, which is not installed") from error
    near = difflib.get_close_matches(module_name, list(_CLASSES), 1, 0.75)
    hint = f"did you mean {near[0]}:{class_name}?" if near else "put its folder on PYTHONPATH"
    raise SegmenterError(
      f"{source}: there is no module {error.name}; {hint} (there are {', '.join(FORMS)})"
    ) from error
  except Exception as error:
    raise SegmenterError(f"{source}: importing it failed ({_line(error)}); see to it") from error
  found: Any = module
  for part in class_name.split("."):
    found = getattr(found, part, None)
  if not callable(found):
    near = difflib.get_close_matches(class_name, dir(module), 1, 0.6)
    hint = f"did you mean {near[0]}?" if near else "check the name"
    raise SegmenterError(f"{source}: {module_name} has no class {class_name}; {hint}")
  return found


def _made(kind: Callable[..., Any], source: str, settings: dict[str, Any]) -> Any:
  try:
    return kind(**settings)
  except Exception as error:
    raise SegmenterError(
      f"{source}: no instance could be made ({_line(error)}); its class has to take no argument"
      " that it needs"
    ) from error


def _line(error: BaseException) -> str:
  return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
