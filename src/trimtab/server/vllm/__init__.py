"""The door hung into vLLM's own server.

Requests without our fields run through vLLM's code alone, unless the operator set rules or somebody watches.

    plugin      the entry points `vllm.general_plugins` and `vllm.endpoint_plugins`
    hooks       the few methods of vLLM's front end that are wrapped
    door        one engine client: what its workers hold, and the results that come back
    admission   one HTTP request, from its fields to its receipt
    results     what workers report, request by request, in the event loop
    judging     rules between the server and the workers
    watching    plain requests of any route, read for those who watch
    guest       the remote engine's routes, on the server's own vLLM
    answers     readings and receipts put into an answer, whole or in chunks
    starting    vLLM's server with this plugin, as `trimtab serve` starts it
"""
