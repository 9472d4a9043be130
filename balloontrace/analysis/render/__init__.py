"""Renderers: text and JSON. They see results, never a trace."""
