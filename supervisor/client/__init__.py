"""The daemon's API as the command line uses it: standard library only, so that verbs are quick."""
