"""What vLLM loads: `register` in each of its processes, and the routes in its API server.

Routes are loaded only where `VLLM_PLUGINS` names trimtab, which is also a list of all that vLLM may load. Without it
plans and readings work all the same; there is then no capture, and no way to load vectors.
"""

from __future__ import annotations

import logging
import os
from typing import Any, cast

from trimtab.errors import Unsupported

log = logging.getLogger("vllm.trimtab")


def register() -> None:
    """The entry point `vllm.general_plugins`: the worker's part, and the front end's."""
    from trimtab.engines.vllm import plugin

    if plugin.register():
        _register_front()
    elif told():
        raise Unsupported(
            "VLLM_PLUGINS names trimtab, and trimtab does not fit this vLLM (the reason is logged)"
        )


def _register_front() -> None:
    """Hang the door in. Where it does not fit, a server that was told to load trimtab does not start."""
    from trimtab.server.vllm import hooks

    try:
        hooks.install()
    except (ImportError, AttributeError) as error:
        text = (
            f"this vLLM's HTTP server is not one that trimtab knows, and plans sent to it do nothing: {error}"
        )
        if told():
            raise Unsupported(text) from error
        log.warning("trimtab: %s", text)


def told() -> bool:
    """Whether the operator named trimtab: then a server without it must not start."""
    return "trimtab" in os.environ.get("VLLM_PLUGINS", "").split(",")


class Routes:
    """The entry point `vllm.endpoint_plugins`."""

    name = "trimtab"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        """Our routes, those of the remote engine, and our fields in the document of vLLM's."""
        from trimtab.server import document
        from trimtab.server.routes import router
        from trimtab.server.surface import routes
        from trimtab.server.vllm.guest import Late

        paths: set[str] = set()
        for ours in (router(), routes(cast(Any, Late(app)))):
            paths |= {route.path for route in ours.routes}  # type: ignore[attr-defined]
            app.include_router(ours)
        document.finish(app, paths.__contains__, bool(os.environ.get("VLLM_API_KEY")), document.with_fields)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Open the door now, so that a vector file that does not fit stops the server and not the first request."""
        from trimtab.server.batching import Batcher
        from trimtab.server.surface import Surface
        from trimtab.server.vllm.door import Door
        from trimtab.server.vllm.guest import Guest

        door = await Door.of(engine_client).open()
        door.routes = True
        guest, limits = Guest(door), door.counter.settings
        door.surface = Surface(guest, Batcher(guest, limits.max_rows, limits.max_waiting), door.counter)
        state.trimtab = door
