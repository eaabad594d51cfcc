"""Raw values become engineering values here, once, when a batch enters the bus.

`mapping` compiles what the tag table asks for; `planner` looks at a tag array once and makes a `layout`, which every
batch of that array walks through: `linear`, `formula` (over `lua`, `inputs` and `alarms`), `columns`, `report`.
`expression`, `grammar`, `wishes` and `dependencies` say what may be asked for; `inverse` goes the way back, for writes.
Stateful rules are subscribers of the bus and live in `rules`.
"""
