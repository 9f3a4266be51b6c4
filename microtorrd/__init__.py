"""microtorrd, a peer-to-peer file-sharing daemon. docs/ARCHITECTURE.md is the map of its rooms."""

__version__ = "0.1.0"
