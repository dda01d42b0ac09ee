import base64
import dataclasses
import json
import re
import xml.etree.ElementTree

import cv2
import numpy as np
import pytest

from foir360_jax.files import read_panorama
from foir360_jax.scenes import Scene, SceneObject, open_scenes, write_scenes
from foir360_jax.scenes.scene import order_objects
from rank360.checks import check_scene
from rank360.dummy_scenes import write_dummy_data
from rank360.plots import bar_plot, scatter_plot
from rank360.rank360_dataset_builder import encode
from rank360.report import report_text, write_report
from rank360.review import review_folder
from rank360.seam import join_torn, torn_pairs
from rank360.statistics import measure_labels

HEIGHT = 32


@pytest.fixture
def folder(tmp_path):
  write_dummy_data(tmp_path / "scenes", height=HEIGHT)
  return tmp_path / "scenes"


def truncate(folder):
  file = folder / "images/dummy_1.png"
  file.write_bytes(file.read_bytes()[:200])


def shrink(folder):
  file = str(folder / "images/dummy_1.png")
  cv2.imwrite(file, cv2.imread(file)[::2, ::2])


def change_rank(folder, **fields):
  file = folder / "ranks/dummy_1.json"
  content = json.loads(file.read_text())
  content["objects"][-1].update(fields)
  file.write_text(json.dumps(content))


def crop(folder):
  for file in (folder / "images/dummy_1.png", folder / "instances/dummy_1.png"):
    cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[:20])
  (folder / "ranks/dummy_1.json").unlink()


def to_grey(folder):
  file = str(folder / "images/dummy_1.png")
  cv2.imwrite(file, cv2.imread(file, cv2.IMREAD_GRAYSCALE))


def to_16_bits(folder):
  file = str(folder / "images/dummy_1.png")
  cv2.imwrite(file, cv2.imread(file).astype(np.uint16) * 257)


def add_alpha(folder):
  file = str(folder / "images/dummy_1.png")
  cv2.imwrite(file, cv2.cvtColor(cv2.imread(file), cv2.COLOR_BGR2BGRA))


def to_bmp(folder):
  file = folder / "images/dummy_1.png"
  cv2.imwrite(str(file.with_suffix(".bmp")), cv2.imread(str(file)))
  file.unlink()


def colour_map(folder):
  file = str(folder / "instances/dummy_1.png")
  cv2.imwrite(file, cv2.imread(file))


@pytest.mark.parametrize(
  "damage, kind, file, reason",
  [
    (truncate, "cannot be read", "images/dummy_1.png", "not complete|cut off"),
    (
      lambda folder: (folder / "images/dummy_1.png").write_bytes(b""),
      *("cannot be read", "images/dummy_1.png", "empty"),
    ),
    (
      lambda folder: (folder / "images/dummy_1.png").unlink(),
      *("cannot be read", "images/dummy_1", "missing"),
    ),
    (shrink, "cannot be read", "images/dummy_1.png", "32 x 16 pixels.* 64 x 32"),
    (
      lambda folder: (folder / "ranks/dummy_1.json").unlink(),
      *("rank missing", "images/dummy_1.png", r"objects \[1, 2, 3, 4\] have no rank"),
    ),
    (
      lambda folder: change_rank(folder, rank=9),
      *("cannot be read", "ranks/dummy_1.json", "leave a number out"),
    ),
    (
      lambda folder: change_rank(folder, importance=float("nan")),
      *("cannot be read", "ranks/dummy_1.json", "importance is nan"),
    ),
    (
      lambda folder: change_rank(folder, importance=1.5),
      *("cannot be read", "ranks/dummy_1.json", "importance is 1.5"),
    ),
    (
      lambda folder: change_rank(folder, id=777),
      *("cannot be read", "ranks/dummy_1.json", "777"),
    ),
    (crop, "not 2:1", "images/dummy_1.png", "64 x 20"),
    (colour_map, "cannot be read", "instances/dummy_1.png", "colours"),
  ],
)
def test_each_kind_of_broken_record_is_reported_with_file_and_reason(
  folder, damage, kind, file, reason
):
  damage(folder)
  review = review_folder(folder)
  assert [record.id for record in review.bad] == ["dummy_1"]
  errors = {finding.kind: finding for finding in review.findings("error")}
  text = errors[kind].text
  assert file in text and re.search(reason, text), text
  assert f"error: dummy_1: {kind}: {text}" in report_text(review, measure_labels(review))


@pytest.mark.parametrize(
  "change, file, reason",
  [
    (to_grey, "images/dummy_1.png", "mode L"),
    (to_16_bits, "images/dummy_1.png", "16 bits"),
    (add_alpha, "images/dummy_1.png", "RGBA"),
    (to_bmp, "images/dummy_1.bmp", "BMP"),
  ],
)
def test_pictures_that_not_every_reader_decodes_alike_are_written_anew(
  folder, change, file, reason
):
  change(folder)
  review = review_folder(folder)
  assert not review.bad
  (note,) = (note for note in review.findings("note") if note.kind == "picture format")
  assert file in note.text and reason in note.text and "written as PNG in RGB" in note.text
  (record,) = (record for record in review.records if record.id == "dummy_1")
  names = [item.category for item in record.scene.objects]
  stored = cv2.imdecode(np.frombuffer(encode(record, names, "human")["image"], np.uint8), -1)
  np.testing.assert_array_equal(stored[..., ::-1], read_panorama(folder / file))


@pytest.mark.parametrize(
  "segmentation, reason",
  [
    ([[0, 0, 90, 0, 90, 5]], "leaves the picture of 64 x 32"),
    ({"size": [HEIGHT, 2 * HEIGHT], "counts": [2 * HEIGHT * HEIGHT]}, "no pixel"),
  ],
)
def test_masks_outside_the_picture_and_empty_ones_are_reported(tmp_path, segmentation, reason):
  write_dummy_data(tmp_path / "coco", format="coco", height=HEIGHT)
  file = tmp_path / "coco/annotations.json"
  content = json.loads(file.read_text())
  content["annotations"][0]["segmentation"] = segmentation
  file.write_text(json.dumps(content))
  (finding,) = review_folder(tmp_path / "coco").findings("error")
  assert reason in finding.text and "annotations.json" in finding.text


def scene_of(tmp_path, *masks, categories=None, ranks=None):
  """A scene of masks, given as (rows, columns)."""
  picture = tmp_path / "made.png"
  cv2.imwrite(str(picture), np.full([8, 16, 3], 90, np.uint8))
  objects = []
  for index, (rows, columns) in enumerate(masks):
    mask = np.zeros([8, 16], bool)
    mask[rows, columns] = True
    category = (categories or [""] * len(masks))[index]
    objects.append(SceneObject.from_mask(index + 1, mask, category=category))
  ranks = range(1, len(masks) + 1) if ranks is None else ranks
  return Scene("made", picture, 8, 16, order_objects(objects, [-rank for rank in ranks]))


def kinds(scene):
  return [(finding.severity, finding.kind) for finding in check_scene(scene)]


WEST, EAST = (slice(2, 6), slice(0, 3)), (slice(3, 6), slice(12, 16))
ELSEWHERE = (slice(2, 6), slice(6, 9))


def test_a_good_scene_has_no_findings(tmp_path):
  assert kinds(scene_of(tmp_path, ELSEWHERE, WEST)) == []


def test_equal_masks_are_an_error_and_nearly_equal_ones_a_note(tmp_path):
  assert kinds(scene_of(tmp_path, WEST, ELSEWHERE, WEST)) == [("error", "mask duplicated")]
  nearly = (slice(0, 8), slice(0, 15)), (slice(0, 8), slice(0, 14))
  whole = (slice(0, 8), slice(1, 16)), (slice(0, 8), slice(2, 16))
  assert 14 / 15 < 0.95 and kinds(scene_of(tmp_path, *nearly)) == []
  scene = scene_of(tmp_path, whole[0], ELSEWHERE)
  mask = scene.objects[0].mask
  mask[0, 5] = False  # 119 of 120 pixels
  almost = SceneObject.from_mask(9, mask, rank=3, importance=0.1)
  scene = dataclasses.replace(scene, objects=(*scene.objects, almost))
  assert kinds(scene) == [("note", "mask duplicated")]


def test_ties_scenes_without_objects_and_finer_importance_are_notes(tmp_path):
  assert kinds(scene_of(tmp_path, WEST, ELSEWHERE, ranks=[1, 1])) == [("note", "ranks tied")]
  assert kinds(scene_of(tmp_path)) == [("note", "no object")]
  scene = scene_of(tmp_path, WEST, ELSEWHERE)
  tied = tuple(dataclasses.replace(item, importance=0.5) for item in scene.objects)
  scene = dataclasses.replace(scene, objects=tied)
  assert kinds(scene) == [("note", "importance and rank")]


def test_halves_at_the_seam_are_found_only_where_they_fit(tmp_path):
  scene = scene_of(tmp_path, EAST, ELSEWHERE, WEST)
  assert [(a.id, b.id) for a, b in torn_pairs(scene)] == [(1, 3)]
  assert kinds(scene) == [("note", "torn at the seam")]
  assert not torn_pairs(scene_of(tmp_path, EAST, WEST, categories=["dog", "cat"]))
  below = (slice(5, 8), slice(12, 16))  # shares one row of six
  assert not torn_pairs(scene_of(tmp_path, below, WEST))
  around = (slice(3, 6), slice(None))  # goes over the seam itself
  assert not torn_pairs(scene_of(tmp_path, around, (slice(0, 2), slice(0, 3))))


def test_joining_keeps_the_more_important_half_and_counts_ranks_anew(tmp_path):
  scene = scene_of(tmp_path, ELSEWHERE, EAST, WEST, (slice(7, 8), slice(5, 9)), ranks=[2, 3, 1, 4])
  joined = join_torn(scene)
  assert [(item.id, item.rank) for item in joined.objects] == [(1, 2), (3, 1), (4, 3)]
  np.testing.assert_allclose([item.importance for item in joined.objects], [2 / 3, 1, 1 / 3])
  expected = scene.objects[1].mask | scene.objects[2].mask
  np.testing.assert_array_equal(joined.objects[1].mask, expected)
  assert "1 objects torn at the seam were joined" in joined.notes
  assert not torn_pairs(joined)
  assert join_torn(joined) is joined

  values = [0.5, 0.4, 0.9, 0.1]
  finer = tuple(
    dataclasses.replace(item, importance=value)
    for item, value in zip(scene.objects, values, strict=True)
  )
  joined = join_torn(dataclasses.replace(scene, objects=finer))
  assert [item.importance for item in joined.objects] == [0.5, 0.9, 0.1]
  assert [item.rank for item in joined.objects] == [2, 1, 3]


def test_a_folder_is_joined_only_on_request(tmp_path):
  write_scenes(tmp_path / "torn", [scene_of(tmp_path, EAST, ELSEWHERE, WEST)], format="scenes")
  (before,) = review_folder(tmp_path / "torn").records
  (after,) = review_folder(tmp_path / "torn", join_seam=True).records
  assert (len(before.scene.objects), len(after.scene.objects)) == (3, 2)
  assert [finding.kind for finding in before.findings] == ["torn at the seam"]
  assert len(after.area_sr) == len(after.bfov_deg) == 2
  assert any("joined" in finding.text for finding in after.findings)


def test_statistics_count_ranks_ties_and_correlations(folder):
  labels = measure_labels(review_folder(folder))
  scenes = list(open_scenes(folder))
  assert labels.objects_per_image.tolist() == [len(scene.objects) for scene in scenes]
  assert sum(labels.rank_counts.values()) == sum(len(scene.objects) for scene in scenes)
  assert labels.rank_counts[1] == 5 and labels.tied_objects == 0
  assert len(labels.importance) == len(labels.lat_deg) == len(labels.area_sr)
  assert len(labels.by_area) == len(labels.by_latitude) == 5


def test_importance_that_follows_area_correlates_with_it(tmp_path):
  masks = [(slice(3, 5), slice(start, start + size)) for start, size in ((0, 4), (6, 3), (10, 2))]
  write_scenes(tmp_path / "a", [scene_of(tmp_path, *masks)], format="scenes")
  assert measure_labels(review_folder(tmp_path / "a")).by_area.tolist() == pytest.approx([1.0])


def test_the_page_shows_pictures_plots_and_escapes_what_it_quotes(folder, tmp_path):
  (folder / "images/dummy_0.png").rename(folder / "images/<b>&.png")
  (folder / "instances/dummy_0.png").rename(folder / "instances/<b>&.png")
  (folder / "ranks/dummy_0.json").unlink()
  truncate(folder)
  review = review_folder(folder)
  text = write_report(review, tmp_path / "out")
  assert (tmp_path / "out/report.txt").read_text() == text
  page = (tmp_path / "out/report.html").read_text()
  assert "<b>&" not in page and "&lt;b&gt;&amp;" in page
  pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
  assert len(pictures) == 4  # all but the one that is cut off
  for picture in pictures:
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
    assert decoded.shape == (400, 800, 3) and np.ptp(decoded) > 50
  plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
  assert len(plots) == 6
  for plot in plots:
    xml.etree.ElementTree.fromstring(plot)


def test_a_report_of_bad_records_alone_is_written(folder, tmp_path):
  for file in (folder / "images").iterdir():
    file.unlink()
  text = write_report(review_folder(folder), tmp_path / "out")
  assert "5 records, 0 good, 5 bad" in text and "no objects in good records" in text
  assert (tmp_path / "out/report.html").is_file()


def test_bars_and_points_lie_where_their_values_are():
  svg = xml.etree.ElementTree.fromstring(bar_plot(["a", "b"], [1, 4], "x", "y"))
  low, high = (float(bar.attrib["height"]) for bar in svg.iter("rect"))
  assert high == pytest.approx(4 * low, abs=0.3)
  svg = xml.etree.ElementTree.fromstring(
    scatter_plot(np.array([0.0, 10.0]), np.array([0.0, 1.0]), [0, 10], "x", "y")
  )
  points = {(p.attrib["cx"], p.attrib["cy"]) for p in svg.iter("circle")}
  assert points == {("52.0", "184.0"), ("408.0", "14.0")}


def test_prepare_checks_skips_bad_records_and_keeps_what_is_there(folder, tmp_path, run_here):
  flags = ["prepare", "--dataset=rank360", f"--manual_dir={folder}"]
  flags.append(f"--data_dir={tmp_path / 'data'}")
  truncate(folder)
  checked = run_here(*flags, "--check", f"--output={tmp_path / 'out'}")
  assert checked.returncode == 1 and "4 good, 1 bad" in checked.stdout, checked.stderr
  assert (tmp_path / "out/report.html").is_file() and not (tmp_path / "data").exists()
  built = run_here(*flags, "--skip_bad")
  assert built.returncode == 0, built.stderr
  assert "left out as bad: 1 records: dummy_1" in built.stdout
  again = run_here(*flags, "--skip_bad")
  assert "there already, kept" in again.stdout
  assert "--manual_dir and --skip_bad had no effect: the data set is there" in again.stderr


def test_prepare_stops_at_bad_records_without_a_traceback(folder, tmp_path, run_here):
  truncate(folder)
  flags = [f"--manual_dir={folder}", f"--data_dir={tmp_path / 'data'}"]
  stopped = run_here("prepare", "--dataset=rank360", *flags)
  assert stopped.returncode == 2 and "1 of 5 records cannot be used" in stopped.stderr
  assert "Traceback" not in stopped.stderr


@pytest.mark.parametrize(
  "flags, message",
  [
    (["--dataset=synthetic360", "--check"], "--check is for rank360, not for synthetic360"),
    (["--dataset=fixations", "--join_seam"], "--join_seam is for rank360, not for fixations"),
    (["--dataset=rank360", "--difficulty"], "--difficulty is for synthetic360, not for rank360"),
    (["--dataset=rank360", "--output=x"], "add --check"),
    (["--dataset=rank360", "--check", "--skip_bad"], "leave out --skip_bad"),
    (["--dataset=rank360"], "needs --manual_dir=FOLDER. 360Rank"),
    (["--dataset=rank360", "--manual_dir=tests"], "no known format; looked for scenes"),
    (
      ["--dataset=rank360", "--manual_dir=tests", "--format=voc"],
      "format 'voc' is not known; choose one of scenes",
    ),
  ],
)
def test_prepare_refuses_what_does_not_go_together(run_here, tmp_path, flags, message):
  result = run_here("prepare", *flags, f"--data_dir={tmp_path / 'data'}")
  assert result.returncode == 2
  assert message in result.stderr and "Traceback" not in result.stderr
