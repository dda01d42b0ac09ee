"""Learning where people look from their fixations: data, training, figures, and the whole task.

`pictures` -> `training` -> `evaluation` and `sheet`; `run` is what the command line calls.
"""

__all__ = []
