"""Faces are measured by readouts that have not seen their pictures."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from foir360_jax.saliency import FixationReadout, save_readout
from foir360_jax.saliency.fixations.pictures import fold_of
from foir360_jax.saliency.readout_file import file_of_run
from foir360_jax.weak_labels.study import sources
from foir360_jax.weak_labels.study.examples import Labelled

FOLDS = 3


@pytest.fixture
def run_of_readouts(tmp_path, monkeypatch):
  """A run with folds whose readouts can be told apart; its first is taken for the committed one."""
  for fold in (None, *range(FOLDS)):
    readout = FixationReadout((4,), rngs=nnx.Rngs(0))
    readout.bias[...] = jnp.full(4, -1.0 if fold is None else fold)
    path = file_of_run(tmp_path, fold)
    path.parent.mkdir(exist_ok=True)
    save_readout(path, readout, {"settings": json.dumps({"data": {"folds": FOLDS}})})
  monkeypatch.setattr(sources, "COMMITTED", file_of_run(tmp_path))
  return tmp_path


def measure(folder, monkeypatch):
  """Which readout measured which picture."""
  nothing = np.zeros(0)
  pictures = [Labelled(f"picture_{n}", *[nothing] * 4) for n in range(12)]
  monkeypatch.setattr(sources, "open_source", lambda *of: of)
  monkeypatch.setattr(sources, "read_faces", lambda source: iter(pictures))
  monkeypatch.setattr(sources, "load_efficientnet_lite0", lambda padding: None)

  def measure_faces(pictures, *, saliency, **method):
    return [(picture.name, float(saliency.readout.bias[...][0])) for picture in pictures]

  monkeypatch.setattr(sources, "measure_faces", measure_faces)
  return sources.measure_unseen_faces(
    folder, "data", "train+tune", strategy=None, object_score=None
  )


def test_each_face_is_measured_by_the_readout_without_its_fold(run_of_readouts, monkeypatch):
  measured = measure(run_of_readouts, monkeypatch)
  assert sorted(name for name, _ in measured) == sorted(f"picture_{n}" for n in range(12))
  assert all(fold_of(name, FOLDS) == fold for name, fold in measured)
  assert {fold for _, fold in measured} == set(range(FOLDS))


def test_a_run_of_another_readout_is_refused(run_of_readouts, tmp_path, monkeypatch):
  other = tmp_path / "committed.safetensors"
  readout = FixationReadout((4,), rngs=nnx.Rngs(1))
  save_readout(other, readout, {})
  monkeypatch.setattr(sources, "COMMITTED", other)
  with pytest.raises(ValueError, match="is not the readout that is used, committed.safetensors"):
    measure(run_of_readouts, monkeypatch)


@pytest.mark.parametrize("settings", [{"data": {}}, {"data": {"folds": 0}}])
def test_a_run_without_folds_is_refused(run_of_readouts, monkeypatch, settings):
  readout = FixationReadout((4,), rngs=nnx.Rngs(0))
  save_readout(file_of_run(run_of_readouts), readout, {"settings": json.dumps(settings)})
  with pytest.raises(ValueError, match="a run without folds; train with --config.data.folds=3"):
    measure(run_of_readouts, monkeypatch)


def test_a_missing_run_is_told_by_its_file(tmp_path, monkeypatch):
  with pytest.raises(ValueError, match="fixation_readout.safetensors: no weights of a readout"):
    measure(tmp_path, monkeypatch)
