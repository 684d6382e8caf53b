"""The text of a refusal, for an assertion on one line."""

import pytest

from efface.errors import InputError


def refusal(call, *arguments, **named):
    """What the InputError of a call says."""
    with pytest.raises(InputError) as error:
        call(*arguments, **named)
    return str(error.value)
