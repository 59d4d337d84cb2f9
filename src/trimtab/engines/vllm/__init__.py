"""The vLLM engine: every request of a batch carries its own plan, captures and readings, under graphs and prefix cache.

vLLM loads `plugin` into each of its processes (entry point `vllm.general_plugins`), so this package imports nothing
heavy by itself. `engine` is the face, `boarding` what it asks of one request of vLLM, `passenger` a request that
somebody hands to vLLM himself, and `captured` where the states lie that come back. What runs inside vLLM's worker is
`worker` and the rooms below it:

    ticket        what a request carries: the plan without its arrays, and what to capture and read
    bank          unit rows and tables on the device, by content hash, counted
    programs      the placements that act together on a stretch of tokens, interned
    edits         the arithmetic of one layer in one step
    steps         who gets which edit in this step, from absolute positions
    kernel        the state of one worker: tickets, bank, programs, and the step that runs
    op            the one custom op that every decoder layer calls
    runners       vLLM's two model runners: when a step begins, what its batch is, when it is over
    pipeline      several workers of one model: what they agree on, what one tells the next
    blocks        keys and values that lost requests wrote
    judge         rules that end a request or switch a plan on, judged between two steps
    stops         requests that a rule ends: in the scheduler, with the token of the step
    losses        requests that were not steered as asked: ended in the scheduler, out of the prefix cache
    orphan        an engine whose server was killed ends, too
    triton_body   the arithmetic of `edits` as one Triton kernel, run under the interpreter so far
"""
