"""OAuth 2.0, OpenID Connect and Akoya's dialect as values and functions, without I/O and without reading the clock."""
