"""The client: handles to sandboxes, for scripts, notebooks, magics, widgets and the command line."""
