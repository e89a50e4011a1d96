"""The fault-injection harness: break what a manager stands on, then look at what it makes of it."""
