"""Names of pictures: one form for all that compares them."""

import unicodedata

from foir360_jax.files.picture_folder import find_file, list_pictures, picture_id

NAME = "k\u00fcche_\u00e9t\u00e9"
NFD = unicodedata.normalize("NFD", NAME)


def test_both_unicode_forms_of_a_name_are_one_id(tmp_path):
  (tmp_path / f"{NFD}.jpg").touch()
  assert list(list_pictures(tmp_path).pictures) == [NAME] == [picture_id(f"{NFD}.jpg")]


def test_a_file_is_found_by_either_form_and_with_other_capitals(tmp_path):
  (tmp_path / f"Sub {NFD}").mkdir()
  file = tmp_path / f"Sub {NFD}" / f"{NFD}.JPG"
  file.touch()
  for name in (f"Sub {NAME}/{NAME}.JPG", f"sub {NFD}/{NAME}.jpg", f"Sub {NFD}/{NFD}.JPG"):
    assert find_file(tmp_path, name) == file
  assert find_file(tmp_path, f"Sub {NAME}/other.JPG") is None
  assert find_file(tmp_path / "absent", "x.jpg") is None


def test_of_names_that_differ_by_case_only_the_very_one_is_taken(tmp_path):
  for name in ("a.jpg", "A.jpg"):
    (tmp_path / name).touch()
  if len(list(tmp_path.iterdir())) == 2:  # the file system tells them apart
    assert find_file(tmp_path, "A.jpg") == tmp_path / "A.jpg"
    assert find_file(tmp_path, "a.JPG") is None


def test_a_file_that_comes_later_is_found(tmp_path):
  assert find_file(tmp_path, f"{NAME}.jpg") is None
  (tmp_path / f"{NFD}.jpg").touch()
  assert find_file(tmp_path, f"{NAME}.jpg") == tmp_path / f"{NFD}.jpg"
