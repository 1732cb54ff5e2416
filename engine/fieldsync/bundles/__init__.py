"""Scopes as files that are carried by hand: written, sealed, read, and kept when scopes are left."""
