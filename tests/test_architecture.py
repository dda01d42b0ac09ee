"""The layout of the project: who may import whom, how long a module may be, what it exports."""

import ast
import graphlib
import importlib
import pathlib
import subprocess
import sys

import pytest

from foir360_jax.cli.commands import COMMANDS

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "foir360_jax"
MAX_LINES = 400
AS_COMMAND = "if __name__ == '__main__':"

# A module imports only from rows above its own, or from its own room.
LEVELS = (
  {"paths"},
  {"sphere", "losses", "metrics", "files", "config", "batch", "allocator", "compilation"},
  {"drawing"},
  {"scenes"},
  {"models", "data"},
  {"saliency", "objective"},
  {"train", "weak_labels", "segment"},
  {"saliency.fixations", "segment.training", "segment.study", "inference"},
  {"weak_labels.study"},
  {"evaluation"},
  {"benchmarks"},
  {"cli"},
  {"main"},
)
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
DATA_BUILDERS_USE = {"sphere", "metrics", "files", "drawing", "scenes"}
SEGMENTER_LIBRARIES = {"onnxruntime", "torch", "torchvision", "transformers"}
ADAPTERS = {
  PACKAGE / "segment/onnx_models.py": {"onnxruntime"},
  PACKAGE / "segment/torchvision_models.py": {"torch", "torchvision"},
  PACKAGE / "segment/transformers_models.py": {"torch", "transformers"},
}
PREPARE = PACKAGE / "cli/prepare.py"  # the only module of the package that imports the builders


def python_files(*folders):
  files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
  assert files
  return files


def imported_modules(file):
  """Full names of the modules and names that a file imports, lazily imported ones included.

  Not those of what the file does as a command: that is no part of the module.
  """
  names = []
  tree = ast.parse(file.read_text())
  tree.body = [node for node in tree.body if ast.unparse(node).split("\n")[0] != AS_COMMAND]
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{file}: relative import"
      names += [f"{node.module}.{alias.name}" for alias in node.names]
  return names


def room_of(module):
  """The room that a dotted name below foir360_jax lies in: "saliency.fixations", "saliency"..."""
  parts = module.split(".")
  names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
  return next((name for name in names if name in LEVEL_OF), parts[0])


def imported_rooms(file):
  """The rooms of foir360_jax that a file imports."""
  prefix = "foir360_jax."
  names = [name.removeprefix(prefix) for name in imported_modules(file) if name.startswith(prefix)]
  return {room_of(name) for name in names}


def room_of_file(file):
  return room_of(".".join(file.relative_to(PACKAGE).with_suffix("").parts))


def test_imports_go_one_way():
  for file in python_files("foir360_jax"):
    room = room_of_file(file)
    if room == "__init__":  # the root only names what is below
      continue
    assert room in LEVEL_OF, f"foir360_jax.{room} is new: give it a level in this test"
    for other in imported_rooms(file) - {room}:
      assert LEVEL_OF[other] < LEVEL_OF[room], f"{file} imports foir360_jax.{other}"


def test_no_module_imports_itself_by_way_of_others():
  """Not even where an import hides in a function, or is meant for a type checker alone."""
  modules = {}
  for file in python_files("foir360_jax"):
    parts = file.relative_to(ROOT).with_suffix("").parts
    modules[".".join(parts).removesuffix(".__init__")] = file
  graph = {}
  for name, file in modules.items():
    # The package of a module is imported before it; that it imports the module is no cycle.
    names = {n if n in modules else n.rpartition(".")[0] for n in imported_modules(file)}
    graph[name] = names & modules.keys() - {name}
    if file.name == "__init__.py":
      graph[name] = {other for other in graph[name] if other.startswith(name + ".")}
  sorter = graphlib.TopologicalSorter(graph)
  sorter.prepare()  # raises CycleError, which names the modules


def test_configurations_import_one_set_of_defaults_alone():
  for file in python_files("configs"):
    (name,) = set(imported_modules(file))
    assert name.startswith("foir360_jax.config.") and name.endswith("_config"), file


def test_data_builders_use_little_of_the_package_and_the_package_nothing_of_them():
  builders = {folder.name for folder in (ROOT / "datasets").iterdir() if folder.is_dir()}
  for file in python_files("datasets"):
    assert imported_rooms(file) <= DATA_BUILDERS_USE, file
  for file in python_files("foir360_jax", "configs"):
    roots = {name.split(".")[0] for name in imported_modules(file)}
    assert not roots & (builders | {"datasets", "configs", "tests"}), file


def test_only_the_command_that_prepares_looks_into_the_folder_of_the_builders():
  for file in python_files("foir360_jax"):
    names = [node.value for node in ast.walk(ast.parse(file.read_text())) if is_text(node)]
    assert ("datasets" in names) == (file == PREPARE), file


def is_text(node):
  return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_module_is_longer_than_400_lines():
  scripts = [file for file in (ROOT / "launch").iterdir() if file.is_file()]
  for file in python_files("foir360_jax", "datasets", "configs") + scripts:
    assert len(file.read_text().splitlines()) <= MAX_LINES, file


def test_no_module_is_a_box_for_odds_and_ends():
  for file in python_files("foir360_jax", "datasets", "configs", "tests"):
    assert file.stem not in {"utils", "util", "helpers", "common", "misc"}, file


def test_every_module_says_what_it_is():
  for file in python_files("foir360_jax", "datasets", "configs"):
    assert ast.get_docstring(ast.parse(file.read_text())), file


@pytest.mark.parametrize(
  "package",
  sorted(".".join(f.relative_to(ROOT).parts[:-1]) for f in PACKAGE.glob("*/**/__init__.py")),
)
def test_every_package_lists_what_it_exports(package):
  module = importlib.import_module(package)
  file = pathlib.Path(module.__file__)
  imported = {
    alias.asname or alias.name
    for node in ast.parse(file.read_text()).body
    if isinstance(node, ast.ImportFrom)
    for alias in node.names
  }
  assert set(module.__all__) == imported
  # Constants, then classes, then functions, each by the alphabet.
  assert module.__all__ == sorted(
    module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
  )


def run_python(code):
  command = [sys.executable, "-c", code]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_core_runs_where_only_jax_and_flax_are():
  # JAX, Flax and optax themselves need NumPy, absl and etils, and SciPy is JAX's, too.
  absent = {
    *(
      "PIL",
      "array_record",
      "cv2",
      "grain",
      "jsonschema",
      "ml_collections",
      "orbax",
      "pycocotools",
    ),
    *("rax", "tensorboardX", "tensorflow", "tensorflow_datasets", "torch"),
  }
  parts = ("sphere", "losses", "metrics", "models", "train", "benchmarks.gpu")
  result = run_python(
    f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
    + "\n".join(f"import foir360_jax.{part}" for part in parts)
  )
  assert result.returncode == 0, result.stderr


def test_the_command_line_needs_neither_tensorflow_nor_the_opponents():
  # tensorboardX imports torch wherever it is there: to block it says more than to look for it.
  result = run_python(
    "import sys\nfor name in ('torch', 'rax'): sys.modules[name] = None\n"
    + "".join(f"import foir360_jax.cli.{command.module}\n" for command in COMMANDS.values())
    + "print('tensorflow' in sys.modules)"
  )
  assert result.stdout.strip() == "False", result.stderr


@pytest.mark.parametrize(
  ("code", "absent"),
  [
    (
      "import foir360_jax; foir360_jax.Ranker",
      ("grain", "tensorflow_datasets", "foir360_jax.weak_labels", "foir360_jax.data"),
    ),
    ("import foir360_jax.metrics", ("jax", "flax", "tensorflow_datasets")),
  ],
)
def test_what_people_use_in_their_own_programs_imports_no_more_than_it_needs(code, absent):
  result = run_python(f"import sys\n{code}\nprint([x for x in {absent} if x in sys.modules])")
  assert result.stdout.strip() == "[]", result.stderr


def test_help_comes_at_once_without_jax_and_numpy():
  heavy = ("absl", "cv2", "jax", "ml_collections", "numpy", "rich", "tensorflow_datasets")
  for words in (["--help"], ["predict", "--help"], ["predict", "--wrong"]):
    result = run_python(
      f"import sys\nfrom foir360_jax.cli.command import main\nmain({words})\n"
      f"print([name for name in {heavy} if name in sys.modules])"
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_only_the_benchmarks_import_opponents():
  """Adapters of segmenters import the library that they are for, where an instance is made."""
  for file in python_files("foir360_jax", "datasets", "configs"):
    if file.parent == PACKAGE / "benchmarks":
      continue
    tree = ast.parse(file.read_text())
    opponents = {name for node in ast.walk(tree) for name in roots_imported_by(node)}
    opponents &= {"tensorflow", "rax"} | SEGMENTER_LIBRARIES
    assert opponents <= ADAPTERS.get(file, set()), file
    at_once = {name for node in tree.body for name in roots_imported_by(node)}
    assert not at_once & SEGMENTER_LIBRARIES, file


def test_the_adapters_of_segmenters_are_loaded_by_name_alone():
  """Neither does another module import one, nor does a library come with the package."""
  names = {f"foir360_jax.segment.{file.stem}" for file in ADAPTERS}
  for file in python_files("foir360_jax", "datasets", "configs"):
    imported = imported_modules(file)
    assert not names & {*imported, *(name.rpartition(".")[0] for name in imported)}, file
  result = run_python(
    "import sys, foir360_jax.segment\n"
    f"print([name for name in {SEGMENTER_LIBRARIES} if name in sys.modules])"
  )
  assert result.stdout.strip() == "[]", result.stderr


def roots_imported_by(node):
  """Top-level packages that one statement imports."""
  if isinstance(node, ast.Import):
    return {alias.name.split(".")[0] for alias in node.names}
  return {node.module.split(".")[0]} if isinstance(node, ast.ImportFrom) else set()
