"""A report as people read it: a self-contained HTML page, and Markdown. Reads the JSON, measures nothing."""
