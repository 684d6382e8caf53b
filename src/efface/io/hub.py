"""``hub:owner/name`` and ``hub:owner/name:split``: a data set of the Hugging Face hub or its cache.

A third part names a configuration: ``hub:owner/name/configuration:split``. What was fetched once
is read without a network; ``datasets`` keeps it in its cache, whose place HF_HOME says.
"""

import re
from pathlib import Path

import datasets

from efface.errors import InputError

PREFIX = "hub:"
PART = r"\w[\w.\-]*"


def read_hub(spec: str) -> tuple[datasets.Dataset, tuple[Path, ...]]:
    """The split (train, if none is named), and the files of the cache that hold it.

    Raises InputError for another spelling, and when the hub does not give it; code that lies
    beside the data is never run.
    """
    found = re.fullmatch(rf"hub:({PART}/{PART})(?:/({PART}))?(?::({PART}))?", spec)
    if not found:
        raise InputError(
            "hub:owner/name, hub:owner/name:split or hub:owner/name/configuration:split",
            repr(spec),
            "Such as hub:ylecun/mnist:test.",
        )
    name, configuration, split = found.groups()
    if Path(name).exists():
        raise InputError(
            f"the data set {name} of the hub",
            "a folder of that name here, which datasets would read instead",
            f"Give the folder as {name}, or start from elsewhere.",
        )
    try:
        read = datasets.load_dataset(
            name, configuration, split=split or "train", keep_in_memory=False
        )
    except Exception as error:  # whatever a network can raise
        raise InputError(
            f"the split {split or 'train'!r} of {name}, from the hub or from the local cache",
            f"{type(error).__name__}: {(str(error) or 'no more words').splitlines()[0][:300]}",
            "Check the name and the network, fetch it once where there is one, or give it as files "
            "(parquet, arrow, CSV).",
        ) from error
    return read, tuple(Path(part["filename"]) for part in read.cache_files)
