"""Tables as console text, Markdown, LaTeX, CSV, JSON and HTML."""
