"""The built-in plugins, imported as `di4c_plugins`; they have no privilege over a third party's."""
