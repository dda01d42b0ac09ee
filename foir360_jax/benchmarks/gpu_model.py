"""The PanoRank that the GPU benchmark trains: plain values in the sections of `base_config`.

`foir360_jax.config` itself needs packages that need not be there.
"""

from typing import Any

MODEL: dict[str, Any] = {
  "seed": 0,
  "data": {"height": 256, "max_objects": 40, "batch_size": 16},
  "model": {
    "encoder": "sphere_small",
    "widths": (32, 64, 128, 256),
    "blocks": (1, 1, 1, 1),
    "sphere_from_stride": 4,
    "last_stride": 16,
    "drop_path": 0.0,
    "feature_channels": 128,
    "pixel_layers": 1,
    "mask_channels": 64,
    "num_queries": 64,
    "decoder_layers": 3,
    "num_categories": 12,
    "mask_stride": 4,
    "mask_detail": 2,
    "context": True,
    "condition_on_categories": False,
    "compute_dtype": "float32",
    "remat": False,
  },
  "loss": {
    "ranking": "listmle",
    "points": 0,
    "scheduled_sampling": 1.0,
    "conditioning_rate": 0.8,
    "heat": 1.0,
    "foreground": 2.0,
    "object": 0.5,
    "mask_dice": 2.0,
    "mask_entropy": 1.0,
    "category": 0.1,
    "rank_ground_truth": 0.5,
    "rank_predicted": 0.5,
    "recurrent": 0.5,
    "rank_category": 0.5,
  },
  "optimizer": {
    "learning_rate": 2e-3,
    "encoder_rate": 1.0,
    "layer_decay": 1.0,
    "warmup_steps": 50,
    "weight_decay": 0.02,
    "b2": 0.99,
    "clip_norm": 1.0,
  },
  "train": {"mode": "jit", "ema_decay": 0.99},
  "evaluate": {"batch_size": 16},
}

SMALL_MODEL = MODEL | {
  "data": {"height": 48, "max_objects": 3, "batch_size": 1},
  "model": MODEL["model"]
  | {
    "widths": (8, 8, 16, 16),
    "blocks": (0, 0, 0, 0),
    "sphere_from_stride": 16,
    "decoder_layers": 0,
    "pixel_layers": 0,
    "context": False,
    "feature_channels": 16,
    "mask_channels": 20,
    "num_queries": 4,
  },
  "evaluate": {"batch_size": 1},
}
