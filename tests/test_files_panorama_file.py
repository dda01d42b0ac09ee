import io

import cv2
import numpy as np
import pytest
from PIL import Image

from foir360_jax.files import PanoramaError, find_panoramas, read_panorama, save_image


def smooth_picture(height=64, width=128, channels=3):
  rng = np.random.default_rng()
  coarse = rng.integers(0, 256, [8, 16, channels], dtype=np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(rgb, file_format, **options):
  stream = io.BytesIO()
  Image.fromarray(rgb).save(stream, file_format, **options)
  return stream.getvalue()


def test_what_was_saved_is_read_back(tmp_path):
  rgb = smooth_picture()
  save_image(tmp_path / "new" / "a.png", rgb)
  np.testing.assert_array_equal(read_panorama(tmp_path / "new" / "a.png"), rgb)
  assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize("array", [np.zeros([4, 8], np.uint8), np.zeros([4, 8, 3], np.float32)])
def test_only_8_bit_colour_pictures_are_saved(array, tmp_path):
  with pytest.raises(ValueError, match="must be uint8"):
    save_image(tmp_path / "a.png", array)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_every_format_gives_rgb(file_format, tmp_path, capfd):
  rgb = smooth_picture()
  path = tmp_path / "a"
  path.write_bytes(encode(rgb, file_format))
  read = read_panorama(path)
  assert read.dtype == np.uint8 and read.shape == rgb.shape
  assert np.abs(read.astype(int) - rgb).mean() < 8  # lossy, but no channel swapped


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("part", [0.002, 0.3, 0.7])
def test_a_truncated_picture_is_refused_by_one_line_and_no_codec_noise(
  file_format, part, tmp_path, capfd
):
  data = encode(smooth_picture(), file_format)
  path = tmp_path / "cut.img"
  path.write_bytes(data[: int(part * len(data)) + 1])
  with pytest.raises(PanoramaError, match="cut.img") as error:
    read_panorama(path)
  assert "\n" not in str(error.value)
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize("data", [b"", b"not a picture", b"<html></html>" * 100])
def test_files_without_a_picture_are_named(data, tmp_path):
  (tmp_path / "a.jpg").write_bytes(data)
  with pytest.raises(PanoramaError, match="a.jpg"):
    read_panorama(tmp_path / "a.jpg")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
  for path in (tmp_path / "absent.png", tmp_path):
    with pytest.raises(PanoramaError, match="cannot be read"):
      read_panorama(path)


def test_grey_is_repeated_and_16_bits_keep_the_upper_8(tmp_path):
  grey = smooth_picture(channels=1)
  colour = smooth_picture()
  deep = np.random.default_rng().integers(0, 256, colour.shape).astype(np.uint16)
  pictures = {
    "grey.png": (grey, np.repeat(grey.reshape(64, 128, 1), 3, axis=-1)),
    "grey16.png": (grey.astype(np.uint16) * 257, np.repeat(grey.reshape(64, 128, 1), 3, axis=-1)),
    "colour16.png": (colour.astype(np.uint16) * 256 + deep, colour[..., ::-1]),
  }
  for name, (stored, expected) in pictures.items():
    (tmp_path / name).write_bytes(cv2.imencode(".png", stored)[1].tobytes())
    np.testing.assert_array_equal(read_panorama(tmp_path / name), expected, err_msg=name)


def test_transparent_pixels_go_to_black(tmp_path):
  rgb = smooth_picture()
  alpha = np.zeros([64, 128, 1], np.uint8)
  alpha[:, :50] = 255
  Image.fromarray(np.concatenate([rgb, alpha], axis=-1)).save(tmp_path / "a.png")
  read = read_panorama(tmp_path / "a.png")
  np.testing.assert_array_equal(read[:, :50], rgb[:, :50])
  assert not read[:, 50:].any()


def test_an_exif_orientation_is_not_followed(tmp_path):
  rgb = smooth_picture()
  exif = Image.Exif()
  exif[0x0112] = 3  # upside down
  (tmp_path / "a.png").write_bytes(encode(rgb, "PNG", exif=exif))
  np.testing.assert_array_equal(read_panorama(tmp_path / "a.png"), rgb)


def test_floating_point_pixels_are_refused(tmp_path):
  Image.fromarray(np.zeros([64, 128], np.float32)).save(tmp_path / "a.tif")
  with pytest.raises(PanoramaError, match="8 bits a channel"):
    read_panorama(tmp_path / "a.tif")


@pytest.mark.parametrize("size", [(64, 127), (64, 129), (63, 128), (65, 128)])
def test_one_row_of_rounding_is_stretched_to_2_to_1(size, tmp_path):
  save_image(tmp_path / "a.png", smooth_picture(*size))
  assert read_panorama(tmp_path / "a.png").shape == (size[0], 2 * size[0], 3)


@pytest.mark.parametrize("size", [(64, 125), (64, 64), (62, 128), (66, 128), (128, 64)])
def test_other_shapes_are_refused_with_the_cure(size, tmp_path):
  save_image(tmp_path / "a.png", smooth_picture(*size))
  with pytest.raises(PanoramaError, match=r"a.png: .* is not 2:1; give a full equirectangular"):
    read_panorama(tmp_path / "a.png")


def test_a_picture_that_is_too_small_is_refused(tmp_path):
  save_image(tmp_path / "a.png", smooth_picture(16, 32))
  with pytest.raises(PanoramaError, match="too small; give at least 64 x 32"):
    read_panorama(tmp_path / "a.png")


def test_a_folder_gives_its_pictures_sorted(tmp_path):
  for name in ("b.JPG", "a.png", "c.tif", ".hidden.png", "notes.txt", "e.webp", "d.bmp", "f.jpeg"):
    (tmp_path / name).touch()
  (tmp_path / "folder.png").mkdir()
  names = [path.name for path in find_panoramas(tmp_path)]
  assert names == ["a.png", "b.JPG", "c.tif", "d.bmp", "e.webp", "f.jpeg"]
  assert find_panoramas(str(tmp_path / "a.png")) == [tmp_path / "a.png"]


def test_nothing_to_find_is_a_clear_error(tmp_path):
  with pytest.raises(PanoramaError, match="no picture in this folder"):
    find_panoramas(tmp_path)
  with pytest.raises(PanoramaError, match="no such file or folder"):
    find_panoramas(tmp_path / "absent")


def test_two_pictures_that_would_share_their_results_are_refused(tmp_path):
  (tmp_path / "a.png").touch()
  (tmp_path / "a.jpg").touch()
  with pytest.raises(PanoramaError, match="would overwrite those of a.jpg"):
    find_panoramas(tmp_path)
