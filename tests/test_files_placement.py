"""Parts of the sphere (GPano) and turned pictures: where their pixels and their masks go."""

import io

import numpy as np
import pytest
from PIL import Image

from foir360_jax.files import PanoramaError, read_panorama
from foir360_jax.files.placement import Pose, read_placement

NAMES = {
  "full": ("FullPanoHeightPixels", "FullPanoWidthPixels"),
  "part": ("CroppedAreaImageHeightPixels", "CroppedAreaImageWidthPixels"),
  "corner": ("CroppedAreaTopPixels", "CroppedAreaLeftPixels"),
}


def xmp(form="attributes", **values):
  """XMP that says GPano's fields in one of the two forms of RDF."""
  fields = {"ProjectionType": "equirectangular", "UsePanoramaViewer": "True"}
  for name, pair in values.items():
    fields |= dict(zip(NAMES[name], pair, strict=True)) if name in NAMES else {name: pair}
  space = 'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/"'
  if form == "attributes":
    text = " ".join(f'GPano:{name}="{value}"' for name, value in fields.items())
    inside = f"<rdf:Description {space} {text}/>"
  else:
    text = "\n  ".join(f"<GPano:{name}>{value}</GPano:{name}>" for name, value in fields.items())
    inside = f"<rdf:Description {space}>\n  {text}\n</rdf:Description>"
  return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inside}</rdf:RDF></x:xmpmeta>'.encode()


def write(path, rgb, data, orientation=1):
  exif, stream = Image.Exif(), io.BytesIO()
  exif[0x0112] = orientation
  Image.fromarray(rgb).save(stream, "WEBP", lossless=True, xmp=data, exif=exif)
  path.write_bytes(stream.getvalue())
  return path


def noise(height, width):
  return np.random.default_rng().integers(1, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("form", ["attributes", "elements"])
@pytest.mark.parametrize("scale", [1, 4])
def test_a_part_of_the_sphere_is_placed_on_it_and_the_rest_is_black(form, scale, tmp_path):
  rgb = noise(20, 50)
  said = {"full": (64, 128), "part": (20, 50), "corner": (30, 60)}
  said = {name: tuple(scale * value for value in pair) for name, pair in said.items()}
  path = write(tmp_path / "a.webp", rgb, xmp(form, **said, PoseHeadingDegrees="90.5"))
  expected = np.zeros((64, 128, 3), np.uint8)
  expected[30:50, 60:110] = rgb
  np.testing.assert_array_equal(read_panorama(path), expected)
  placement = read_placement(path, whole=False)
  assert (placement.upright, placement.size) == ((20, 50), (64, 128))
  assert placement.pose == Pose(heading_deg=90.5)
  np.testing.assert_array_equal(placement.data(), expected.any(axis=-1))
  mask = np.random.default_rng().random((20, 50)) < 0.5
  np.testing.assert_array_equal(placement.place_mask(mask), np.pad(mask, ((30, 14), (60, 18))))
  whole = np.random.default_rng().random((64, 128)) < 0.5
  assert placement.place_mask(whole) is whole
  assert "placed on a full one of 128 x 64 pixels" in placement.notes(with_masks=False)[0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_every_file_that_carries_xmp_is_understood(kind, tmp_path):
  data = xmp(full=(64, 128), part=(32, 64), corner=(16, 32))
  if kind == "PNG":
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", data.decode())
    Image.fromarray(noise(32, 64)).save(tmp_path / "a.img", kind, pnginfo=info)
  elif kind == "TIFF":
    Image.fromarray(noise(32, 64)).save(tmp_path / "a.img", kind, tiffinfo={700: data})
  else:
    Image.fromarray(noise(32, 64)).save(tmp_path / "a.img", kind, xmp=data)
  for whole in (True, False):
    assert read_placement(tmp_path / "a.img", whole=whole).size == (64, 128)


def test_a_part_may_pass_the_seam(tmp_path):
  rgb = noise(20, 50)
  path = write(tmp_path / "a", rgb, xmp(full=(64, 128), part=(20, 50), corner=(0, 100)))
  read = read_panorama(path)
  np.testing.assert_array_equal(read[:20, 100:], rgb[:, :28])
  np.testing.assert_array_equal(read[:20, :22], rgb[:, 28:])


@pytest.mark.parametrize(
  "said",
  [
    {},
    dict(full=(64, 128), part=(64, 128), corner=(0, 0)),
    dict(full=(640, 1280), part=(640, 1280), corner=(0, 0)),  # made smaller since
    dict(full=(64, 128), part=(40, 128), corner=(10, 0)),  # filled up since
    dict(full=(640, 1280), part=(400, 1280), corner=(100, 0)),  # both
    dict(full=("", "x"), part=(10, 10), corner=(0, 0)),
    dict(full=(128, 256), part=(64, 128), corner=(32, 64), ProjectionType="cylindrical"),
  ],
)
def test_a_full_panorama_stays_as_it_is(said, tmp_path):
  rgb = noise(64, 128)
  path = write(tmp_path / "a", rgb, xmp(**said))
  np.testing.assert_array_equal(read_panorama(path), rgb)
  assert not read_placement(path, whole=True).notes(with_masks=False)


@pytest.mark.parametrize(
  "said, reason",
  [
    (dict(full=(256, 600), part=(100, 128), corner=(0, 0)), "does not fit its 128 x 64"),
    (dict(full=(128, 256), part=(64, 128)), "but not where: CroppedAreaTopPixels"),
    (dict(full=(128, 256), part=(64, 128), corner=(90, 0)), "leads out of it"),
    (dict(full=(128, 256), part=(64, 128), corner=(-9, 0)), "leads out of it"),
    (dict(full=(50000, 100000), part=(64, 128), corner=(0, 0)), "too many; reduce"),
  ],
)
def test_fields_that_contradict_the_picture_are_a_line(said, reason, tmp_path):
  path = write(tmp_path / "a.webp", noise(64, 128), xmp(**said))
  with pytest.raises(PanoramaError, match=f"a.webp: its GPano fields .*{reason}") as error:
    read_panorama(path)
  assert "exiftool -XMP-GPano:all= FILE" in str(error.value) and "\n" not in str(error.value)


def test_masks_of_stored_pixels_are_turned_where_their_size_says_so(tmp_path):
  rgb = noise(64, 32)
  path = write(tmp_path / "a", rgb, b"", orientation=6)
  placement = read_placement(path, whole=False)
  assert (placement.stored, placement.size) == ((64, 32), (32, 64))
  mask = rgb[..., 0] > 100
  upright = read_panorama(path)[..., 0] > 100
  np.testing.assert_array_equal(placement.place_mask(mask), upright)
  assert placement.place_mask(upright) is upright
  assert "EXIF orientation 6" in placement.notes(with_masks=False)[0]
  assert [placement.fits(size) for size in ((64, 32), (32, 64), (64, 64))] == [True, True, False]


def test_without_a_heading_there_is_no_pose_and_so_no_bearing(tmp_path):
  path = write(tmp_path / "a.webp", noise(64, 128), xmp(full=(64, 128), PosePitchDegrees="3"))
  assert read_placement(path, whole=False).pose is None
  path = write(tmp_path / "b.webp", noise(64, 128), xmp(full=(64, 128), PoseHeadingDegrees="0"))
  assert read_placement(path, whole=False).pose == Pose()
