"""OAuth 2.0, OpenID Connect and Akoya's dialect as values and functions: no I/O, no clock."""
