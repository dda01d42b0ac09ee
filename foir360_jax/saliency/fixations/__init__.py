"""Learning of saliency from fixations: data, training, evaluation, and the whole task.

`pictures` -> `training` -> `evaluation` and `sheet`; `run` is what the command line calls.
"""

__all__ = []
