"""Colour transforms of images [H, W, 3] uint8 RGB, used by `augment`."""

import cv2
import numpy as np

# From RGB to luminance and two chrominances, which are 0 for grey (YIQ).
_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def colour_matrix(
  *, brightness: float, contrast: float, saturation: float, hue_rad: float
) -> np.ndarray:
  """The affine map of RGB in [0, 255] that changes all four at once.

  In YIQ, about mid-grey: Y -> contrast (Y - 127.5) + 127.5 + 255 brightness; (I, Q) -> contrast
  saturation (I, Q) turned by the hue. Luminance depends on neither saturation nor hue.

  Args:
    brightness: added, as a share of the range; 0 changes nothing.
    contrast: factor; 1 changes nothing.
    saturation: factor; 1 changes nothing, 0 leaves grey.
    hue_rad: angle by which chrominance turns.

  Returns:
    [3, 4]: the matrix, and in the last column what is added.

  >>> matrix = colour_matrix(brightness=0.0, contrast=1.0, saturation=0.0, hue_rad=0.0)
  >>> matrix[:, :3].round(3).tolist()[0]  # grey
  [0.299, 0.587, 0.114]
  """
  cosine, sine = saturation * np.cos(hue_rad), saturation * np.sin(hue_rad)
  change = np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
  offset = 127.5 * (1 - contrast) + 255 * brightness
  matrix = contrast * np.linalg.inv(_YIQ) @ change @ _YIQ
  return np.concatenate([matrix, np.full((3, 1), offset)], axis=1)


def change_colours(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """Maps every colour by `matrix` [3, 4], see `colour_matrix`; rounds, and clips to [0, 255]."""
  return cv2.transform(image, matrix)


def reorder_channels(image: np.ndarray, order: np.ndarray) -> np.ndarray:
  """Puts the colour channels in another order: the new channel c is the old channel order[c]."""
  return image[..., order]
