"""The model in full, with public weights, on a photograph; `pytest -s` prints what it takes."""

import pathlib
import runpy
import time

import jax
import numpy as np
import pytest
from flax import nnx

from foir360_jax.files import read_panorama
from foir360_jax.models import build_model
from foir360_jax.models.pretrained import has_efficientnet_lite0, load_encoder_weights
from foir360_jax.sphere import resize_panorama

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


@pytest.mark.slow
def test_the_full_model_with_public_weights_ranks_a_real_panorama(shared):
  if not has_efficientnet_lite0():
    pytest.skip("the extra `pretrained` is not installed")
  config = runpy.run_path(str(CONFIGS / "panorank.py"))["get_config"]()
  model = nnx.jit(lambda: build_model(config))()
  load_encoder_weights(model.encoder, config.encoder_weights)
  graphdef, state = nnx.split(model)
  pictures = sorted(file for file in (shared / "data/erp").glob("*") if is_picture(file))
  if not pictures:
    pytest.skip(f"no panorama in {shared / 'data/erp'}")
  picture = pictures[0]
  panorama = resize_panorama(read_panorama(picture), config.data.height)
  image = np.asarray(panorama).round().astype(np.uint8)[None]

  start = time.monotonic()
  rank = jax.jit(lambda state, image: nnx.merge(graphdef, state)(image, 0.0))
  program = rank.lower(state, image).compile()
  compiled = time.monotonic()
  found = jax.block_until_ready(program(state, image))
  times = []
  for _ in range(3):
    begin = time.monotonic()
    found = jax.block_until_ready(program(state, image))
    times.append(time.monotonic() - begin)
  millions = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) / 1e6
  print(
    f"\n{picture.name} at {image.shape[1]}x{image.shape[2]}: {millions:.1f} M parameters, compiled"
    f" in {compiled - start:.0f} s, {min(times):.2f} s a panorama"
  )

  cells = (config.data.height // config.model.mask_stride * config.model.mask_detail) ** 2 * 2
  assert found.mask_logits.shape == (1, config.model.num_queries, cells)
  assert all(np.isfinite(leaf).all() for leaf in found)
  shown = np.asarray(found.importance[0])
  assert (shown > 0).any() and (shown <= 1).all()
  # The heads are not trained, but masks already are caps about the places that stand out.
  masks = np.asarray(found.mask_logits[0][shown > 0]) > 0
  assert masks.any(-1).all() and masks.mean(-1).max() < 0.5


def is_picture(file: pathlib.Path) -> bool:
  is_map = file.stem.endswith(("_ids", "_fix_blue", "_fix_red"))
  return file.suffix.lower() in (".png", ".jpg", ".jpeg") and not is_map
