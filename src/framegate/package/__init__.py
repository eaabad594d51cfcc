"""Plugins as files: what they say of themselves, who signed them, where they are kept, how they are begun and built.

manifest    plugin.toml, or the driver.toml of a package -> Manifest;  names: of plugins, versions, files
discover    which plugins there are; a Python role of a built-in or unsigned one is loaded here, and nothing else
signature   ed25519 over the exact bytes of a manifest;  keys: their files
trust       whose signatures count, and for what
archive     a package, NAME-VERSION.edge, and unpacking it;  zip_entries: its format
incoming    a package that comes in, and verified: is it what somebody trusted has signed, for this machine
store       what is installed, which version is active, the way back;  shelf, trash, state: its files
permissions what a package asks for beyond the version before
sealed      files as they are loaded: in memory, unchangeable
publish     from a plugin's folder to its package;  template, build, toolchain: from nothing to that folder
"""
