"""The commands of `di4c`: one module each, with main(arguments, prog); nothing is imported before its command is asked for."""
