"""The contract of methods, for those here and for anybody's: ``check_method``."""

from efface.testing.case import Case
from efface.testing.check import Kept, check_method
from efface.testing.promises import PROMISES
from efface.testing.words import Broken, Refused

__all__ = ["PROMISES", "Broken", "Case", "Kept", "Refused", "check_method"]
