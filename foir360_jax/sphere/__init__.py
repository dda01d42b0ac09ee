"""Geometry of the panorama and compiled operators on it; knows nothing of models or configs."""

from foir360_jax.sphere.convolution import sphere_conv
from foir360_jax.sphere.formulations import FORMULATIONS
from foir360_jax.sphere.grid import (
  angles_from_directions,
  directions_from_angles,
  mean_direction,
  pixel_areas,
  pixel_directions,
  pixels_from_directions,
)
from foir360_jax.sphere.padding import pad_longitude, pad_sphere
from foir360_jax.sphere.regions import (
  bounding_box_px,
  bounding_fov_deg,
  centroid_direction,
  connected_components,
  solid_angle,
)
from foir360_jax.sphere.resample import resize_panorama, sample
from foir360_jax.sphere.rotation import bearings_deg, rotate_panorama, rotation_matrix
from foir360_jax.sphere.tangent import render_view, view_directions

__all__ = [
  "FORMULATIONS",
  "angles_from_directions",
  "bearings_deg",
  "bounding_box_px",
  "bounding_fov_deg",
  "centroid_direction",
  "connected_components",
  "directions_from_angles",
  "mean_direction",
  "pad_longitude",
  "pad_sphere",
  "pixel_areas",
  "pixel_directions",
  "pixels_from_directions",
  "render_view",
  "resize_panorama",
  "rotate_panorama",
  "rotation_matrix",
  "sample",
  "solid_angle",
  "sphere_conv",
  "view_directions",
]
