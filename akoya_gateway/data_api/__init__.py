"""Akoya's data APIs as an upstream. The gateway calls them with the user's token, so the app never gets the token.

`gateway.data_calls` routes requests here. Paths, headers and the meaning of responses are pure functions.
"""
