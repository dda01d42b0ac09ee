"""An opened folder of scenes: ids, splits, and scenes read one at a time.

Every format's module opens its files into this class, by the steps shared here: one id a picture,
pictures found and measured, objects put together.
"""

import collections
import contextlib
import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from foir360_jax.files.listing import same_form
from foir360_jax.files.picture_file import PictureError, printable
from foir360_jax.files.picture_folder import list_pictures
from foir360_jax.files.placement import Placement, read_placement
from foir360_jax.scenes.picture_finder import PictureFinder, without_suffix
from foir360_jax.scenes.run_lengths import RunLengths, check_size
from foir360_jax.scenes.scene import Scene, SceneError, SceneObject, naming

_SPLIT = re.compile(r"((?i:train|trainval|val|valid|validation|test))(\d+|[A-Z])?")


@dataclasses.dataclass(frozen=True)
class SceneFolder:
  """Scenes on disk. Iteration reads all and stops at the first bad one; `scan` goes on.

  Attributes:
    format: name of the format, one of `FORMATS`.
    path: the folder, or the file that lists everything.
    splits: ids of each split that the folder itself gives, sorted; {} if it gives none.
    records: what is known of each scene before it is read, or the error that reading it raises.
    read_record: reads one scene from its id and record.
    notes: what a person should know of the folder as a whole, one line each: files passed over ...
  """

  format: str
  path: pathlib.Path
  splits: Mapping[str, tuple[str, ...]]
  records: Mapping[str, Any] = dataclasses.field(repr=False)
  read_record: Callable[[str, Any], Scene] = dataclasses.field(repr=False)
  notes: tuple[str, ...] = ()

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
  path: pathlib.Path,
  entries: Iterable[tuple[str, str, Any]],
  finders: Mapping[str, PictureFinder] | None = None,
) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
  """Names the records of a folder that lists them.

  The id is the name of the picture without folders and suffix. Where two splits or folders use one
  name, these ids begin with the split and the folders, joined by "_". Where that is the id of
  another picture, eight digits of the SHA-256 of split and path follow. So an id does not depend on
  the order of the pictures, nor on others that are not named alike.

  Args:
    path: the folder, for messages.
    entries: (split, picture name as given, record); split "" where there are none.
    finders: of the pictures of each split; by them it is known which entries are of one picture.

  Returns:
    The records by id, with an error in place of one that is listed twice, and the ids by split.
  """
  entries = list(entries)
  one = _places_of_one_picture(entries, finders or {})
  placed = []
  for split, name, record in entries:
    place = split, without_suffix(name)
    placed.append((one.get(place, place), split, name, record))
  ids = _ids_of_places({place for place, _, _, _ in placed})
  records: dict[str, Any] = {}
  splits: dict[str, dict[str, None]] = collections.defaultdict(dict)
  listed: dict[str, tuple[str, str]] = {}
  for place, split, name, record in placed:
    scene_id = ids[place]
    if scene_id in listed:
      record = SceneError(f"{path}: {_listed_twice(*listed[scene_id], split, name)}")
    listed[scene_id] = split, name
    if printable(scene_id) != scene_id:
      scene_id, name = printable(scene_id), printable(name)
      record = SceneError(f"{path}: the name {name} is not UTF-8; rename the picture")
    records[scene_id] = record
    splits[split][scene_id] = None
  return records, {split: tuple(sorted(ids)) for split, ids in splits.items() if split}


def _places_of_one_picture(
  entries: Iterable[tuple[str, str, Any]], finders: Mapping[str, PictureFinder]
) -> dict[tuple[str, str], tuple[str, str]]:
  """Finds the pictures that are listed more than once, however they are written.

  Returns:
    One (split, name without suffix) for all that are of one picture; split "" for several splits.
    Pictures of one name in the folders of their splits are different ones, and not here.
  """
  places: dict[pathlib.Path, list[tuple[str, str]]] = collections.defaultdict(list)
  for split, name, _ in entries:
    with contextlib.suppress(ValueError):  # a name that leads out of the folder: reading says so
      picture = finders[split].find(name) if split in finders else None
      if picture:
        places[picture].append((split, without_suffix(name)))
  one: dict[tuple[str, str], tuple[str, str]] = {}
  for several in places.values():
    if len(set(several)) > 1:
      split, name = several[0]
      same_split = all(other == split for other, _ in several)
      one |= dict.fromkeys(several, (split if same_split else "", name))
  return one


def _listed_twice(split: str, name: str, other_split: str, other_name: str) -> str:
  """Says what is wrong with two entries of one id."""
  if split != other_split:
    return f"{name} is in {split} and in {other_split}; keep it in one split"
  if same_form(name) == same_form(other_name):
    return f"{name} is listed twice; remove one of the two"
  if without_suffix(name) == without_suffix(other_name):
    return f"{name} and {other_name} would have the same results; rename one of the two"
  return f"{name} and {other_name} are one picture; remove one of the two"


def _ids_of_places(places: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
  """Returns the id of each (split, picture name without suffix), no two alike."""
  ids: dict[tuple[str, str], str] = {}
  left = set(places)
  for name_of in (_stem_of_place, _joined, _joined_with_digest):
    names = {place: name_of(*place) for place in left}
    counts = collections.Counter(names.values())
    counts.update(ids.values())
    ids |= {place: name for place, name in names.items() if counts[name] == 1}
    left = {place for place in left if place not in ids}
  return ids | {place: _joined_with_digest(*place) for place in left}


def _stem_of_place(split: str, name: str) -> str:
  return pathlib.PurePosixPath(name).name


def _joined(split: str, name: str) -> str:
  return "_".join(part for part in (split, *pathlib.PurePosixPath(name).parts) if part)


def _joined_with_digest(split: str, name: str) -> str:
  digest = hashlib.sha256(f"{split}/{name}".encode("utf-8", "surrogatepass")).hexdigest()
  return f"{_joined(split, name)}_{digest[:8]}"


def pictures_by_id(folder: pathlib.Path) -> dict[str, pathlib.Path | SceneError]:
  """Lists the pictures in a folder by their ids; an error where two have one, see `list_pictures`.

  What only looks like a picture is here too: reading the scene says what is wrong with it.
  """
  return {
    name: SceneError(str(found)) if isinstance(found, PictureError) else found
    for name, found in list_pictures(folder).pictures.items()
  }


def root_of(file: pathlib.Path) -> pathlib.Path:
  """Returns the folder to which an annotation file belongs: above `annotations`."""
  parent = file.parent
  return parent.parent if parent.name.lower() == "annotations" else parent


def split_of(stem: str) -> str:
  """Returns the split that the name of a file speaks of, "" if it speaks of none.

  >>> split_of("instances_val2017"), split_of("Test_annotations"), split_of("annotations")
  ('val2017', 'test', '')
  """
  for word in re.split(r"[_.-]", stem):
    if match := _SPLIT.fullmatch(word):
      return match[1].lower() + (match[2] or "")
  return ""


def split_of_file(path: pathlib.Path, file: pathlib.Path) -> str:
  """Returns the split that a file's name speaks of, or else that of a folder below `path`."""
  folders = file.relative_to(path).parts[:-1] if path in file.parents else ()
  names = (file.stem, *reversed(folders))
  return next(filter(None, map(split_of, names)), "")


def files_by_split(
  files: Sequence[pathlib.Path], path: pathlib.Path | None = None
) -> dict[str, pathlib.Path]:
  """Returns the file of each split; of several files, one that names no split is one itself.

  Args:
    files: the files.
    path: the folder that was opened; folders below it may name splits, too.

  Raises:
    SceneError: two files are of one split.
  """
  by_split: dict[str, pathlib.Path] = {}
  for file in files:
    named = split_of(file.stem) if path is None else split_of_file(path, file)
    split = named or (file.stem if len(files) > 1 else "")
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
  image_missing: str = Scene.image_missing,
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
    image_missing: see `Scene`.

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
    raise ValueError(f"has neither a picture nor a height and width; {image_missing}")
  check_size(*size)
  objects = tuple(make_objects(*size))
  notes: list[str] = []
  extra = dict(extra or {})
  if placement is not None:
    objects, size = place_objects(objects, placement), placement.size
    notes = placement.notes(with_masks=True)
    extra |= {} if placement.pose is None else {"pose_deg": list(placement.pose)}
  return Scene(
    *(scene_id, image_file, *size, objects, format, tuple(notes)),
    extra=extra,
    image_missing=image_missing,
  )


def place_objects(objects: Sequence[SceneObject], placement: Placement) -> tuple[SceneObject, ...]:
  """Returns objects as the picture is read, whose masks have a size that the placement fits."""

  def placed(run_lengths: RunLengths) -> RunLengths:
    if (run_lengths.height, run_lengths.width) == placement.size:
      return run_lengths
    return RunLengths.from_mask(placement.place_mask(run_lengths.mask()))

  check_size(*placement.size)
  return tuple(dataclasses.replace(item, run_lengths=placed(item.run_lengths)) for item in objects)
