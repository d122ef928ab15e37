"""Text in, one frozen `Config` out."""
