"""Akoya's data APIs as an upstream: the gateway calls them with the user's token, which no app sees.

`gateway.data_calls` routes requests here. Paths, headers and the meaning of responses are pure functions.
"""
