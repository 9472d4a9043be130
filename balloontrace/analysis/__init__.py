"""The analysis side: turns a recording into results, and shows them. Needs pandas."""
