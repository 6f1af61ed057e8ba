"""How a step is run, never what it computes: `program`, `blocks`, `compiled`, `threads`, and the `plan` of a tree."""
