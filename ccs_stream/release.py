"""The release of this package: read by the build, shown by the commands, recorded with each agent that joins."""

__version__ = "0.1.0"
