"""Values that every part knows: kinds, Information Elements, Flow Keys and Records as numpy dtypes, rows, exporters."""
