"""Recordings for other tools. Unlike renderers, exports see the Trace: they carry every event."""
