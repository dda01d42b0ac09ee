"""The model whose throughput docs/performance.md reports; it reads no data set.

foir360 benchmark --config=configs/benchmark.py --workdir=runs/benchmark

Any other configuration may be measured by the same command.
"""

from foir360_jax.config import base_config


def get_config():
  """PanoRank as configs/synthetic.py trains it."""
  config = base_config()
  config.data.height = 128
  config.model.mask_stride = 4
  config.model.widths = (16, 48, 72, 96)
  config.model.blocks = (0, 1, 1, 1)
  config.model.decoder_layers = 3
  return config
