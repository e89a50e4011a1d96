"""The manager: one process per OS user and host that owns every sandbox, its records and its timers."""
