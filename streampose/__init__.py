"""streampose: live or recorded video to human pose, in real time."""

from streampose._version import __version__

__all__ = ["__version__"]
