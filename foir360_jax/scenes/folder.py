"""An opened folder of scenes: ids, splits, and scenes read one at a time.

Every format's module opens its files into this class, by the steps shared here: one id a picture,
pictures found and measured, objects put together.
"""

import collections
import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from foir360_jax.files.picture_file import SUFFIXES, PictureError, printable
from foir360_jax.files.picture_folder import find_file, list_pictures, same_form
from foir360_jax.files.placement import Placement, read_placement
from foir360_jax.scenes.run_lengths import RunLengths, check_size
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, naming

_SPLIT = re.compile(r"(train|trainval|val|valid|validation|test)(\d+|[A-Z])?")


@dataclasses.dataclass(frozen=True)
class SceneFolder:
  """Scenes on disk. Iteration reads all and stops at the first bad one; `scan` goes on.

  Attributes:
    format: name of the format, one of `FORMATS`.
    path: the folder, or the file that lists everything.
    splits: ids of each split that the folder itself gives, sorted; {} if it gives none.
    records: what is known of each scene before it is read, or the error that reading it raises.
    read_record: reads one scene from its id and record.
  """

  format: str
  path: pathlib.Path
  splits: Mapping[str, tuple[str, ...]]
  records: Mapping[str, Any] = dataclasses.field(repr=False)
  read_record: Callable[[str, Any], Scene] = dataclasses.field(repr=False)

  @property
  def ids(self) -> tuple[str, ...]:
    """The ids of all scenes, sorted; also of those that reading will refuse."""
    return tuple(sorted(self.records))

  def __len__(self) -> int:
    return len(self.records)

  def __iter__(self) -> Iterator[Scene]:
    return (self.read(scene_id) for scene_id in self.ids)

  def read(self, scene_id: str) -> Scene:
    """Reads and checks one scene.

    Raises:
      SceneError: there is no such scene, or it cannot be used; one line says why.
    """
    if scene_id not in self.records:
      raise SceneError(f"{self.path}: has no scene {scene_id!r}; see `ids`")
    record = self.records[scene_id]
    if isinstance(record, SceneError):
      raise record
    with naming(f"{self.path}: {scene_id}"):
      return self.read_record(scene_id, record)

  def scan(self) -> Iterator[tuple[str, Scene | SceneError]]:
    """Yields each id with its scene, or with the error that reading it raises."""
    for scene_id in self.ids:
      try:
        yield scene_id, self.read(scene_id)
      except SceneError as error:
        yield scene_id, error


def index_records(
  path: pathlib.Path, entries: Iterable[tuple[str, str, Any]]
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
  """Names the records of a folder that lists them.

  The id is the name of the picture without folders and suffix. Where two splits or folders use one
  name, these ids begin with the split and the folders, joined by "_".

  Args:
    path: the folder, for messages.
    entries: (split, picture name as given, record); split "" where there are none.

  Returns:
    The records by id, with an error in place of one that is listed twice, and the ids by split.
  """
  entries = list(entries)
  places = {(split, without_suffix(name)) for split, name, _ in entries}
  stems = collections.Counter(_stem(name) for _, name in places)
  records: dict[str, Any] = {}
  splits: dict[str, dict[str, None]] = collections.defaultdict(dict)
  for split, name, record in entries:
    parts = pathlib.PurePosixPath(without_suffix(name)).parts
    clash = stems[_stem(name)] > 1
    scene_id = "_".join(part for part in (split, *parts) if part) if clash else _stem(name)
    if scene_id in records:
      record = SceneError(f"{path}: {name} is listed twice; remove one of the two")
    if printable(scene_id) != scene_id:
      scene_id, name = printable(scene_id), printable(name)
      record = SceneError(f"{path}: the name {name} is not UTF-8; rename the picture")
    records[scene_id] = record
    splits[split][scene_id] = None
  return records, {split: tuple(sorted(ids)) for split, ids in splits.items() if split}


def without_suffix(name: str) -> str:
  """Returns a picture's name without its suffix, so that equal names compare equal.

  A dot inside a name is no suffix; see `picture_folder` on the Unicode form.

  >>> without_suffix("train/a.b.JPG"), without_suffix("a.b")
  ('train/a.b', 'a.b')
  """
  name = same_form(name.replace("\\", "/"))
  stem, _, suffix = name.rpartition(".")
  return stem if f".{suffix.lower()}" in SUFFIXES else name


def find_picture(folders: Sequence[pathlib.Path], name: str) -> pathlib.Path | None:
  """Returns the picture of a name, which may lack its suffix, in the first folder that has it.

  Raises:
    ValueError: the name leads out of the folder.
  """
  relative = str(inside_folder(name))
  for folder in folders:
    if without_suffix(relative) != same_form(relative) and (given := find_file(folder, relative)):
      return given
    for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
      if path := find_file(folder, relative + suffix):
        return path
  return None


def inside_folder(name: str) -> pathlib.PurePosixPath:
  """Returns a file's name as a path, or raises ValueError where it leads out of its folder."""
  relative = pathlib.PurePosixPath(name.replace("\\", "/"))
  leaves = pathlib.PureWindowsPath(name).drive or relative.is_absolute() or ".." in relative.parts
  if leaves or not relative.name or "\0" in name:
    raise ValueError(f"{name!r:.80} is no name of a file inside the folder; give the name alone")
  return relative


def has_any_picture(folders: Sequence[pathlib.Path], names: Iterable[str]) -> bool:
  """Whether at least one of the pictures named lies in the folders."""
  for name in names:
    with contextlib.suppress(ValueError):  # reading that scene will raise it
      if find_picture(folders, name):
        return True
  return False


def require_picture(folders: Sequence[pathlib.Path], name: str) -> pathlib.Path:
  """Returns `find_picture`, or raises a ValueError that says where it looked."""
  path = find_picture(folders, name)
  if path is None:
    places = " or ".join(str(folder) for folder in folders)
    raise ValueError(f"picture {name} is not in {places}; put it there")
  return path


def pictures_by_id(folder: pathlib.Path) -> dict[str, pathlib.Path | SceneError]:
  """Lists the pictures in a folder by their ids; an error where two have one, see `list_pictures`.

  What only looks like a picture is here too: reading the scene says what is wrong with it.
  """
  return {
    name: SceneError(str(found)) if isinstance(found, PictureError) else found
    for name, found in list_pictures(folder).pictures.items()
  }


def split_of(stem: str) -> str:
  """Returns the split that the name of a file speaks of, "" if it speaks of none.

  >>> split_of("instances_val2017"), split_of("test_annotations"), split_of("annotations")
  ('val2017', 'test', '')
  """
  return next((word for word in re.split(r"[_.-]", stem) if _SPLIT.fullmatch(word)), "")


def files_by_split(files: Sequence[pathlib.Path]) -> dict[str, pathlib.Path]:
  """Returns the file of each split; of several files, one that names no split is one itself.

  Raises:
    SceneError: two files are of one split.
  """
  by_split: dict[str, pathlib.Path] = {}
  for file in files:
    split = split_of(file.stem) or (file.stem if len(files) > 1 else "")
    if split in by_split:
      raise SceneError(
        f"{file}: is of the split {split}, as {by_split[split]}; keep one of the two"
      )
    by_split[split] = file
  return by_split


def build_scene(
  scene_id: str,
  image_file: pathlib.Path | None,
  declared_size: tuple[int, int] | None,
  make_objects: Callable[[int, int], Sequence[SceneObject]],
  *,
  format: str,
  check_pictures: bool,
  extra: Mapping[str, Any] | None = None,
) -> Scene:
  """Puts a scene together, its size being that of the picture.

  Args:
    scene_id: its id.
    image_file: its picture, or None.
    declared_size: (height, width) as annotated, which must be the picture's; None if not given.
    make_objects: makes the objects from height and width.
    format: name of the format.
    check_pictures: decode the picture, so that a truncated one is found.
    extra: see `Scene`.

  Raises:
    ValueError: sizes are missing or differ, or whatever the objects raise.
  """
  placement = None if image_file is None else read_placement(image_file, whole=check_pictures)
  size = declared_size
  if placement is not None:
    size = size or placement.upright
    if not placement.fits(size):
      height, width = placement.upright
      raise SceneError(
        f"{image_file}: has {width} x {height} pixels, its annotation says {size[1]} x {size[0]};"
        " resize the picture or annotate it anew"
      )
  if size is None:
    raise ValueError("has neither a picture nor a height and width; put the picture beside it")
  check_size(*size)
  objects = tuple(make_objects(*size))
  notes: list[str] = []
  extra = dict(extra or {})
  if placement is not None:
    objects, size = _placed(objects, size, placement), placement.size
    notes = placement.notes()
    extra |= {} if placement.pose is None else {"pose_deg": list(placement.pose)}
  return Scene(scene_id, image_file, *size, objects, format, tuple(notes), extra)


def _placed(
  objects: tuple[SceneObject, ...], size: tuple[int, int], placement: Placement
) -> tuple[SceneObject, ...]:
  """Returns objects that were annotated on a picture of `size` as the picture itself is read."""
  if size == placement.size:
    return objects
  check_size(*placement.size)
  return tuple(
    dataclasses.replace(item, run_lengths=RunLengths.from_mask(placement.place_mask(item.mask)))
    for item in objects
  )


def _stem(name: str) -> str:
  return pathlib.PurePosixPath(without_suffix(name)).name
