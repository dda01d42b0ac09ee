"""Names of pictures: one form for all that compares them."""

import unicodedata

from foir360_jax.files.listing import child
from foir360_jax.files.picture_folder import list_pictures, picture_id
from foir360_jax.scenes.picture_finder import PictureFinder

NAME = "k\u00fcche_\u00e9t\u00e9"
NFD = unicodedata.normalize("NFD", NAME)


def test_both_unicode_forms_of_a_name_are_one_id(tmp_path):
  (tmp_path / f"{NFD}.jpg").touch()
  assert list(list_pictures(tmp_path).pictures) == [NAME] == [picture_id(f"{NFD}.jpg")]


def test_a_file_is_found_by_either_form_of_its_name(tmp_path):
  (tmp_path / f"Sub {NFD}").mkdir()
  file = tmp_path / f"Sub {NFD}" / f"{NFD}.JPG"
  file.touch()
  for name in (f"Sub {NAME}/{NAME}.JPG", f"Sub {NFD}/{NAME}.JPG", f"sub {NFD}/{NFD}.jpg"):
    folder, _, own = name.partition("/")
    assert child(child(tmp_path, folder), own) == file
    assert PictureFinder([tmp_path / "absent", tmp_path]).find(name) == file
  assert not child(tmp_path / "absent", "x.jpg").exists()
