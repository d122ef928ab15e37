"""Access rules: paths, redirects and the decision for one request. Pure functions and values."""
