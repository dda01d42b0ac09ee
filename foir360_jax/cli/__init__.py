"""The command line: one command, `foir360`, whose subcommands import what they need."""

__all__ = []
