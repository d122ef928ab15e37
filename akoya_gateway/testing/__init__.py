"""Tests of an app's whole flows: the app inside a gateway, in front of the emulator, and a browser.

`fixtures` is a pytest plugin with the fixture `akoya_flow`.
"""

from __future__ import annotations
