"""The ``tpo`` command, one file a subcommand."""
