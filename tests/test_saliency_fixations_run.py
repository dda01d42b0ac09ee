"""Training and measuring the readout of fixations, on a backbone that stands for the real one."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from foir360_jax.cli.benchmark import benchmark
from foir360_jax.cli.evaluate import evaluate_run
from foir360_jax.cli.train import train_and_evaluate
from foir360_jax.config import fixation_config
from foir360_jax.inference import Ranker
from foir360_jax.metrics import Score
from foir360_jax.metrics.fixation import auc_judd, cc, kl_divergence, nss, similarity
from foir360_jax.saliency import FixationReadout, LearnedSaliency, SpectralResidual, load_readout
from foir360_jax.saliency.alignment import cell_centres, interpolation_matrix, tile_centres
from foir360_jax.saliency.fixations import run as run_fixation
from foir360_jax.saliency.fixations.evaluation import (
  METRICS,
  MODELS,
  fit_centre_prior,
  saliency_maps,
  score_maps,
  summarize,
  table,
)
from foir360_jax.saliency.fixations.pictures import FixatedPicture, fold_of
from foir360_jax.saliency.fixations.sheet import FixationRow, fixation_sheet
from foir360_jax.saliency.fixations.training import (
  BiasedReadout,
  CentreBias,
  build_fixation_objective,
  compile_backbone,
  example_batches,
  make_examples,
  set_statistics,
  sharpen,
)
from foir360_jax.saliency.readout import COMPONENTS, FEATURES
from foir360_jax.saliency.readout_file import file_of_run, read_tensors
from foir360_jax.train import create_state, model_from_state, train_step

SIZE = (32, 48)
CELLS = (4, 6)


def draw_examples(rng, number):
  """Random features and masses; windows reach beyond the photograph on some sides."""
  examples = {
    f"features_{stage}": rng.normal(
      size=(number, -(-SIZE[0] // stride), -(-SIZE[1] // stride), channels)
    ).astype(np.float16)
    for stage, (stride, channels) in FEATURES.items()
  }
  start, end = rng.uniform(-0.6, 0.4, (number, 2)), rng.uniform(0.6, 1.4, (number, 2))
  mass = rng.uniform(0, 1, (number, *CELLS))
  return examples | {
    "mass": (mass / mass.sum((1, 2), keepdims=True) * rng.uniform(0.3, 1)).astype(np.float32),
    "window": np.concatenate([start, end], axis=1).astype(np.float32),
    "data_set": rng.integers(0, 2, number).astype(np.int32),
    "seed": rng.integers(0, 2**32, number, dtype=np.uint32),
  }


@pytest.fixture(scope="module")
def model(draw_parameters):
  model = draw_parameters(lambda: BiasedReadout(FixationReadout((6, 5), rngs=nnx.Rngs(0)), 2))
  for projection in model.readout.projections:
    projection.deviation[...] = 1 + jnp.abs(projection.deviation[...])
  return model


objective_of = jax.jit(build_fixation_objective(SIZE, 0.0))
read = jax.jit(lambda readout, features: readout(features, SIZE))


def reference_divergence(model, examples, index):
  """KL over the cells inside the photograph, times the share of the mass there; and that share."""
  features = {stage: examples[f"features_{stage}"][[index]] for stage in FEATURES}
  log_density = np.array(read(model.readout, features))[0].astype(float)
  a, b, c = np.asarray(model.bias.coefficients[...])[examples["data_set"][index]]
  x0, y0, x1, y1 = examples["window"][index]
  cells = []
  for i in range(CELLS[0]):
    for j in range(CELLS[1]):
      x = x0 + (x1 - x0) * (j + 0.5) / CELLS[1]
      y = y0 + (y1 - y0) * (i + 0.5) / CELLS[0]
      if 0 <= x <= 1 and 0 <= y <= 1:
        x, y = 2 * x - 1, 2 * y - 1
        log = log_density[i, j] + a * x * x + b * y * y + c * y
        cells.append((log, examples["mass"][index, i, j]))
  logs, mass = np.array(cells, float).T
  predicted = np.exp(logs - logs.max()) / np.exp(logs - logs.max()).sum()
  human, share = mass / mass.sum(), mass.sum()
  return share * sum(h * math.log(h / p) for h, p in zip(human, predicted, strict=True)), share


@pytest.mark.parametrize("seed", range(2))
def test_the_objective_is_the_divergence_within_the_photograph(model, seed):
  examples = draw_examples(np.random.default_rng(seed), 3)
  total, count = objective_of(model, examples)["kl"]
  expected = np.sum([reference_divergence(model, examples, index) for index in range(3)], axis=0)
  assert count < examples["mass"].sum() - 0.1  # some windows reach beyond
  np.testing.assert_allclose([total, count], expected, rtol=2e-4)


def test_a_view_without_fixations_and_what_is_outside_the_photograph_count_nothing(model):
  examples = draw_examples(np.random.default_rng(3), 3)
  objective = objective_of
  examples["window"][:] = (-0.5, 0, 1, 1)
  examples["mass"][1] = 0
  before = objective(model, examples)["kl"]
  examples["mass"][:, :, 0] = 7.0  # outside: the first third of the columns
  np.testing.assert_array_equal(objective(model, examples)["kl"], before)
  gradient = jax.jit(
    jax.grad(lambda state: objective(nnx.merge(graphdef, state), examples)["kl"][0])
  )
  graphdef, state = nnx.split(model)
  leaves = jax.tree.leaves(gradient(state))
  assert all(np.isfinite(leaf).all() for leaf in leaves) and np.abs(leaves[0]).max() > 0


def test_dropout_depends_on_the_seeds_of_the_examples_alone(model):
  examples = draw_examples(np.random.default_rng(4), 2)
  objective = jax.jit(build_fixation_objective(SIZE, 0.5))
  first = objective(model, examples)["kl"][0]
  assert objective(model, examples)["kl"][0] == first
  assert objective(model, examples | {"seed": examples["seed"] + 1})["kl"][0] != first
  turned = {key: value[::-1] for key, value in examples.items()}
  np.testing.assert_allclose(objective(model, turned)["kl"][0], first, rtol=1e-5)


def draw_pictures(rng, number, size=SIZE):
  return [
    FixatedPicture(
      str(index),
      rng.integers(0, 256, (*size, 3), np.uint8),
      rng.uniform(0, size[1], 12),
      rng.uniform(0, size[0], 12),
      4.0,
    )
    for index in range(number)
  ]


def test_features_are_those_of_each_picture_whatever_the_batch(pooling_backbone):
  images = [picture.image for picture in draw_pictures(np.random.default_rng(5), 5)]
  together = compile_backbone(pooling_backbone, 3)(images)
  by_itself = jax.jit(lambda image: pooling_backbone.stages(image, tuple(FEATURES)))
  alone = [by_itself(image[None].astype(np.float32)) for image in images]
  for stage, maps in together.items():
    assert maps.shape[0] == 5
    for index in range(5):
      np.testing.assert_allclose(maps[index], alone[index][stage][0], rtol=1e-5, atol=1e-5)


def test_examples_are_the_views_of_all_pictures_in_order(pooling_backbone):
  rng = np.random.default_rng(6)
  data_sets = [draw_pictures(rng, 2), draw_pictures(rng, 1)]
  windows = (1.0, 0.5, 1.5)
  examples = make_examples(data_sets, pooling_backbone, windows=windows, seed=1)
  assert examples["data_set"].tolist() == [0] * 6 + [1] * 3
  np.testing.assert_allclose(examples["window"][:, 2] - examples["window"][:, 0], windows * 3)
  whole = data_sets[1][0]
  density = whole.density().reshape(4, 8, 6, 8).sum((1, 3))
  assert min(np.abs(examples["mass"][6] - x).max() for x in (density, density[:, ::-1])) < 1e-6
  images = [whole.image, whole.image[:, ::-1]]
  for stage in FEATURES:
    maps = examples[f"features_{stage}"]
    assert maps.dtype == np.float16
    candidates = compile_backbone(pooling_backbone, 2)(images)[stage]
    assert min(np.abs(maps[6] - x).max() for x in candidates) < 1e-2
  again = make_examples(data_sets, pooling_backbone, windows=windows, seed=1)
  other = make_examples(data_sets, pooling_backbone, windows=windows, seed=2)
  np.testing.assert_array_equal(again["window"], examples["window"])
  assert np.abs(other["window"] - examples["window"]).max() > 0


def test_the_readout_standardises_by_the_statistics_of_the_examples(model):
  examples = draw_examples(np.random.default_rng(7), 4)
  examples["features_5"] = examples["features_5"] * 3 + 5
  readout = nnx.clone(model.readout)
  set_statistics(readout, examples, SIZE)
  for (number, stage), projection in zip(FEATURES.items(), readout.projections, strict=True):
    cells = examples[f"features_{number}"].astype(float).reshape(-1, stage.channels)
    np.testing.assert_allclose(projection.mean[...], cells.mean(0), atol=1e-4)
    np.testing.assert_allclose(projection.deviation[...], cells.std(0) + 1e-3, rtol=1e-3)


def test_the_appearance_is_the_features_along_their_principal_components(model):
  rng = np.random.default_rng(13)
  examples = draw_examples(rng, 3)
  for stage in FEATURES:  # one direction of large variance that all stages share
    direction = rng.normal(size=FEATURES[stage].channels)
    level = np.array([-1.0, 0.0, 1.0])[:, None, None, None]
    examples[f"features_{stage}"] = (examples[f"features_{stage}"] / 9 + level * direction).astype(
      np.float16
    )
  readout = nnx.clone(model.readout)
  set_statistics(readout, examples, SIZE)
  features = {stage: examples[f"features_{stage}"] for stage in FEATURES}
  _, appearance = jax.jit(lambda readout, x: readout.observe(x, SIZE))(readout, features)
  cells = np.asarray(appearance).reshape(-1, COMPONENTS)
  axes = np.concatenate([projection.axes[...] for projection in readout.projections])
  np.testing.assert_allclose(axes.T @ axes, np.eye(COMPONENTS), atol=1e-4)
  assert (axes[np.abs(axes).argmax(0), np.arange(COMPONENTS)] > 0).all()
  variance = (cells**2).mean(0)
  assert (np.diff(variance) < 1e-3 * variance[0]).all() and variance[0] > 5 * variance[1]
  assert abs(np.corrcoef(np.repeat([-1, 0, 1], len(cells) // 3), cells[:, 0])[0, 1]) > 0.95
  mixed = cells.T @ cells / len(cells)
  np.testing.assert_allclose(mixed, np.diag(variance), atol=1e-3 * variance[0])


def test_a_sharpened_readout_gives_densities_to_a_power(pooling_backbone, model):
  readout = nnx.clone(model.readout)
  views = np.random.default_rng(14).integers(0, 256, (2, *SIZE, 3), np.uint8)
  powers = np.asarray(LearnedSaliency(pooling_backbone, readout)(views), np.float64) ** 1.3
  sharpen(readout, 1.3)
  expected = powers / powers.mean((1, 2), keepdims=True)
  np.testing.assert_allclose(LearnedSaliency(pooling_backbone, readout)(views), expected, rtol=1e-3)


def test_batches_are_shuffled_epochs_that_resume_where_they_were():
  examples = draw_examples(np.random.default_rng(8), 6)
  del examples["seed"]
  examples["data_set"] = np.arange(6, dtype=np.int32)
  batches = example_batches(examples, 3, seed=0)
  first = [next(batches) for _ in range(3)]
  position = batches.get_state()
  rest = [next(batches) for _ in range(3)]
  order = [batch["data_set"].tolist() for batch in first + rest]
  epochs = [order[i] + order[i + 1] for i in (0, 2, 4)]
  assert (
    all(sorted(epoch) == list(range(6)) for epoch in epochs) and len(set(map(tuple, epochs))) > 1
  )
  seeds = np.concatenate([batch["seed"] for batch in first + rest])
  assert len(set(seeds.tolist())) == 18
  for key, value in first[0].items():
    if key not in ("seed", "data_set"):
      np.testing.assert_array_equal(value, examples[key][first[0]["data_set"]])
  resumed = example_batches(examples, 3, seed=0)
  resumed.set_state(position)
  for batch, expected in zip((next(resumed) for _ in range(3)), rest, strict=True):
    jax.tree.map(np.testing.assert_array_equal, batch, expected)


def test_the_bias_explains_a_habit_of_looking_at_the_centre_and_the_readout_the_objects():
  rng = np.random.default_rng(9)
  number = 32
  examples = draw_examples(rng, number)
  windows = np.concatenate([rng.uniform(-0.3, 0.3, (number, 2)), np.zeros((number, 2))], axis=1)
  windows[:, 2:] = windows[:, :2] + 1
  examples["window"] = windows.astype(np.float32)
  x, y = (2 * (windows[:, [axis]] + (np.arange(n) + 0.5) / n) - 1 for axis, n in ((0, 6), (1, 4)))
  for stage in FEATURES:  # one channel says something; by others the readout could learn by rote
    examples[f"features_{stage}"][..., 1 if stage == 3 else 0 :] = 0
  matrices = (interpolation_matrix(cell_centres(n, 8), tile_centres(n, 8)) for n in SIZE)
  objects = np.einsum("mh,nw,bhw->bmn", *matrices, examples["features_3"][..., 0].astype(float))
  log = objects - (2 * x**2)[:, None, :] - (3 * y**2)[:, :, None]
  mass = np.exp(log)
  mass *= (np.abs(x) <= 1)[:, None, :] & (np.abs(y) <= 1)[:, :, None]
  examples["mass"] = (mass / mass.sum((1, 2), keepdims=True)).astype(np.float32)
  model = BiasedReadout(FixationReadout((8,), rngs=nnx.Rngs(0)), 2)
  model.readout.log_blur[...] = jnp.array(-1.5)
  optimizer = optax.with_extra_args_support(optax.adam(0.02))
  graphdef, state = create_state(model, optimizer)
  objective = build_fixation_objective(SIZE, 0.0)
  step = jax.jit(
    lambda state: train_step(graphdef, optimizer, objective, {"kl": 1.0}, 0.9, state, examples, 0.0)
  )
  losses = []
  for _ in range(120):
    state, metrics = step(state)
    losses.append(float(metrics["loss"]))
  trained = model_from_state(graphdef, state)
  assert losses[-1] < 0.1 * losses[0]
  np.testing.assert_allclose(trained.bias.coefficients[...][:, :2], [[-2, -3]] * 2, atol=0.5)
  features = {stage: examples[f"features_{stage}"] for stage in FEATURES}
  got = np.asarray(read(trained.readout, features))
  got, objects = (v - v.mean((1, 2), keepdims=True) for v in (got, objects))
  assert np.corrcoef(got.ravel(), objects.ravel())[0, 1] > 0.9
  centre = -(x**2)[:, None, :] - (y**2)[:, :, None]
  assert abs(np.corrcoef((got - objects).ravel(), centre.ravel())[0, 1]) < 0.3


def test_the_centre_prior_is_fitted_by_the_spread_of_the_fixations():
  rng = np.random.default_rng(10)
  x, y = rng.normal(24, 5, 4000), rng.normal(16, 5, 4000)
  picture = FixatedPicture("one", np.zeros((*SIZE, 3), np.uint8), x, y, 3.0)
  assert fit_centre_prior([picture]) == pytest.approx(5, rel=0.05)


def test_maps_of_all_models_are_scored_by_all_metrics(pooling_backbone, model):
  rng = np.random.default_rng(11)
  pictures = draw_pictures(rng, 3)
  learned = LearnedSaliency(pooling_backbone, model.readout)
  maps = list(saliency_maps(learned, model.bias, pictures, data_set=1, prior_px=6.0, batch_size=2))
  assert len(maps) == 3 and all(tuple(row) == MODELS for row in maps)
  a, b, c = np.asarray(model.bias.coefficients[...])[1]
  rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
  x, y = 2 * columns / SIZE[1] - 1, 2 * rows / SIZE[0] - 1
  for row, picture in zip(maps, pictures, strict=True):
    np.testing.assert_allclose(row["learned"], learned(picture.image[None])[0], rtol=1e-4)
    habit = np.exp(a * x**2 + b * y**2 + c * y)
    np.testing.assert_allclose(row["learned_with_bias"], row["learned"] * habit, rtol=1e-4)
    prior = np.exp(-((columns - 24) ** 2 + (rows - 16) ** 2) / 72)
    np.testing.assert_allclose(row["centre_prior"], prior, rtol=1e-4)
    residual = SpectralResidual()(picture.image[None])[0]
    np.testing.assert_allclose(row["spectral_residual"], residual, rtol=1e-4)
    scores = score_maps(row, picture)
    for name, saliency in row.items():
      points, density = (picture.x, picture.y), picture.density()
      expected = [nss(saliency, *points), cc(saliency, density), auc_judd(saliency, *points)]
      expected += [kl_divergence(saliency, density), similarity(saliency, density)]
      assert list(scores[name]) == list(METRICS)
      assert list(scores[name].values()) == expected


def test_the_summary_has_each_data_set_and_all_together():
  def row(value):
    return {model: {metric: Score(value, "used") for metric in METRICS} for model in MODELS}

  summary = summarize({"a": [row(1.0), row(2.0)], "b": [row(6.0)]})
  means = {name: block["learned"]["cc"]["mean"] for name, block in summary.items()}
  assert means == {"a": 1.5, "b": 6.0, "together": 3.0}
  assert summary["together"]["pictures"] == 3
  assert summary["a"]["learned"]["nss"]["interval_95"] == [1.0, 2.0]
  text = table(summary)
  assert "together, 3 pictures" in text and "3.000 [1.000, 6.000]" in text


def test_the_sheet_shows_each_map_by_its_own_maximum():
  picture = draw_pictures(np.random.default_rng(12), 1)[0]
  dark, spot = np.full(SIZE, 0.5), np.zeros(SIZE)
  spot[:16, :24] = 3.0
  sheet = fixation_sheet([FixationRow(picture, {"even": dark, "spot": spot}, "one")])
  body = sheet[40:].astype(int)
  tile = body.shape[1] // 4
  even, corner, away = (
    body[80:100, 2 * tile + 40 : 2 * tile + 80],
    body[40:100, 3 * tile + 40 : 3 * tile + 80],
    body[180:220, 3 * tile + 280 : 3 * tile + 320],
  )
  assert sheet.dtype == np.uint8
  assert corner.mean() > away.mean() + 80
  assert abs(even.mean() - corner.mean()) < 15


@pytest.fixture(scope="module")
def build_settings(prepared_fixations, pooling_backbone):
  """A function that builds those of the smallest run; its backbone stands for the real one."""

  def build():
    config = fixation_config()
    config.data.data_dir = str(prepared_fixations)
    config.data.height, config.data.width = 48, 64
    config.data.windows = (1.0, 0.75)
    config.data.batch_size = 4
    config.model.channels = (8,)
    config.model.enlargement = 1.5
    config.train.steps = 4
    config.train.log_every = 2
    config.evaluate.batch_size = 2
    config.evaluate.sheet_pictures = 1
    return config

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_fixation, "load_efficientnet_lite0", lambda padding: pooling_backbone)
    yield build


@pytest.fixture
def settings(build_settings):
  return build_settings()


def of_folds(settings):
  settings.data.train_split, settings.data.folds = "train+tune", 2
  return settings


@pytest.fixture(scope="module")
def folded(build_settings, tmp_path_factory):
  """The folder of a run with folds, the rows of its trainings, and what measured each picture."""
  workdir, trained_on, measured_by = tmp_path_factory.mktemp("folded"), [], {}
  make_batches, make_maps = run_fixation.example_batches, run_fixation.saliency_maps

  def watch_batches(examples, batch_size, seed, rows):
    trained_on.append(rows)
    return make_batches(examples, batch_size, seed, rows)

  def watch_maps(model, bias, pictures, **settings):
    for picture in pictures:
      measured_by[settings["data_set"], picture.image_id] = np.asarray(model.readout.bias[...])
    return make_maps(model, bias, pictures, **settings)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(run_fixation, "example_batches", watch_batches)
    patch.setattr(run_fixation, "saliency_maps", watch_maps)
    train_and_evaluate(of_folds(build_settings()), str(workdir))
  return workdir, trained_on, measured_by


def test_a_run_trains_measures_and_leaves_its_files(settings, tmp_path, capsys):
  train_and_evaluate(settings, str(tmp_path))
  report = json.loads((tmp_path / "metrics.json").read_text())
  assert report["split"] == "tune" and report["size"] == [48, 64]
  assert [block["pictures"] for block in report["results"].values()] == [2, 2, 4]
  assert json.loads((tmp_path / "config.json").read_text())["task"] == "fixation"
  assert (tmp_path / "evaluation.png").stat().st_size > 1000
  assert "together, 4 pictures" in capsys.readouterr().out
  trained = load_readout(file_of_run(tmp_path))
  assert trained.bias.shape == (8,) and trained.enlargement == settings.model.enlargement
  settings.evaluate.split = "test"
  evaluate_run(settings, str(tmp_path))
  report = json.loads((tmp_path / "metrics.json").read_text())
  assert report["split"] == "test" and report["results"]["together"]["pictures"] == 2
  settings.data.names, settings.data.degrees = ("fixations/osie",), (0.03,)
  with pytest.raises(ValueError, match="no centre bias for 1 data sets; set config.data.names"):
    evaluate_run(settings, str(tmp_path))
  with pytest.raises(ValueError, match="a run of the task fixation, which ranks nothing"):
    Ranker.load(tmp_path)
  with pytest.raises(ValueError, match="for a --config of the task ranking, not fixation"):
    benchmark(settings, str(tmp_path))


def test_a_run_with_folds_measures_each_picture_by_a_readout_that_has_not_seen_it(
  settings, folded, tmp_path
):
  settings, workdir = of_folds(settings), tmp_path / "run"
  shutil.copytree(folded[0], workdir)
  _, trained_on, measured_by = folded
  size = (72, 96)
  data_sets = run_fixation._read(settings, "train+tune", size)
  names = [picture.image_id for pictures in data_sets for picture in pictures]
  assert trained_on[0] is None
  for fold, rows in enumerate(trained_on[1:]):
    seen = [index for index, name in enumerate(names) if fold_of(name, 2) != fold]
    assert rows.tolist() == [2 * index + view for index in seen for view in range(2)]
  assert len(trained_on) == 3 and 0 < len(trained_on[1]) < 2 * len(names)

  readouts = [read_tensors(file_of_run(workdir, fold))[0] for fold in (None, 0, 1)]
  for name, of_all in readouts[0].items():
    shared = name.endswith(("mean", "deviation", "axes"))
    for of_fold in readouts[1:]:
      same = np.array_equal(of_all, of_fold[name])
      assert same if shared else not same or not name.endswith("kernel"), name
  report = json.loads((workdir / "metrics.json").read_text())
  assert report["folds"] == 2 and report["results"]["together"]["pictures"] == 4
  biases = [readout["centre_bias.coefficients"] for readout in readouts[1:]]
  for number, name in enumerate(settings.data.names):  # those of both folds, which differ
    np.testing.assert_array_equal(report["centre_bias"][name], [bias[number] for bias in biases])
  assert not np.array_equal(*biases)
  assert len(measured_by) == 4
  for (_, image_id), bias in measured_by.items():
    np.testing.assert_array_equal(bias, readouts[1 + fold_of(image_id, 2)]["bias"])

  settings.evaluate.split = "test"
  evaluate_run(settings, str(workdir))
  assert json.loads((workdir / "metrics.json").read_text())["folds"] == 1

  settings.data.folds = 3
  with pytest.raises(ValueError, match=r"folds 2, not 3; give --config.data.folds=2"):
    evaluate_run(settings, str(workdir))
  settings.data.folds, settings.data.train_split = 0, "train"
  with pytest.raises(ValueError, match=r"with config.data.train_split train\+tune, not train;"):
    evaluate_run(settings, str(workdir))


def test_a_run_does_not_go_on_with_other_settings(settings, folded, tmp_path):
  settings, workdir = of_folds(settings), tmp_path / "run"
  shutil.copytree(folded[0], workdir)
  files = {path: path.read_bytes() for path in workdir.rglob("*.safetensors")}
  assert len(files) == 3
  settings.model.sharpness = 2.0  # applied to what is trained: may be chosen later
  train_and_evaluate(settings, str(workdir))
  assert all(path.read_bytes() != content for path, content in files.items())
  files = {path: path.read_bytes() for path in files}
  changes = {"data.train_split": "train[:50%]", "data.folds": 3, "model.channels": (9,), "seed": 7}
  for field, value in changes.items():
    changed = settings.copy_and_resolve_references()
    changed.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=rf"cannot go on .* config.{field} is .* give another"):
      train_and_evaluate(changed, str(workdir))
  assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
  ("train_split", "split"), [("train+tune", "tune"), ("train", "train[:50%]")]
)
def test_pictures_that_were_trained_on_are_not_measured_without_folds(
  settings, tmp_path, train_split, split
):
  settings.data.train_split, settings.evaluate.split = train_split, split
  with pytest.raises(ValueError, match=r"is part of .*train_split .* or set config.data.folds"):
    train_and_evaluate(settings, str(tmp_path))
  assert not list(tmp_path.iterdir())


def test_an_untrained_folder_is_told(settings, tmp_path):
  with pytest.raises(ValueError, match="fixation_readout.safetensors: no weights of a readout"):
    evaluate_run(settings, str(tmp_path))


def test_the_bias_of_a_place_is_a_parabola_of_its_data_set():
  bias = CentreBias(2)
  bias.coefficients[...] = jnp.array([[-1.0, -2.0, 0.5], [-3.0, -4.0, 0.0]])
  x, y = np.array([[0.5, -1.0]] * 2), np.array([[0.25]] * 2)
  got = bias(jnp.asarray(x), jnp.asarray(y), jnp.array([0, 1]))
  expected = [[[-0.25 - 0.125 + 0.125, -1.0]], [[-0.75 - 0.25, -3.25]]]
  np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_readout_may_have_one_hidden_layer_or_more(draw_parameters):
  features = {
    number: jnp.ones((1, -(-32 // stride), -(-48 // stride), channels))
    for number, (stride, channels) in FEATURES.items()
  }
  for channels in ((3,), (4, 3, 2)):
    readout = draw_parameters(lambda channels=channels: FixationReadout(channels, rngs=nnx.Rngs(0)))
    assert jax.eval_shape(read, readout, features).shape == (1, *CELLS)
    assert len(readout.layers) == len(channels)
