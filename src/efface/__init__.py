"""Make a trained model forget records, with an honest account of how far that succeeded."""

__version__ = "0.1.0"
