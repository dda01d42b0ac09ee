"""The layout of the public repositories: MATLAB files beside the pictures.

  data/stimuli/*.jpg
  data/eye/fixations.mat  fixations{i}.img, .subjects{j}.fix_x, .fix_y, .fix_duration (ms)
  data/labels.mat         crowd alone: labels{i}.nFaces, .faces{k}.center [x, y], .width, .height

These fields are the ones that the repositories' own MATLAB code reads. There, `fixations{i}` and
`labels{i}` both belong to the i-th picture by name, so labels need all fixations, sorted.
"""

import pathlib
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import mat_struct

from fixations.gaze import rank_boxes
from fixations.record import Boxes, Record
from foir360_jax.files.json_file import inside
from foir360_jax.files.listing import list_files
from foir360_jax.files.picture_file import picture_size

FIXATIONS = "data/eye/fixations.mat"
LABELS = "data/labels.mat"


class RepositoryLayout:
  """A folder in the layout of the public repositories.

  Args:
    folder: the repository's root.
    with_boxes: whether the data set has boxes.

  Raises:
    ValueError: a MATLAB file is missing, cannot be read, or does not fit the other.
  """

  def __init__(self, folder: pathlib.Path, *, with_boxes: bool):
    if (folder / LABELS).exists() != with_boxes:
      raise ValueError(
        f"{folder / LABELS}: {'missing' if with_boxes else 'there'}; "
        f"this is not {'crowd' if with_boxes else 'osie'}, give the other configuration"
      )
    entries = _read_cells(folder / FIXATIONS, "fixations")
    names = [_text(entry, "img", folder / FIXATIONS) for entry in entries]
    if len(set(names)) < len(names):
      raise ValueError(f"{folder / FIXATIONS}: two entries are of one picture; download it again")
    self._entries = dict(zip(names, entries, strict=True))
    self._labels = {}
    if with_boxes:
      labels = _read_cells(folder / LABELS, "labels")
      if len(labels) != len(names) or names != sorted(names):
        raise ValueError(
          f"{folder / LABELS}: its {len(labels)} entries do not go with the {len(names)} of "
          f"{FIXATIONS}, picture by picture; download both again"
        )
      self._labels = dict(zip(names, labels, strict=True))
    stimuli = folder / "data/stimuli"
    files = {*names, *(file.name for file in list_files(stimuli, ".jpg"))}
    self.pictures = {pathlib.PurePath(file).stem: stimuli / file for file in sorted(files)}

  def read(self, image_id: str) -> Record:
    """Returns the record of one of `pictures`.

    Raises:
      ValueError: its entry is missing or not as above, or its picture cannot be read.
    """
    picture = self.pictures[image_id]
    if picture.name not in self._entries:
      raise ValueError(f"has no entry in {FIXATIONS}; remove the picture or add its fixations")
    fixations = _fixations(_field(self._entries[picture.name], "subjects"))
    boxes = Boxes.none()
    if self._labels:
      with inside(LABELS):
        edges = _edges(self._labels[picture.name])
      boxes = rank_boxes(edges, fixations, picture_size(picture, whole=False)[1])
    return Record(picture=picture, size=None, fixations=fixations, boxes=boxes)


def _fixations(subjects: Any) -> np.ndarray:
  viewings = [np.zeros((0, 5))]
  for subject, viewing in enumerate(_cells(subjects)):
    if not np.size(viewing):
      continue  # this viewer was not recorded: an empty cell
    with inside(f"subjects{{{subject + 1}}}"):
      columns = [_numbers(viewing, name) for name in ("fix_x", "fix_y", "fix_duration")]
      if len({len(column) for column in columns}) > 1:
        raise ValueError("fix_x, fix_y and fix_duration differ in length")
    order = np.arange(len(columns[0]))
    viewings.append(np.column_stack([np.full(len(order), subject), order, *columns]))
  return np.concatenate(viewings)


def _edges(label: Any) -> np.ndarray:
  if not np.size(label):
    return np.zeros((0, 4))  # a picture without faces may be an empty cell
  num_faces = int(_numbers(label, "nFaces").sum())
  faces = _cells(_field(label, "faces"))[:num_faces]
  if len(faces) < num_faces:
    raise ValueError(f"nFaces is {num_faces}, but there are {len(faces)} faces")
  edges = np.zeros((num_faces, 4))
  for number, face in enumerate(faces):
    centre = _numbers(face, "center")
    half = np.concatenate([_numbers(face, "width"), _numbers(face, "height")]) / 2
    if centre.shape != (2,) or half.shape != (2,):
      raise ValueError(f"faces{{{number + 1}}}: center must be two numbers, width and height one")
    edges[number] = [*(centre - half), *(centre + half)]
  return edges


def _read_cells(path: pathlib.Path, name: str) -> list:
  try:
    # Not simplify_cells: it leaves a cell array as it is whose first cell is empty.
    content = scipy.io.loadmat(path, variable_names=[name], squeeze_me=True, struct_as_record=False)
  except NotImplementedError as error:
    raise ValueError(
      f"{path}: saved as MATLAB v7.3 (HDF5), which SciPy does not read; "
      f"in MATLAB or Octave: load('FILE'); save('FILE', '{name}', '-v7')"
    ) from error
  except Exception as error:  # SciPy raises nearly anything on broken bytes
    raise ValueError(
      f"{path}: cannot be read as a MATLAB file ({error}); download it again"
    ) from error
  if name not in content:
    raise ValueError(f"{path}: has no variable {name}; take the file from the public repository")
  return _cells(content[name])


def _cells(value: Any) -> list:
  """A cell array as a list; SciPy gives a cell array of one element as that element."""
  return list(value.ravel()) if isinstance(value, np.ndarray) else [value]


def _field(struct: Any, name: str) -> Any:
  if not isinstance(struct, mat_struct) or name not in vars(struct):
    raise ValueError(f"lacks the field {name}; take the file from the public repository")
  return getattr(struct, name)


def _numbers(struct: Any, name: str) -> np.ndarray:
  value = np.ravel(_field(struct, name))
  if value.dtype.kind not in "biuf":
    raise ValueError(f"{name} must be numbers")
  return value.astype(np.float64)


def _text(struct: Any, name: str, path: pathlib.Path) -> str:
  with inside(str(path)):
    value = _field(struct, name)
    if not isinstance(value, str) or pathlib.PurePath(value).name != value:
      raise ValueError(f"{name} must be the name of a file, not {value!r:.40}")
  return value
