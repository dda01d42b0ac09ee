"""Names the annotation program whose own JSON a file holds, and the way from there to here.

None of these formats is read: all of the programs export COCO, which is.
"""

from collections.abc import Iterable, Mapping
from typing import Any

WAYS: Mapping[str, str] = {
  "LabelMe": "convert it to COCO (for instance by labelme2coco)",
  "Supervisely": "export the project as COCO",
  "Label Studio": "export the project as COCO",
  "VGG Image Annotator": "export the annotations as COCO",
  "V7 Darwin": "export the data set as COCO",
  "Labelbox": "convert it to COCO",
}
"""Half a line a program: how its annotations become COCO."""


def tool_of(content: Any) -> str:
  """Returns the program that wrote JSON content, a key of `WAYS`, or "".

  >>> tool_of({"shapes": [], "imagePath": "a.jpg"}), tool_of({"epoch": 1})
  ('LabelMe', '')
  """
  if isinstance(content, list):
    return next((tool for tool in map(_tool_of_task, content[:10]) if tool), "")
  if not isinstance(content, dict):
    return ""
  if "shapes" in content and _has_any(content, ("imagePath", "imageData")):
    return "LabelMe"
  if isinstance(content.get("size"), dict) and isinstance(content.get("objects"), list):
    return "Supervisely"
  if "classes" in content and "projectType" in content:  # its meta.json
    return "Supervisely"
  if _has_any(content, ("_via_img_metadata", "_via_settings")):
    return "VGG Image Annotator"
  if any(isinstance(value, dict) and "regions" in value for value in content.values()):
    return "VGG Image Annotator"
  if "item" in content and "annotations" in content:
    return "V7 Darwin"
  return _tool_of_task(content)


def way_in(tools: Iterable[str]) -> str:
  """Returns a line on the annotations of other programs: what they are and what to do."""
  names = sorted(tools)
  ways = sorted({WAYS[name] for name in names})
  return (
    f"holds JSON of {' and '.join(names)}, which is not read; {', or '.join(ways)}, and give each"
    " annotation there its rank (1 = most important) in a field rank"
  )


def _tool_of_task(task: Any) -> str:
  """Returns the program of one entry of a list of tasks."""
  if not isinstance(task, dict):
    return ""
  if "data_row" in task:
    return "Labelbox"
  if _has_any(task, ("annotations", "predictions", "completions")) and "data" in task:
    return "Label Studio"
  return "Label Studio" if "annotation_id" in task and "lead_time" in task else ""


def _has_any(content: Mapping[str, Any], names: Iterable[str]) -> bool:
  return any(name in content for name in names)
