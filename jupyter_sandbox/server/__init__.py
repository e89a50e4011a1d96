"""The Jupyter server extension: says who asks, and relays what they ask to the manager."""
