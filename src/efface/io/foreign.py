"""What is no PyTorch weights file, by its first bytes: what it is, and what to do instead."""

import re
import zipfile
from itertools import islice
from pathlib import Path

from efface.errors import InputError, abbreviate
from efface.io.files import read_json

# of a file that are looked at
HEAD = 2**16
# of a folder that are looked at: somebody may name the root of a disk
MOST_FILES = 10_000

REFIT = "Fit it again on the data without the records: of such a model that is exact, and cheap."
EXPORT = "Give the PyTorch weights that it was exported from, and export the new ones again."
PORT = "efface unlearns PyTorch models: train it again without the records, or port it to PyTorch."
# what it is, what its first bytes match, how its name ends, what to do: a pickle names its
# package early; of a zip archive the names of its entries stand for its bytes
KINDS = (
    ("a GGUF file of llama.cpp", rb"GGUF", ".gguf", EXPORT),
    ("an ONNX graph", rb"\x08[\x01-\x20][\x12\x1a\x22\x3a]", ".onnx", EXPORT),
    ("a TensorFlow Lite model", rb".{4}TFL3", ".tflite", EXPORT),
    ("a Keras or HDF5 file", rb"\x89HDF\r\n|zip .*model\.weights\.h5", (".h5", ".hdf5"), PORT),
    ("a Flax file", rb"(?!)", ".msgpack", PORT),
    ("an XGBoost model", rb'\{\s*"?(L.{8})?"?learner|binf|.*xgboost\.', (".ubj", ".xgb"), REFIT),
    ("a LightGBM model", rb"tree\r?\nversion=|.*lightgbm\.", ".lgb", REFIT),
    ("a CatBoost model", rb"CBM1|.*catboost\.", ".cbm", REFIT),
    ("a scikit-learn model", rb".*sklearn\.", (".joblib", ".skops"), REFIT),
    ("an archive of numpy arrays", rb"zip .*\.npy", ".npz", EXPORT),
)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
WEIGHTS_FILES = {".safetensors", ".ckpt", ".pt", ".pth", ".bin"}


def refuse_foreign(path: Path) -> None:
    """Raise InputError, with what to do, for a model of another library; nothing is loaded."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:2] == b"PK":
        head = b"zip " + " ".join(_entries(path)).encode(errors="replace")
    for kind, pattern, suffix, remedy in KINDS:
        if re.match(pattern, head, re.DOTALL) or path.name.lower().endswith(suffix):
            raise InputError("a weights file of PyTorch", f"{path}, {kind}", remedy)


def refuse_folder(folder: Path) -> None:
    """Raise InputError for a folder that holds models and is none: it says which to name."""
    found = {
        int(match[1]): path
        for path in folder.iterdir()
        if (match := CHECKPOINT.fullmatch(path.name)) and path.is_dir()
    }
    if found:
        names = [found[step].name for step in sorted(found)]
        came = f"{folder}, a Trainer's folder of {abbreviate(names)}"
        remedy = f"Name one, such as {found[max(found)]}, the newest."
        state = found[max(found)] / "trainer_state.json"
        best = Path(str(read_json(state).get("best_model_checkpoint"))) if state.is_file() else None
        if best and best.name in names:
            remedy += f" Its Trainer calls {best.name} the best."
        raise InputError("one model", came, f"{remedy} All of them know the records.")
    files = [path for path in islice(folder.rglob("*"), MOST_FILES) if path.is_file()]
    if (folder / "saved_model.pb").is_file():
        raise InputError("a model of PyTorch", f"{folder}, a SavedModel of TensorFlow", PORT)
    if weights := sorted(path for path in files if path.suffix in WEIGHTS_FILES):
        listed = abbreviate(str(path.relative_to(folder)) for path in weights)
        came = f"{folder}, a folder that holds {listed}"
        remedy = f"Name one of its files, such as {weights[-1]}, with --architecture."
        raise InputError("a model", came, remedy)
    for path in files:
        if path.parent == folder and path.suffix.lower() not in {".json", ".txt", ".md"}:
            refuse_foreign(path)


def _entries(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[:1000]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []
