"""The remote engine: a served model as an engine. MODEL is the server's address, or several
addresses; nothing heavy runs here."""

from trimtab.engines.remote.engine import RemoteEngine

__all__ = ["RemoteEngine"]
