"""What tests of reading and writing share."""

import numpy as np
import pytest
from PIL import Image

from efface.errors import InputError


def error_of(call, *arguments, kind=InputError, **options):
    """The text of the error that the call must raise."""
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    return str(caught.value)


def image_folder(root, layout):
    """A small image at each path; its grey says which."""
    for place, path in enumerate(layout):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), place, dtype=np.uint8)).save(root / path)
    return root
