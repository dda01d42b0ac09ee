"""fixations: both layouts, every check, what lies on disk, and the real data where it is there."""

import doctest
import json
import logging

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from fixations import gaze, split_list
from fixations.fixations_dataset_builder import Builder, open_layout, read_examples
from fixations.record import COLUMNS

SIZE = (96, 64)  # width, height


def random_content(seed, ids, *, with_boxes=True):
  """{id: (JPEG bytes, fixations of each viewer [F, 3] of x, y, ms, boxes as centre and size)}."""
  rng = np.random.default_rng(seed)
  content = {}
  for image_id in ids:
    _, encoded = cv2.imencode(".jpg", rng.integers(0, 255, (*SIZE[::-1], 3), np.uint8))
    viewers = [
      np.column_stack(
        [rng.uniform(1, SIZE[0], n), rng.uniform(1, SIZE[1], n), rng.integers(20, 900, n)]
      )
      for n in rng.integers(1, 6, 4)
    ]
    centres = np.column_stack([rng.integers(1, SIZE[0], 5), rng.integers(1, SIZE[1], 5)])
    boxes = (
      np.column_stack([centres, rng.integers(6, 30, (5, 2))]) if with_boxes else np.zeros((0, 4))
    )
    content[image_id] = encoded.tobytes(), viewers, boxes
  return content


def looked_at(viewers, box):
  """Plain reference: how many viewers have a fixation on a box, and for how long."""
  seen, total = 0, 0.0
  for fixations in viewers:
    on = [
      duration
      for x, y, duration in fixations
      if abs(x - box[0]) <= box[2] / 2 + SIZE[0] / 160
      and abs(y - box[1]) <= box[3] / 2 + SIZE[0] / 160
    ]
    seen, total = seen + bool(on), total + sum(on)
  return seen, total


def write_json(folder, content, *, with_boxes=True):
  entries = {}
  for image_id, (picture, viewers, boxes) in content.items():
    (folder / f"{image_id}.jpg").write_bytes(picture)
    entry = {
      "size": list(SIZE),
      "fix": [
        [subject, order, *fixation]
        for subject, fixations in enumerate(viewers)
        for order, fixation in enumerate(fixations.tolist())
      ],
    }
    if with_boxes:
      keys = [looked_at(viewers, box) for box in boxes]
      order = sorted({key for key in keys if key[0]}, reverse=True)
      entry["faces"] = [
        {
          "box": [x - w / 2, y - h / 2, x + w / 2, y + h / 2],
          "n_subj": key[0],
          "dur": key[1],
          "rank": order.index(key) + 1 if key[0] else None,
        }
        for (x, y, w, h), key in zip(boxes.tolist(), keys, strict=True)
      ]
    entries[image_id] = entry
  (folder / "ann.json").write_text(json.dumps(entries))
  return folder


def cell(items):
  """A MATLAB cell array, a column."""
  array = np.empty((len(items), 1), object)
  array[:, 0] = items
  return array


def write_repository(folder, content, *, with_boxes=True):
  (folder / "data/stimuli").mkdir(parents=True)
  (folder / "data/eye").mkdir()
  fixations, labels = [], []
  for image_id, (picture, viewers, boxes) in content.items():
    (folder / f"data/stimuli/{image_id}.jpg").write_bytes(picture)
    names = ("fix_x", "fix_y", "fix_duration")
    subjects = [dict(zip(names, viewer.T[:, None], strict=True)) for viewer in viewers]
    fixations.append({"img": f"{image_id}.jpg", "subjects": cell(subjects)})
    faces = [
      {"center": box[None, :2], "width": box[2], "height": box[3], "isFrontalFace": 1.0}
      for box in boxes
    ]
    labels.append({"nFaces": float(len(faces)), "faces": cell(faces)})
  scipy.io.savemat(folder / "data/eye/fixations.mat", {"fixations": cell(fixations)})
  if with_boxes:
    scipy.io.savemat(folder / "data/labels.mat", {"labels": cell(labels)})
  return folder


WRITERS = {"json": write_json, "repository": write_repository}
IDS = ("001", "002", "007", "011", "013")  # 3 for training, 2 for tuning or test


def build(config, folder, data_dir, **kwargs):
  builder = Builder(config=config, data_dir=data_dir, file_format="array_record", **kwargs)
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=folder))
  return builder


def examples_of(builder):
  return {
    example["image_id"].decode(): example
    for split in builder.info.splits
    for example in builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
  }


@pytest.mark.parametrize("config", ["crowd", "osie"])
@pytest.mark.parametrize("layout", WRITERS)
def test_both_layouts_give_what_was_put_into_them(tmp_path, config, layout):
  with_boxes = config == "crowd"
  content = random_content(1, IDS, with_boxes=with_boxes)
  folder = tmp_path / "in"
  folder.mkdir()
  WRITERS[layout](folder, content, with_boxes=with_boxes)
  next(folder.rglob("*.jpg")).with_name("._1.jpg").write_bytes(b"\0\5\x16\7")  # macOS leaves these
  examples = examples_of(build(config, folder, tmp_path / "out"))
  assert set(examples) == set(IDS)
  for image_id, (picture, viewers, boxes) in content.items():
    example = examples[image_id]
    assert example["image"] == picture  # not compressed again
    assert (example["width"], example["height"]) == SIZE
    fixations = example["fixations"]
    np.testing.assert_array_equal(
      fixations["subject"], np.repeat(np.arange(4), [len(v) for v in viewers])
    )
    np.testing.assert_array_equal(
      fixations["order"], np.concatenate([np.arange(len(v)) for v in viewers])
    )
    for column, name in enumerate(("x", "y", "duration_ms")):
      expected = np.concatenate(viewers)[:, column].astype(np.float32)
      np.testing.assert_array_equal(fixations[name], expected)
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    np.testing.assert_array_equal(example["boxes"], np.hstack([centre - half, centre + half]))
    keys = [looked_at(viewers, box) for box in boxes]
    order = sorted({key for key in keys if key[0]}, reverse=True)
    ranks = [order.index(key) + 1 if key[0] else -1 for key in keys]
    np.testing.assert_array_equal(example["box_rank"], np.array(ranks, int))
    np.testing.assert_array_equal(example["box_viewers"], np.array([k[0] for k in keys], int))
    np.testing.assert_allclose(example["box_duration_ms"], np.array([k[1] for k in keys]))


def test_what_was_prepared_opens_in_a_process_without_the_builder(tmp_path, run_here, run_command):
  folder = tmp_path / "in"
  folder.mkdir()
  content = random_content(2, IDS)
  result = run_here(
    "prepare",
    "--dataset=fixations/crowd",
    f"--manual_dir={write_repository(folder, content)}",
    f"--data_dir={tmp_path / 'out'}",
  )
  assert result.returncode == 0, result.stderr
  result = run_command(
    "-c",
    "import sys, tensorflow_datasets as tfds\n"
    "source = tfds.data_source(\n"
    f"  'fixations/crowd', split='train', data_dir={str(tmp_path / 'out')!r})\n"
    "assert not {'fixations', 'tensorflow'} & set(sys.modules)\n"
    "for e in source: print(e['image_id'].decode(), e['image'].shape, len(e['fixations']['x']))",
  )
  assert result.returncode == 0, result.stderr
  expected = {
    f"{i} (64, 96, 3) {sum(map(len, content[i][1]))}"
    for i in IDS
    if split_list.split_of_picture("crowd", i) == "train"
  }
  assert expected and set(result.stdout.splitlines()) == expected
  result = run_here(  # what is complete needs no source any more
    "prepare", "--dataset=fixations/crowd", f"--data_dir={tmp_path / 'out'}"
  )
  assert result.returncode == 0, result.stderr


def test_a_grey_picture_without_faces_and_viewers_that_were_not_recorded_are_taken(tmp_path):
  content = random_content(3, IDS)
  write_repository(tmp_path, content)
  Image.new("L", SIZE).save(tmp_path / "data/stimuli/001.jpg")
  viewer = {"fix_x": 3.0, "fix_y": 4.0, "fix_duration": 99}  # SciPy squeezes these to scalars
  fixations = [
    {"img": "001.jpg", "subjects": cell([np.zeros((0, 0)), viewer])},
    {"img": "002.jpg", "subjects": cell([viewer])},
  ]
  scipy.io.savemat(tmp_path / "data/eye/fixations.mat", {"fixations": cell(fixations)})
  labels = [np.zeros((0, 0)), {"nFaces": 0, "faces": np.zeros((0, 0))}]
  scipy.io.savemat(tmp_path / "data/labels.mat", {"labels": cell(labels)})
  for image_id in IDS[2:]:
    (tmp_path / f"data/stimuli/{image_id}.jpg").unlink()
  examples, problems = read_examples(tmp_path, with_boxes=True)
  assert not problems
  record, size = examples["001"]
  np.testing.assert_array_equal(record.fixations, [[1, 0, 3, 4, 99]])
  assert record.boxes.edges.shape == (0, 4) and size == SIZE[::-1]
  np.testing.assert_array_equal(examples["002"][0].fixations, [[0, 0, 3, 4, 99]])


def truncate(folder, entry):
  path = folder / "002.jpg"
  path.write_bytes(path.read_bytes()[:-600])


BREAKS = {
  "missing": (lambda f, e: (f / "002.jpg").unlink(), "No such file"),
  "truncated": (truncate, "the picture is not complete"),
  "empty": (lambda f, e: (f / "002.jpg").write_bytes(b""), "the file is empty"),
  "a PNG": (
    lambda f, e: Image.new("RGB", SIZE).save(f / "002.jpg", format="PNG"),
    "is PNG of mode RGB; save it as JPEG",
  ),
  "orientation": (
    lambda f, e: Image.new("RGB", SIZE).save(
      f / "002.jpg", exif=b"Exif\0\0II*\0\b\0\0\0\1\0\x12\1\3\0\1\0\0\0\3\0\0\0\0\0\0\0"
    ),
    "has the EXIF orientation 3; store it upright",
  ),
  "CMYK": (lambda f, e: Image.new("CMYK", SIZE).save(f / "002.jpg"), "is JPEG of mode CMYK"),
  "size": (
    lambda f, e: e.update(size=[96, 65]),
    "is 96x64, but its annotation says 96x65; take both from the same download",
  ),
  "no size": (lambda f, e: e.pop("size"), "lacks size; add it"),
  "no fixations": (lambda f, e: e.update(fix=[]), "nobody's fixations are there"),
  "ragged": (lambda f, e: e["fix"][0].pop(), "fix must be rows of 5 numbers"),
  "outside": (
    lambda f, e: e["fix"][0].__setitem__(2, 97.5),
    "1 fixations more than 1 pixel outside the picture (number 0: 0, 0, 97.5",
  ),
  "NaN": (lambda f, e: e["fix"][1].__setitem__(3, float("nan")), "1 fixations NaN or infinite"),
  "duration": (
    lambda f, e: e["fix"][0].__setitem__(4, -20),
    "1 fixations of negative duration (number 0:",
  ),
  "subject": (lambda f, e: e["fix"][0].__setitem__(0, 0.5), "of a subject or order not 0, 1, 2"),
  "twice": (
    lambda f, e: e["fix"].append(e["fix"][0]),
    "two fixations of one subject have the same order",
  ),
  "no faces": (lambda f, e: e.pop("faces"), "lacks faces; add it"),
  "box outside": (
    lambda f, e: e["faces"][2].update(box=[96, 3, 99, 9]),
    "1 boxes outside the picture (number 2: 96, 3, 99, 9)",
  ),
  "inverted": (
    lambda f, e: e["faces"][0].update(box=[9, 3, 4, 9]),
    "1 boxes empty or inverted (number 0: 9, 3, 4, 9)",
  ),
  "box NaN": (
    lambda f, e: e["faces"][0].update(box=[9, 3, float("inf"), 9]),
    "1 boxes NaN or infinite",
  ),
  "box duration": (lambda f, e: e["faces"][1].update(dur=-1), "of negative viewers or duration"),
  "ranks": (
    lambda f, e: [face.update(rank=number + 2) for number, face in enumerate(e["faces"])],
    "the ranks of its boxes are not dense from 1: 2, 3, 4, 5, 6",
  ),
  "rank of a kind": (
    lambda f, e: e["faces"][3].update(rank=1.5),
    "faces[3]: rank must be of kind integer",
  ),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_broken_record_is_told_with_its_file_and_reason(tmp_path, case):
  change, reason = BREAKS[case]
  write_json(tmp_path, random_content(4, IDS))
  entries = json.loads((tmp_path / "ann.json").read_text())
  change(tmp_path, entries["002"])
  (tmp_path / "ann.json").write_text(json.dumps(entries))
  examples, problems = read_examples(tmp_path, with_boxes=True)
  assert set(examples) == set(IDS) - {"002"}
  (problem,) = problems
  assert problem.startswith(f"{tmp_path / '002.jpg'}: ") and "\n" not in problem
  assert problem.count("002.jpg") == 1 and reason in problem


def test_a_fixation_within_a_pixel_of_the_picture_is_no_error(tmp_path):
  content = random_content(5, IDS)
  content["001"][1][0][:1, :2] = SIZE[0] + 1.0, -1.0
  examples, problems = read_examples(write_json(tmp_path, content), with_boxes=True)
  assert len(examples) == len(IDS) and not problems


def test_all_reasons_of_all_records_are_listed_and_nothing_is_written(tmp_path, run_here):
  folder = tmp_path / "in"
  folder.mkdir()
  content = random_content(6, IDS)
  content["001"][1][0][:1, 2] = -5
  content["001"][1][1][:1, 0] = -50
  content["013"][1][0][:1, 0] = np.nan
  write_repository(folder, content)
  (folder / "data/stimuli/099.jpg").write_bytes(content["001"][0])
  result = run_here(
    "prepare",
    "--dataset=fixations",
    f"--manual_dir={folder}",
    f"--data_dir={tmp_path / 'out'}",
  )
  assert result.returncode == 2 and "Traceback" not in result.stderr
  message = result.stderr[result.stderr.index("error: ") :].splitlines()
  assert message[0].startswith("error: 3 of 6 pictures cannot be used")
  assert "negative duration" in message[1] and "outside" in message[1] and "001.jpg" in message[1]
  assert "NaN" in message[2] and "013.jpg" in message[2]
  assert "099.jpg: has no entry in data/eye/fixations.mat" in message[3]
  assert not list((tmp_path / "out").rglob("*.array_record*"))


def test_skip_bad_leaves_broken_records_out_and_says_how_many(tmp_path, caplog):
  folder = tmp_path / "in"
  folder.mkdir()
  write_json(folder, random_content(7, IDS))
  (folder / "007.jpg").unlink()
  with caplog.at_level(logging.WARNING, logger="absl"):
    builder = build("crowd", folder, tmp_path / "out", skip_bad=True)
  assert set(examples_of(builder)) == set(IDS) - {"007"}
  assert "1 of 5 pictures are left out" in caplog.text and "007.jpg" in caplog.text


def test_skip_bad_does_not_write_a_data_set_of_nothing(tmp_path):
  folder = tmp_path / "in"
  folder.mkdir()
  write_json(folder, random_content(7, IDS[:1]))
  (folder / "001.jpg").unlink()
  with pytest.raises(ValueError, match="1 of 1 pictures cannot be used"):
    build("crowd", folder, tmp_path / "out", skip_bad=True)


def save_as_73(path):
  """The header of a MATLAB v7.3 file, which is HDF5 after 512 bytes."""
  header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
  path.write_bytes(header.ljust(512, b"\0") + b"\x89HDF\r\n\x1a\n" + bytes(512))


def cut(path):
  path.write_bytes(path.read_bytes()[:200])


def save(path, **content):
  scipy.io.savemat(path, content)


EYE, FACES = "data/eye/fixations.mat", "data/labels.mat"
WRONG_MAT = {
  "v7.3": (
    lambda f: save_as_73(f / EYE),
    r"saved as MATLAB v7\.3.*save\('FILE', 'fixations', '-v7'",
  ),
  "cut": (lambda f: cut(f / FACES), "labels.mat: cannot be read as a MATLAB file"),
  "text": (lambda f: (f / EYE).write_text("x" * 999), "cannot be read as a MATLAB file"),
  "other variable": (lambda f: save(f / EYE, eye=1), "has no variable fixations"),
  "numbers": (lambda f: save(f / EYE, fixations=np.eye(3)), "lacks the field img"),
  "a path": (
    lambda f: save(f / EYE, fixations=cell([{"img": "../a.jpg", "subjects": cell([])}])),
    "img must be the name of a file, not '../a.jpg'",
  ),
  "one twice": (
    lambda f: save(f / EYE, fixations=cell([{"img": "a.jpg"}] * 2)),
    "two entries are of one picture",
  ),
  "fewer labels": (
    lambda f: save(f / FACES, labels=cell([{"nFaces": 0}])),
    "its 1 entries do not go with the 5 of data/eye/fixations.mat",
  ),
  "no labels": (lambda f: (f / FACES).unlink(), "missing; this is not crowd"),
}


@pytest.mark.parametrize("case", WRONG_MAT)
def test_a_matlab_file_that_cannot_be_used_is_told_in_one_line(tmp_path, case):
  change, message = WRONG_MAT[case]
  write_repository(tmp_path, random_content(8, IDS))
  change(tmp_path)
  with pytest.raises(ValueError, match=message) as caught:
    open_layout(tmp_path, with_boxes=True)
  assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "viewing, reason",
  [
    ({"fix_x": [1.0, 2.0], "fix_y": [1.0], "fix_duration": [9.0]}, "differ in length"),
    ({"fix_x": [1.0], "fix_y": [1.0]}, "subjects{1}: lacks the field fix_duration"),
    ({"fix_x": "abc", "fix_y": [1.0], "fix_duration": [9.0]}, "fix_x must be numbers"),
  ],
)
def test_a_viewing_that_is_not_as_documented_is_told(tmp_path, viewing, reason):
  write_repository(tmp_path, random_content(9, ["001"], with_boxes=False), with_boxes=False)
  entry = {"img": "001.jpg", "subjects": cell([viewing])}
  save(tmp_path / EYE, fixations=cell([entry]))
  _, problems = read_examples(tmp_path, with_boxes=False)
  assert len(problems) == 1 and reason in problems[0]


@pytest.mark.parametrize(
  "label, reason",
  [
    ({"nFaces": 2, "faces": cell([{"center": [1, 2]}])}, "nFaces is 2, but there are 1 faces"),
    ({"nFaces": 1, "faces": cell([{"center": [1, 2], "width": 3}])}, "lacks the field height"),
    (
      {"nFaces": 1, "faces": cell([{"center": [1], "width": 3, "height": 3}])},
      "faces{1}: center must be two numbers",
    ),
    ({"nFaces": 1, "faces": cell([{"center": [5, 5], "width": 0, "height": 3}])}, "empty"),
  ],
)
def test_a_face_that_is_not_as_documented_is_told(tmp_path, label, reason):
  write_repository(tmp_path, random_content(10, ["001"]))
  save(tmp_path / FACES, labels=cell([label]))
  _, problems = read_examples(tmp_path, with_boxes=True)
  assert len(problems) == 1 and reason in problems[0]


def test_a_folder_of_another_kind_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"holds neither data/eye/fixations\.mat nor ann\.json"):
    open_layout(tmp_path, with_boxes=True)
  write_json(tmp_path, random_content(11, IDS))
  with pytest.raises(ValueError, match="has faces; this is not osie"):
    open_layout(tmp_path, with_boxes=False)
  write_json(tmp_path, random_content(11, IDS), with_boxes=False)
  with pytest.raises(ValueError, match="lacks faces; this is not crowd"):
    open_layout(tmp_path, with_boxes=True)
  write_repository(tmp_path / "repository", random_content(11, IDS))
  with pytest.raises(ValueError, match=r"labels\.mat: there; this is not osie"):
    open_layout(tmp_path / "repository", with_boxes=False)
  (tmp_path / "ann.json").write_text("[1]")
  with pytest.raises(ValueError, match="must be an object"):
    open_layout(tmp_path, with_boxes=True)


@pytest.mark.parametrize("flags", [(), ("--manual_dir=not/there",)])
def test_prepare_says_what_to_download_where_the_folder_is_missing(run_here, tmp_path, flags):
  result = run_here("prepare", "--dataset=fixations/osie", f"--data_dir={tmp_path}", *flags)
  assert result.returncode == 2 and "Traceback" not in result.stderr
  assert "needs --manual_dir=FOLDER" in result.stderr
  assert "predicting-human-gaze-beyond-pixels" in result.stderr


def test_equally_looked_at_boxes_share_a_rank_and_an_unseen_one_has_none():
  fixations = np.array([[0, 0, 10, 10, 50], [1, 0, 30, 10, 50], [1, 1, 50, 10, 70]])
  boxes = np.array([[8, 8, 12, 12], [28, 8, 32, 12], [48, 8, 52, 12], [70, 8, 75, 12]])
  ranked = gaze.rank_boxes(boxes, fixations, 160)
  np.testing.assert_array_equal(ranked.rank, [2, 2, 1, -1])
  near = np.array([[11, 8, 15, 12], [11.1, 8, 15, 12]])  # a margin of one pixel
  np.testing.assert_array_equal(gaze.rank_boxes(near, fixations[:1], 160).rank, [1, -1])


@pytest.mark.parametrize("module", [gaze, split_list])
def test_the_examples_in_docstrings_hold(module):
  assert doctest.testmod(module) == (0, 2 if module is gaze else 1)


@pytest.mark.parametrize(
  "name, ids",
  [
    ("crowd", {f"{number:03d}" for number in range(1, 501)}),
    ("osie", {str(number) for number in range(1001, 1701)}),
  ],
)
def test_the_committed_splits_hold_every_picture_and_follow_the_stated_rule(name, ids):
  listed = split_list.read_split_list(name)
  assert set(listed) == ids
  shares = {split: 0 for split in split_list.SPLITS}
  for image_id, split in listed.items():
    assert split == split_list.split_of_picture(name, image_id)
    shares[split] += 1 / len(ids)
  assert abs(shares["train"] - 0.6) < 0.05 and abs(shares["tune"] - 0.2) < 0.05


def test_the_list_decides_and_a_picture_in_no_list_goes_by_the_rule(tmp_path, monkeypatch):
  listed = {"001": "test", "002": "tune"}
  monkeypatch.setattr("fixations.fixations_dataset_builder.read_split_list", lambda name: listed)
  folder = tmp_path / "in"
  folder.mkdir()
  ids = ("001", "002", *(f"new_{number}" for number in range(12)))
  builder = build("crowd", write_json(folder, random_content(12, ids)), tmp_path / "out")
  for split in builder.info.splits:
    for example in builder.as_data_source(split):
      image_id = example["image_id"].decode()
      assert listed.get(image_id, split_list.split_of_picture("crowd", image_id)) == split


@pytest.mark.parametrize(
  "config, num_pictures, num_fixations, viewers, longest_ms",
  [("crowd", 440, 111_073, 16, 5000), ("osie", 640, 89_806, 15, 3000)],
)
def test_the_real_data_is_whole(
  shared, tmp_path, config, num_pictures, num_fixations, viewers, longest_ms
):
  folder = shared / "data" / config
  builder = build(config, folder, tmp_path)
  sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
  assert sum(sizes.values()) == num_pictures and min(sizes.values()) > 0.15 * num_pictures
  examples = examples_of(builder)
  entries = json.loads((folder / "ann.json").read_text())
  assert set(examples) == set(entries)
  assert sum(len(example["fixations"]["x"]) for example in examples.values()) == num_fixations
  agree = []
  for image_id, example in examples.items():
    entry, fixations = entries[image_id], example["fixations"]
    table = np.column_stack([fixations[name] for name in COLUMNS])
    np.testing.assert_allclose(table, entry["fix"], rtol=1e-6)
    assert [example["width"], example["height"]] == entry["size"]
    assert viewers - 1 <= len(np.unique(table[:, 0])) <= viewers
    totals = np.bincount(fixations["subject"], fixations["duration_ms"])
    assert totals.max() < longest_ms  # so the unit is the millisecond
    np.testing.assert_allclose(
      example["boxes"], np.reshape([f["box"] for f in entry.get("faces", [])], (-1, 4)), rtol=1e-6
    )
    ranks = [face["rank"] or -1 for face in entry.get("faces", [])]
    np.testing.assert_array_equal(example["box_rank"], np.array(ranks, int))
    mine = gaze.rank_boxes(example["boxes"], table.astype(float), example["width"])
    agree.extend(mine.viewers == example["box_viewers"])
  if config == "crowd":
    assert len(agree) == 8652 and np.mean(agree) > 0.97
