"""Engines: what starts, stops, freezes, thaws and removes one isolated place with an agent in it."""
