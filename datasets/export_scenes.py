"""A prepared data set, or a part of it, as a SCENES folder: pictures, id maps and ranks.

`prepare --export=FOLDER` calls this for data sets whose examples have masks and ranks. The pictures
are the bytes that the data set holds. Axes: masks [N, H, W].
"""

import pathlib
import re
import tempfile
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from foir360_jax.files.id_map_file import topmost
from foir360_jax.metrics import ranks_from_relevance
from foir360_jax.scenes import Scene, SceneObject, write_scenes

_NAMED = 3  # pictures that a line names
# What a scene says itself; the other fields of an example a SCENES folder cannot hold.
_KEPT = {
  *("image", "image_id", "height", "width", "masks", "id", "importance", "rank", "category"),
  *("bfov_deg", "solid_angle_sr"),  # measured anew
}


def check_folder(folder: pathlib.Path) -> None:
  """Raises ValueError if the folder exists, so that nothing is overwritten."""
  if folder.exists():
    raise ValueError(f"{folder}: exists already; export to a new folder, or remove this one")


def export_scenes(
  builder: tfds.core.DatasetBuilder, folder: pathlib.Path, split: str | None = None
) -> list[str]:
  """Writes examples as a SCENES folder, with a list of ids for each split.

  The folder appears whole or not at all. An id map has one object a pixel: of overlapping objects
  the smaller is on top, and one that lies wholly under others is left out; the ranks of the rest
  are counted without gaps, their importance stays.

  Args:
    builder: of a prepared data set, as ArrayRecord.
    folder: a folder that does not exist.
    split: what to write, in the notation of TFDS: "train[:500]", "train+test"; None: all of it.

  Returns:
    A line on what was written, and one on each kind of thing that was lost.

  Raises:
    ValueError: the folder exists, there is no such split, or it is empty.
  """
  check_folder(folder)
  if builder.info.file_format.value != "array_record":
    raise ValueError(
      f"{builder.data_path}: is stored as {builder.info.file_format.value}; export from ArrayRecord"
      " in another --data_dir"
    )
  scenes, splits, hidden = [], {}, {}
  with tempfile.TemporaryDirectory() as pictures:
    for part in (split or "+".join(builder.info.splits)).split("+"):
      ids = splits.setdefault(re.split(r"\W", part.strip())[0], [])
      for example in _examples(builder, part.strip()):
        scene, left_out = _scene(example, builder.info, pathlib.Path(pictures) / str(len(scenes)))
        scenes.append(scene)
        ids.append(scene.id)
        if left_out:
          hidden[scene.id] = left_out
    lost = write_scenes(folder, scenes, format="scenes", splits=splits)
  sizes = ", ".join(f"{name} {len(ids)}" for name, ids in splits.items())
  objects = sum(len(scene.objects) for scene in scenes)
  lines = [f"{folder}: {len(scenes)} panoramas ({sizes}) with {objects} objects", *lost]
  if hidden:
    count = sum(map(len, hidden.values()))
    shown = [f"{name}: {', '.join(map(str, ids))}" for name, ids in hidden.items()][:_NAMED]
    more = " ..." if len(hidden) > _NAMED else ""
    lines.append(f"{count} objects lie wholly under others, left out: {'; '.join(shown)}{more}")
  return lines


def _examples(builder: tfds.core.DatasetBuilder, part: str):
  """The examples of a part of one split, their pictures as bytes."""
  splits = builder.info.splits
  try:
    count = splits[part].num_examples
  except (KeyError, ValueError):
    raise ValueError(
      f"{builder.info.full_name} has no split {part!r}; it has {', '.join(splits)}"
      " (parts of one are written as 'train[:50%]')"
    ) from None
  if count < 1:  # negative where a part ends before it starts
    raise ValueError(f"the split {part!r} of {builder.info.full_name} is empty; ask for more")
  return builder.as_data_source(part, decoders={"image": tfds.decode.SkipDecoding()})


def _scene(
  example: dict[str, Any], info: tfds.core.DatasetInfo, picture: pathlib.Path
) -> tuple[Scene, list[int]]:
  """Returns an example as a scene, its picture written, and the ids of objects left out."""
  data, height, width = example["image"], int(example["height"]), int(example["width"])
  picture = picture.with_suffix(".png" if data.startswith(b"\x89PNG") else ".jpg")
  picture.write_bytes(data)
  masks = np.unpackbits(example["masks"], axis=-1, count=width).view(bool)
  names = info.metadata["category_names"]
  visible = np.bincount(topmost(masks).ravel() + 1, minlength=len(masks) + 1)[1:] > 0
  shown = np.flatnonzero(visible)
  objects = [
    SceneObject.from_mask(
      int(example["id"][index]),
      masks[index],
      importance=float(example["importance"][index]),
      rank=int(rank),
      category=names[number] if (number := example["category"][index]) >= 0 else "",
      extra={name: example[name][index] for name in example.keys() - _KEPT},
    )
    for index, rank in zip(shown, ranks_from_relevance(-example["rank"][shown]), strict=True)
  ]
  scene = Scene(_text(example["image_id"]), picture, height, width, tuple(objects))
  return scene, [int(number) for number in example["id"][~visible]]


def _text(value: bytes | str) -> str:
  return value.decode() if isinstance(value, bytes) else value
