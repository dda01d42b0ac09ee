"""The throughput table of a configuration: what `foir360 benchmark` prints."""

from typing import Any

from foir360_jax.benchmarks import losses, race, train_step
from foir360_jax.benchmarks.cases import Case
from foir360_jax.benchmarks.record import describe, environment, text_table
from foir360_jax.models.encoders.build import SMALL

_CONVOLUTION_COLUMNS = {
  "case": "",
  "pass": "",
  "contestant": "",
  "min_ms": ".2f",
  "median_ms": ".2f",
  "ratio": ".2f",
  "error": ".0e",
}
_LOSS_COLUMNS = {
  "loss": "",
  "shape": "",
  "min_ms": ".3f",
  "median_ms": ".3f",
  "speedup": ".2f",
  "gradient_error": ".0e",
}


def throughput(
  config: train_step.Config, *, rounds: int, budget_s: float
) -> tuple[dict[str, Any], str]:
  """Measures the model of a configuration, and the two kernels at sizes that it has.

  Args:
    config: the sections of `foir360_jax.config`.
    rounds: of each race.
    budget_s: seconds after which a race starts no further round.

  Returns:
    JSON values, and the same as text.
  """
  model = [
    measure(config, rounds=rounds, budget_s=budget_s)
    for measure in (train_step.measure_training, train_step.measure_prediction)
  ]
  convolutions = [
    row
    for case in _cases(config)
    for row in race.race(case, (race.OURS, race.PLANAR), rounds=rounds, budget_s=budget_s)
  ]
  shape = (config["data"]["batch_size"], config["data"]["max_objects"])
  theirs = losses.rax_losses()
  ranking = [
    losses.race(name, shape, theirs.get(name), rounds=rounds, budget_s=budget_s)
    for name in losses.OURS
  ]
  about = environment()
  text = "\n\n".join(
    [
      describe(about),
      text_table(model, train_step.COLUMNS),
      text_table(convolutions, _CONVOLUTION_COLUMNS),
      text_table(ranking, _LOSS_COLUMNS),
    ]
  )
  report = {"environment": about, "model": model, "convolutions": convolutions, "losses": ranking}
  return report, text + "\n"


def _cases(config: train_step.Config) -> list[Case]:
  """The spherical convolutions of the small encoder, at the levels that have any."""
  model, data = config["model"], config["data"]
  if model["encoder"] != SMALL:
    return []
  return [
    Case(data["batch_size"], data["height"] // stride, width)
    for stride, width, blocks in zip((2, 4, 8, 16), model["widths"], model["blocks"], strict=True)
    if (blocks or stride > 2) and stride >= model["sphere_from_stride"]
  ]
