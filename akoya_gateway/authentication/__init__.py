"""Who is calling: the session, the app's own user, or nobody."""
