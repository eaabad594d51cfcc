"""Plugins in a running gateway: made into drivers, connectors and bridges, and changed under way.

carriers      a row of drivers.yml -> its driver, whatever it was written in
ahead         machine code of sandboxed plugins, made when they come in
modules       Python of installed plugins, each version in a name space of its own;  rule_modules  WASM of rules
shims         older plugin APIs, spoken on
desk          staged, accepted, activated, rolled back, removed;  records  what is shown of that
waiting       packages that nobody has accepted yet: told, and thrown away in the end
version       another version made ready and carried out, or not at all;  exchange  in which order devices get it;
              rule_exchange  how rules do
drops         packages dropped into watched folders;  uploads  packages that come over the network
"""
