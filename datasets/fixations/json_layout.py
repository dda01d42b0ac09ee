"""The JSON form: `ID.jpg` beside one `ann.json`.

  {ID: {"size": [width, height], "fix": [[subject, order, x, y, duration_ms], ...],
        "faces": [{"box": [x0, y0, x1, y1], "rank", "n_subj", "dur"}, ...]}}

"faces" in crowd alone; "rank" is null where nobody looked, "dur" in ms.
"""

import pathlib

import numpy as np

from fixations.record import UNRANKED, Boxes, Record, table
from foir360_jax.files.json_file import field, inside, read_json
from foir360_jax.files.listing import list_files

FILE = "ann.json"


class JsonLayout:
  """A folder in the JSON form.

  Args:
    folder: the folder.
    with_boxes: whether the data set has boxes.

  Raises:
    ValueError: `ann.json` is not as above, or is that of the other data set.
  """

  def __init__(self, folder: pathlib.Path, *, with_boxes: bool):
    self._entries = read_json(folder / FILE, ValueError)
    if not isinstance(self._entries, dict) or not all(
      isinstance(entry, dict) for entry in self._entries.values()
    ):
      raise ValueError(f"{folder / FILE}: must be an object that holds one for each picture id")
    if any("faces" in entry for entry in self._entries.values()) != with_boxes:
      raise ValueError(
        f"{folder / FILE}: {'lacks' if with_boxes else 'has'} faces; "
        f"this is not {'crowd' if with_boxes else 'osie'}, give the other configuration"
      )
    files = {file.stem: file for file in list_files(folder, ".jpg")}
    names = sorted({*self._entries, *files})
    self.pictures = {name: files.get(name, folder / f"{name}.jpg") for name in names}
    self._with_boxes = with_boxes

  def read(self, image_id: str) -> Record:
    """Returns the record of one of `pictures`.

    Raises:
      ValueError: its entry is missing or not as above.
    """
    if image_id not in self._entries:
      raise ValueError(f"has no entry in {FILE}; remove the picture or add its annotation")
    entry = self._entries[image_id]
    width, height = table([field(entry, "size", "list")], 2, "size")[0]
    return Record(
      picture=self.pictures[image_id],
      size=(width, height),
      fixations=table(field(entry, "fix", "list"), 5, "fix"),
      boxes=_boxes(field(entry, "faces", "list")) if self._with_boxes else Boxes.none(),
    )


def _boxes(faces: list) -> Boxes:
  edges, rank, viewers, duration_ms = [], [], [], []
  for number, face in enumerate(faces):
    with inside(f"faces[{number}]"):
      edges.append(table([field(face, "box", "list")], 4, "box")[0])
      rank.append(field(face, "rank", "integer", UNRANKED))
      viewers.append(field(face, "n_subj", "integer"))
      duration_ms.append(field(face, "dur", "number"))
  return Boxes(
    np.array(edges).reshape(-1, 4),
    np.array(rank, int),
    np.array(viewers, int),
    np.array(duration_ms, float),
  )
