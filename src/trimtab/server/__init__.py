"""The HTTP door: OpenAI's routes with plans, readings and captures in extra fields.

What does not depend on the server that carries it lives here; `vllm` hangs it into vLLM's own server.

    settings   what the operator allows, from the environment
    wire       the extra fields `steering`, `readout` and `capture`: their form, and errors in words
    library    vector files by name, from the allowed folder only
    selection  which rows a request reads, and how readings are packed
    captures   captured states that wait to be fetched
    receipts   what was applied
    counter    one model behind the door: its library, its default plan, its limits
    busy       what could be done, but not now
    metrics    figures for Prometheus
    routes     `/v1/vectors`, `/v1/steering`, `/v1/readout/manifest`, `/v1/captures`
"""
