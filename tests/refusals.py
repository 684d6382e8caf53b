"""The text of a refusal, for an assertion on one line."""

import pytest

from efface.errors import InputError


def refusal(call, *arguments, kind=InputError, **named):
    """What the error of a call says: an InputError, or of the ``kind`` that is given."""
    with pytest.raises(kind) as error:
        call(*arguments, **named)
    return str(error.value)
