import io
import os
import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from foir360_jax.files import PanoramaError, find_panoramas, picture_file, read_panorama, save_image
from foir360_jax.files.panorama_file import encode_panorama, resize_columns, stretch
from foir360_jax.files.picture_file import PictureError, picture_size, read_picture


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


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_read_upright_as_viewers_show_them(orientation, file_format, tmp_path):
  rgb = smooth_picture(*((128, 64) if orientation >= 5 else (64, 128)))
  exif = Image.Exif()
  exif[0x0112] = orientation
  path = tmp_path / "a.img"
  path.write_bytes(encode(rgb, file_format, exif=exif))
  with Image.open(path) as picture:
    upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
  np.testing.assert_array_equal(read_panorama(path), upright)
  np.testing.assert_array_equal(read_picture(path).convert("RGB"), upright)
  assert read_picture(path).format == file_format
  for whole in (True, False):
    assert picture_size(path, whole=whole) == (64, 128)


def test_metadata_of_a_png_behind_its_pixels_counts_as_well(tmp_path):
  rgb, exif = smooth_picture(128, 64), Image.Exif()
  exif[0x0112] = 6
  data = encode(rgb, "PNG", exif=exif)
  start = data.index(b"eXIf") - 4
  end = start + 12 + int.from_bytes(data[start : start + 4], "big")
  late = data[:start] + data[end:-12] + data[start:end] + data[-12:]  # before IEND
  (tmp_path / "a.png").write_bytes(late)
  assert picture_size(tmp_path / "a.png", whole=False) == (64, 128)
  np.testing.assert_array_equal(read_panorama(tmp_path / "a.png"), np.rot90(rgb, -1))


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*", b"Exif\0\0" + b"\xff" * 40, b"nonsense"])
def test_broken_exif_does_not_matter(exif, tmp_path):
  (tmp_path / "a.jpg").write_bytes(encode(smooth_picture(), "JPEG", exif=exif))
  assert read_panorama(tmp_path / "a.jpg").shape == (64, 128, 3)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "P"])
def test_what_is_written_for_other_readers_has_the_pixels_that_are_read(mode, tmp_path):
  picture = Image.fromarray(smooth_picture()).convert(mode)
  for name, orientation in (("plain", 1), ("turned", 3)):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / (name + (".tif" if mode == "CMYK" else ".png"))
    picture.save(path, exif=exif)
    data = encode_panorama(path)
    assert (data == path.read_bytes()) == (mode == "RGB" and name == "plain")
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]
    np.testing.assert_array_equal(decoded, read_panorama(path))


def test_floating_point_pixels_are_refused(tmp_path):
  Image.fromarray(np.zeros([64, 128], np.float32)).save(tmp_path / "a.tif")
  with pytest.raises(PanoramaError, match="8 bits a channel"):
    read_panorama(tmp_path / "a.tif")


@pytest.mark.parametrize("size", [(64, 127), (64, 129), (63, 128), (65, 128), (117, 232)])
def test_a_few_rows_off_2_to_1_are_read_at_their_size(size, tmp_path):
  rgb = smooth_picture(*size)
  save_image(tmp_path / "a.png", rgb)
  np.testing.assert_array_equal(read_panorama(tmp_path / "a.png"), rgb)
  assert stretch(rgb).shape == (size[0], 2 * size[0], 3)


@pytest.mark.parametrize("width", [40, 61, 62, 64, 66, 67, 130])
def test_masks_with_other_columns_are_the_nearest_and_lose_no_object(width):
  rng = np.random.default_rng()
  masks = np.zeros((64, 4, 64), bool)
  masks[np.arange(64), 1, np.arange(64)] = True  # as thin as they get
  resized = resize_columns(masks, width)
  assert resized.shape == (64, 4, width) and resized.any((1, 2)).all()
  columns = np.argwhere(resized[:, 1])
  assert np.abs((columns[:, 1] + 0.5) * 64 / width - columns[:, 0] - 0.5).max() <= 1
  whole = rng.random((4, 64)) < 0.5
  if width >= 64:
    np.testing.assert_array_equal(resize_columns(resize_columns(whole, width), 64), whole)


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
  names = ("b.JPG", "a.png", "c.tif", ".hidden.png", "notes.txt", "e.webp", "d.bmp", "f.jpeg")
  for name in (*names, "g.insp", "h.jfif", "i.jpe", "j.jp2", "k.avif", "l.gif", "m.mpo"):
    (tmp_path / name).touch()
  (tmp_path / "folder.png").mkdir()
  listing = find_panoramas(tmp_path)
  assert "".join(listing.pictures) == "abcdefghijklm"
  assert listing.pictures["b"] == tmp_path / "b.JPG"
  assert listing.others == ("folder.png/", "notes.txt")
  assert find_panoramas(str(tmp_path / "a.png")).pictures == {"a": tmp_path / "a.png"}


def test_nothing_to_find_is_a_clear_error(tmp_path):
  with pytest.raises(PanoramaError, match="no picture in this folder"):
    find_panoramas(tmp_path)
  (tmp_path / "sub").mkdir()
  with pytest.raises(PanoramaError, match=r"no picture in this folder \(it holds sub/\)"):
    find_panoramas(tmp_path)
  with pytest.raises(PanoramaError, match="no such file or folder"):
    find_panoramas(tmp_path / "absent")


@pytest.mark.parametrize("file_format", ["GIF", "JPEG2000", "AVIF", "MPO"])
def test_whatever_pillow_decodes_is_read(file_format, tmp_path):
  if file_format == "AVIF" and not features.check("avif"):
    pytest.skip("this Pillow decodes no AVIF")
  (tmp_path / "a.img").write_bytes(encode(smooth_picture(), file_format))
  assert read_panorama(tmp_path / "a.img").shape == (64, 128, 3)


def test_heic_is_read_where_the_package_for_it_is_installed(tmp_path):
  pytest.importorskip("pillow_heif")
  picture_file._reads_heif()  # so that Pillow writes it, too
  rgb = smooth_picture()
  for name in ("a.heic", "b.jpg"):  # as telephones send them
    Image.fromarray(rgb).save(tmp_path / name, "HEIF", quality=95)
    assert (
      np.abs(read_panorama(tmp_path / name).astype(int) - rgb).mean() < 12
    )  # no channel swapped


def test_each_kind_that_is_not_read_has_a_line_with_the_cure(tmp_path, monkeypatch):
  monkeypatch.setattr(picture_file, "_reads_heif", lambda: False)
  heic = b"\0\0\0\x18ftypheic" + bytes(40)
  (tmp_path / "a.heic").write_bytes(heic)
  (tmp_path / "b.jpg").write_bytes(heic)  # as telephones send them
  (tmp_path / "c.DNG").write_bytes(encode(smooth_picture(), "TIFF"))  # would be its preview
  (tmp_path / "d.jpg").symlink_to("gone.jpg")
  os.mkfifo(tmp_path / "e.jpg")
  pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"x")
  lines = {}
  for name, path in find_panoramas(tmp_path).pictures.items():
    with pytest.raises(PanoramaError) as error:
      read_panorama(path)
    lines[name] = str(error.value)
  assert lines["a"].endswith(
    "a.heic: HEIC is not read; pip install 'foir360_jax[heic]', or convert it to JPEG or PNG, as"
    " by: magick a.heic a.jpg"
  )
  assert "b.jpg: HEIC is not read" in lines["b"]
  assert "c.DNG: DNG is not read" in lines["c"]
  assert "d.jpg: a link to gone.jpg, which cannot be read" in lines["d"]
  assert "e.jpg: cannot be read (it is no regular file)" in lines["e"]
  assert lines[r"caf\udce9"].endswith(
    r"caf\udce9.jpg: the name is not UTF-8, so no result can carry it; rename it"
  )
  assert all("\n" not in line for line in lines.values()) and len(lines) == 6


def test_two_pictures_that_would_share_their_results_are_a_line_and_others_go_on(tmp_path):
  for name in ("a.png", "a.jpg", "b.png", "c.jpg", "c.dng"):
    (tmp_path / name).touch()
  pictures = find_panoramas(tmp_path).pictures
  assert isinstance(pictures["a"], PictureError)
  assert "a.jpg and a.png would have the same results, a; rename" in str(pictures["a"])
  del pictures["a"]
  assert {name: path.name for name, path in pictures.items()} == {
    "b": "b.png",
    "c": "c.jpg",
    "c.dng": "c.dng",  # no rival of its JPEG
  }
