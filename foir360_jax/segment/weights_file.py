"""What identifies weights on disk, for what results say of the segmenter that made them."""

import hashlib
import pathlib


def sha256_of(path: pathlib.Path) -> str:
  """Returns the SHA-256 of a file, or of all files with weights in a folder, in hexadecimal.

  Raises:
    OSError: it cannot be read.
  """
  if not path.is_dir():
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  digest = hashlib.sha256()
  for part in sorted(path.iterdir()):
    if part.suffix in (".safetensors", ".bin"):
      digest.update(bytes.fromhex(sha256_of(part)))
  return digest.hexdigest()
