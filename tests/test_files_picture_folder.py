"""Names of pictures: one form for all that compares them."""

import unicodedata

from foir360_jax.files.picture_folder import find_file, list_pictures, picture_id

NAME = "k\u00fcche_\u00e9t\u00e9"
NFD = unicodedata.normalize("NFD", NAME)


def test_both_unicode_forms_of_a_name_are_one_id(tmp_path):
  (tmp_path / f"{NFD}.jpg").touch()
  assert list(list_pictures(tmp_path).pictures) == [NAME] == [picture_id(f"{NFD}.jpg")]


def test_a_file_is_found_by_either_form_of_its_name(tmp_path):
  (tmp_path / f"Sub {NFD}").mkdir()
  file = tmp_path / f"Sub {NFD}" / f"{NFD}.JPG"
  file.touch()
  for name in (f"Sub {NAME}/{NAME}.JPG", f"Sub {NFD}/{NAME}.JPG", f"Sub {NFD}/{NFD}.JPG"):
    assert find_file(tmp_path, name) == file
  assert find_file(tmp_path, f"Sub {NAME}/other.JPG") is None
  assert find_file(tmp_path / "absent", "x.jpg") is None


def test_a_file_that_comes_later_is_found(tmp_path):
  assert find_file(tmp_path, f"{NAME}.jpg") is None
  (tmp_path / f"{NFD}.jpg").touch()
  assert find_file(tmp_path, f"{NAME}.jpg") == tmp_path / f"{NFD}.jpg"
