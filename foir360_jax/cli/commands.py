"""All subcommands, in the order in which one needs them: what they take and what they say of it.

What they do is in the modules of their names, which are imported when they are called.
"""

import pathlib

from foir360_jax.cli.flags import Command, Flag, number, one_of, path, switch

SALIENCY = ("learned", "spectral")
FORMATS = ("scenes", "assr", "irsr", "seqrank", "coco", "rank_map")

_SMALL = "synthetic360/64x128"
_KEY = "ground_truth_masks/model"

_CONFIG = Flag("config", "FILE", "a file of configs/, as configs/tiny.py", needed=True)
_RUN = Flag("workdir", "RUN", "the run's folder: checkpoints, logs, reports", path, needed=True)
_OVERWRITE = switch("overwrite", "replace results that are there already")


def _overlap(text: str) -> float:
  value = number(float, 0.0, 1.0)(text)
  if not value:
    raise ValueError("is no overlap; give a number in (0, 1]")
  return value


def _json_file(text: str) -> pathlib.Path:
  if not text.endswith(".json"):
    raise ValueError("the report is JSON; give a name that ends in .json")
  return path(text)


_PREPARE = Command(
  "prepare",
  "write a data set to disk, or check a folder of annotations",
  """\
Out: DATA_DIR/NAME/CONFIG/VERSION, which training reads; kept where it is complete. Data sets:
synthetic360 (rendered), rank360 (a folder of ranked panoramas) and fixations (crowd, osie).""",
  "foir360 prepare --dataset=synthetic360/64x128 --data_dir=data",
  (
    Flag("dataset", "NAME[/CONFIG]", f"{_SMALL} if not given", str, _SMALL),
    Flag("data_dir", "DIR", "under which it is written (data)", path, pathlib.Path("data")),
    Flag("manual_dir", "FOLDER", "what was downloaded by hand (rank360, fixations)", path),
    switch("skip_bad", "leave bad records out, with a warning (rank360, fixations)"),
    switch("check", "read and check everything, report, write no data set (rank360)"),
    Flag("output", "FOLDER", "of the report of --check; if not given DATA_DIR/rank360_check", path),
    Flag("format", "NAME", "of the folder, where it is not to be recognised (rank360)"),
    Flag("rank_field", "FIELD", "COCO: what orders objects, lower first; -FIELD: higher (rank360)"),
    Flag("split_dir", "FOLDER", "with train.txt, test.txt ...: one id a line (rank360)", path),
    Flag("ranks_dir", "OUT", "take the ranks of OUT/ranks, not the folder's own (rank360)", path),
    switch("join_seam", "make one object of two that are torn at the seam (rank360)"),
    switch("difficulty", "print the ceiling and the simple baselines (synthetic360)"),
    Flag("picture", "FILE.png", "render one more panorama, to try a model on (synthetic360)", path),
    Flag("export", "FOLDER", "also write a new SCENES folder (synthetic360, rank360)", path),
    Flag("export_split", "SPLIT", 'what to export, as "train[:500]"; all if not given'),
    Flag(
      "file_format",
      "NAME",
      "array_record, or tfrecord for tfds.load (needs the extra tf)",
      one_of("array_record", "tfrecord"),
      "array_record",
    ),
  ),
)

_TRAIN = Command(
  "train",
  "train a model, then evaluate it; the same command resumes",
  """\
In: a configuration and the data set that it names. Out: checkpoints, metrics.jsonl, tensorboard/
and the files of `foir360 evaluate` in RUN. A stopped run goes on by the same command.""",
  "foir360 train --config=configs/tiny.py --workdir=runs/tiny --config.train.steps=500",
  (_CONFIG, _RUN),
  takes_config=True,
  computes=True,
)

_EVALUATE = Command(
  "evaluate",
  "measure a trained run anew",
  """\
In: a run, and the data set that the configuration names. Out: a table, and metrics.json,
per_image.jsonl and evaluation.png in RUN. Thresholds are tuned on the validation split and kept in
the checkpoint; figures are of the test split.""",
  "foir360 evaluate --config=configs/tiny.py --workdir=runs/tiny",
  (_CONFIG, _RUN),
  takes_config=True,
  computes=True,
)

_PREDICT = Command(
  "predict",
  "rank the objects of new panoramas with a trained run",
  """\
In: a run, and a panorama or a folder of them. Out: OUT/ranks/ID.json and OUT/overlays/ID.png.
The same command goes on where it was stopped; bad pictures get a line each, and exit code 1.""",
  "foir360 predict --workdir=runs/tiny --input=data/panorama.png --output=OUT",
  (
    Flag("workdir", "RUN", "the run's folder", path, needed=True),
    Flag("input", "PICTURES", "a picture or a folder of pictures", path, needed=True),
    Flag("output", "OUT", "the folder for the results", path, needed=True),
    switch("overwrite", "replace results that are there already"),
    switch("rank_masks", "rank the masks that the folder PICTURES provides"),
    Flag(
      "confidence_threshold",
      "P",
      "in place of the one that evaluation tuned, in [0, 1]",
      number(float, 0.0, 1.0),
    ),
    Flag("stop_margin", "LOGITS", "likewise; -100: the model never stops early", float),
    Flag(
      "yaw_augmentation",
      "N",
      "the mean over N copies of a picture, each rotated further",
      number(int, 1),
    ),
    Flag("config", "FILE", "not needed; if given, the one that RUN was trained with"),
    switch("given_masks", means="rank_masks"),
    Flag("turns", "N", "", number(int, 1), means="yaw_augmentation"),
    switch("skip_done", means=""),
  ),
  takes_config=True,
  computes=True,
)

_WEAK_LABELS = Command(
  "weak-labels",
  "rank provided masks without annotators and without training",
  """\
In: a folder of panoramas with masks, of any format. Out: OUT/ranks/ID.json and OUT/overlays/ID.png;
`foir360 prepare --dataset=rank360/weak --ranks_dir=OUT` makes a data set of them. The same command
goes on where it was stopped; bad panoramas get a line each, and the exit code is then 1.""",
  "foir360 weak-labels --input=SCENES --output=OUT --saliency=spectral",
  (
    Flag("input", "SCENES", "a folder with pictures and masks", path, needed=True),
    Flag("output", "OUT", "the folder for the results", path, needed=True),
    _OVERWRITE,
    Flag("saliency", "NAME", "learned, or spectral", one_of(*SALIENCY)),
    Flag("config", "FILE", "configs/weak_labels.py, to set its fields; the defaults if not given"),
  ),
  takes_config=True,
  computes=True,
)

_SEGMENTING = (
  Flag("segmenter", "NAME", "small if not given, or one of docs/segmenters.md", str, "small"),
  Flag("views", "HOW", "fast, or full: more views (fast)", one_of("fast", "full"), "fast"),
  Flag(
    "confidence",
    "P",
    "leave out what the segmenter is less sure of, in [0, 1]",
    number(float, 0.0, 1.0),
  ),
  Flag(
    "max_objects", "N", "keep the N of the highest confidence; all if not given", number(int, 1)
  ),
)

_RANK = Command(
  "rank",
  "find and rank the objects of photographs, without training",
  """\
In: a panorama or a folder of them. Out: OUT/ranks/ID.json and OUT/overlays/ID.png. A segmenter
looks through views of the sphere, and its masks become one mask an object: small (in the package),
torchvision[:MODEL], transformers[:MODEL], onnx:FILE, masks:FOLDER or package.module:Class. The same
command goes on where it was stopped; bad pictures get a line each, and exit code 1.""",
  "foir360 rank data/panorama.png --output=OUT",
  (
    Flag("output", "OUT", "the folder for the results", path, needed=True),
    _OVERWRITE,
    *_SEGMENTING,
  ),
  arguments=("PICTURES",),
  computes=True,
)

_SEGMENT = Command(
  "segment",
  "only find the objects of photographs: masks for weak-labels, training or annotation",
  """\
In: a panorama or a folder of them. Out: a SCENES folder, images/ID.jpg|png, instances/ID.png and
objects/ID.json (masks that may overlap, categories, confidence); or the views themselves, for a
program of another kind, whose masks --segmenter=masks:FOLDER then takes.""",
  "foir360 segment data/panorama.png --output=SCENES",
  (
    Flag("output", "SCENES", "the folder for the results", path),
    Flag("write_views", "FOLDER", "write the views, FOLDER/ID/VIEW.png, and segment nothing", path),
    _OVERWRITE,
    *_SEGMENTING,
  ),
  arguments=("PICTURES",),
  computes=True,
)

_SCORE = Command(
  "score",
  "score any system's masks and ranks against true ones",
  """\
In: two folders of any format (of JSON formats also the file), pictures matched by id. Out: a table,
and FILE.json with the scores of each picture. Exit code 1: some pictures could not be scored.""",
  "foir360 score SCENES OUT --out=scores.json",
  (
    Flag("out", "FILE.json", "where to write the report", _json_file),
    Flag("split", "NAME", "score only this split of GT"),
    Flag(
      "missing",
      "HOW",
      "ids that PRED lacks: error, or count as empty",
      one_of("error", "empty"),
      "error",
    ),
    switch("skip_bad", "exit with 0 although files could not be scored"),
    switch("weighted", "also weight pixels by solid angle (2:1 only)"),
    Flag(
      "iou_threshold",
      "IOU",
      "also SA-SOR and recall at it; repeatable",
      _overlap,
      (),
      nargs="append",
    ),
    Flag("resamples", "N", "data sets drawn for an interval (1000)", number(int, 1), 1000),
    Flag("workers", "N", "processes (2)", number(int, 1), 2),
    Flag("gt_format", "NAME", f"of GT, else recognised: {', '.join(FORMATS)}", one_of(*FORMATS)),
    Flag("pred_format", "NAME", "of PRED, likewise", one_of(*FORMATS)),
    Flag("gt_rank_field", "FIELD", "GT in COCO: what orders objects, lower first; -FIELD: higher"),
    Flag("pred_rank_field", "FIELD", "PRED in COCO, likewise"),
  ),
  arguments=("GT", "PRED"),
)

_COMPARE_RUNS = Command(
  "compare-runs",
  "compare two ways to train by several seeds of each",
  """\
In: evaluated runs. Out: the mean of each way and its deviation over the runs, the gap a - b with a
paired bootstrap interval over pictures, and the baselines.""",
  "foir360 compare-runs --a runs/weak/0 runs/weak/1 --b runs/human/0 runs/human/1",
  (
    Flag("a", "RUN ...", "folders of the runs of way a", path, needed=True, nargs="+"),
    Flag("b", "RUN ...", "folders of the runs of way b", path, needed=True, nargs="+"),
    Flag("key", "PART/RANKER", f"which score to compare ({_KEY})", str, _KEY),
    Flag("out", "FILE.json", "where to write the figures, too", path),
  ),
)

_BENCHMARK = Command(
  "benchmark",
  "measure speed and memory of a configuration; needs no data set",
  """\
In: a configuration. Out: a table of training steps and predictions a second, also as benchmark.txt
and benchmark.json in RUN.""",
  "foir360 benchmark --config=configs/benchmark.py --workdir=runs/benchmark",
  (_CONFIG, _RUN),
  takes_config=True,
  computes=True,
)

COMMANDS = {
  command.name: command
  for command in (
    *(_RANK, _SEGMENT, _PREPARE, _TRAIN, _EVALUATE, _PREDICT, _WEAK_LABELS, _SCORE),
    *(_COMPARE_RUNS, _BENCHMARK),
  )
}
"""The subcommands by name."""

MODES = ("rank", "segment", "train", "evaluate", "predict", "weak-labels", "benchmark")
"""The subcommands that `--mode=NAME` calls as well."""
