"""Pictures for people: ranked objects drawn on their panorama, and the sheet of an evaluation.

Takes plain arrays, so that the types of `foir360_jax.scenes` can draw themselves with it.
"""

from foir360_jax.drawing.evaluation_sheet import SheetRow, evaluation_sheet
from foir360_jax.drawing.overlay import draw_overlay

__all__ = ["SheetRow", "draw_overlay", "evaluation_sheet"]
